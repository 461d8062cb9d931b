"""A real Redis on a free port of this machine, with nothing in it, that can be stopped and started again."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from types import TracebackType

import redis

PROGRAM = "redis-server"
PATIENCE_S = 20.0


class RedisServer:
    """Runs ``redis-server`` in a folder. ``start`` after ``stop`` uses the same port, and what was saved if ``persistent``."""

    def __init__(self, folder: Path, *, password: str | None = None, persistent: bool = True) -> None:
        self.folder = folder
        self.password = password
        self.persistent = persistent
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        secret = "" if self.password is None else f":{self.password}@"
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes" if self.persistent else "no"}
        options |= {"appendfsync": "always"} if self.persistent else {"save": ""}
        options |= {} if self.password is None else {"requirepass": self.password}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, *words], stdout=log, stderr=log)
        self._wait_until_ready()

    def stop(self) -> None:
        """Kill it, as a crash would."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), int(PATIENCE_S / 0.02), supported_errors=(redis.ConnectionError,))
        with redis.Redis(port=self.port, password=self.password, retry=retry) as client:
            client.ping()


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port
