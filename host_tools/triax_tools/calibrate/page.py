"""The capture's page: which of the 18 poses are taken, where the sensor points, what to do next. Only on this machine.

`CapturePage` serves one HTML file and the newest snapshot; a click on "redo" is kept until the capture asks for it.
"""

import json
import threading
from collections import deque
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from triax_tools.calibrate.errors import BadInput
from triax_tools.calibrate.guide import Prompt

__all__ = ["CapturePage"]

_HTML = Path(__file__).with_name("page.html")
_LOG = 30  # prompts that a page opened late still sees


class CapturePage:
    """with CapturePage(port=8123) as page: page.show(guide.snapshot(), prompts)"""

    def __init__(self, port: int = 0, device: str = "") -> None:
        self._device = device
        self._state: dict[str, object] = {"cells": []}
        self._log: deque[dict[str, object]] = deque(maxlen=_LOG)
        self._say = ""
        self._count = 0
        self._redo = threading.Event()
        self._lock = threading.Lock()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise BadInput(f"The page cannot be served at port {port} ({error}); choose another with --page.") from None
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> "CapturePage":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def show(self, snapshot: dict[str, object], prompts: Iterable[Prompt]) -> None:
        """Newest state, and what was said since the last call."""
        with self._lock:
            for prompt in prompts:
                self._count += 1
                self._say = prompt.text
                self._log.append({"id": self._count, "kind": prompt.kind, "text": prompt.text})
            self._state = snapshot

    def wants_redo(self) -> bool:
        """True once for each click."""
        if not self._redo.is_set():
            return False
        self._redo.clear()
        return True

    def _json(self) -> bytes:
        with self._lock:
            return json.dumps({**self._state, "say": self._say, "log": list(self._log), "device": self._device}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/":
                    self._send(_HTML.read_bytes(), "text/html; charset=utf-8")
                elif self.path == "/state":
                    self._send(page._json(), "application/json")
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                # Same-origin only: another site's page must not press our buttons.
                origin = self.headers.get("Origin")
                if self.path != "/redo" or (origin is not None and origin != page.url.rstrip("/")):
                    self.send_error(403)
                    return
                page._redo.set()
                self._send(b"{}", "application/json")

            def _send(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """A page that asks four times a second is not news."""

        return Handler
