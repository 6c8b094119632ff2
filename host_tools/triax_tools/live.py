"""The live page: one HTML file, fed by server-sent events, served from a thread beside the run it shows."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

__all__ = ["LivePage"]

PAGE = Path(__file__).with_name("live.html")
# A page that joins late gets the last news at once; slower than this and a run of 20 s looks frozen.
PERIOD_S = 0.5


class LivePage:
    """Serves `news()` twice a second to any number of browsers; `watch(device)` is called when a cell is clicked.

    `news(first)` returns phase, elapsed_s, verdict (None while it runs), hops (name, frames, rate, lag_ms, unit), ages
    (base64, tenths of a second per device, 255: never), wave (device, hz, x, y, z in g) and, for the first event of a browser,
    devices (EUI-64 as text). It is called on the page's thread.
    """

    def __init__(self, news: Callable[[bool], dict[str, Any]], watch: Callable[[str], None], port: int = 0):
        self._news = news
        self._watch = watch
        self._host = "127.0.0.1"
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="live-page", daemon=True)
        self._ready = threading.Event()
        self._error: OSError | None = None

    @property
    def url(self) -> str:
        """Address of the page, once entered."""
        return f"http://{self._host}:{self._port}/"

    def __enter__(self) -> "LivePage":
        """Raises OSError when the port is taken."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/events", self._events),
                web.post("/watch/{device:[0-9a-f]{16}}", self._select),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            self._error = OSError(error.errno, f"the live page cannot listen on port {self._port}; choose another with --port")
            self._ready.set()
            await runner.cleanup()
            return
        self._port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _page(self, _: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE, headers={"Cache-Control": "no-store"})

    async def _select(self, request: web.Request) -> web.StreamResponse:
        self._watch(request.match_info["device"])
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        first = True
        while not self._stop.is_set():
            news = self._news(first)
            first = first and not news.get("devices")  # a browser that came before the run still wants them
            data = json.dumps(news, separators=(",", ":"))
            try:
                await response.write(f"data: {data}\n\n".encode())
            except ConnectionError:
                break
            try:
                await asyncio.wait_for(self._stop.wait(), PERIOD_S)
            except TimeoutError:
                continue
        return response
