"""A real PostgreSQL on a free port of this machine, with nothing in it, that can be stopped and started again."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType

import psycopg

from servers.redis import free_port

PASSWORD = "s3cr3t:w0rd/1"
QUOTED_PASSWORD = "s3cr3t%3Aw0rd%2F1"
PATIENCE_S = 60
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "40", "shared_buffers": "32MB"}


def programs() -> Path | None:
    """Where PostgreSQL's server programs are, the newest if there are several; ``None`` where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = found[-1] if found else shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class PostgresServer:
    """Runs ``postgres`` in a folder. ``start`` after ``stop`` uses the same port and data."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder = folder
        self.bin = bin_folder
        self.port = free_port()
        self.numbers = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        if os.getuid() == 0:  # which postgres refuses to run as
            user = pwd.getpwnam("nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        self._run(
            "initdb", "-D", self.data, "-U", "tester", "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-locale", "-N"
        )
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, schema: str | None = None) -> str:
        """A journal's URL; without a name, that of a schema that nobody used yet."""
        name = schema or f"test_{next(self.numbers)}"
        return f"postgresql://tester:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/postgres?schema={name}"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="tester", password=PASSWORD, dbname="postgres", autocommit=True, connect_timeout=5
        )

    def start(self) -> None:
        options = FAST | {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_as_nobody(), self.bin / "postgres", "-D", self.data, *words], stdout=log, stderr=log, cwd="/"
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """End it at once, and every connection with it."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # what PostgreSQL calls an immediate shutdown
            process.wait()

    def _wait_until_ready(self) -> None:
        waiting = threading.Event()
        for _ in range(PATIENCE_S * 50):
            try:
                self.connect().close()
            except psycopg.OperationalError:
                waiting.wait(0.02)
            else:
                return
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}")

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run([*_as_nobody(), self.bin / program, *arguments], capture_output=True, cwd="/", timeout=PATIENCE_S, check=True)


def _as_nobody() -> list[str]:
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
