"""Start the dashboard: find a free port, say the address, run Streamlit in this process."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from pathlib import Path

from streamlit.web import cli

from dashboard.warmup import warm_up
from toolkit import settings

__all__ = ["free_port", "run"]

APP = Path(__file__).with_name("app.py")
_TRIES = 100
_IN_USE = {errno.EADDRINUSE, errno.EACCES}  # the second where the system keeps a port for itself


def run(journal: str, port: int = 8501, address: str = "127.0.0.1", alerts: Path | None = None) -> int:
    """Serve the dashboard of a journal until Ctrl-C, and return the exit code.

    Parameters
    ----------
    journal : str
        Path of a SQLite journal or a database URL. It need not exist yet: the pages then say how to make one.
    port : int
        Where to listen; the next free port is taken, and said, where this one is in use.
    address : str
        The interface to listen on. Everything but the loopback lets others read prompts and answers.
    alerts : pathlib.Path, optional
        The file of alert rules; by default that of the settings.

    Returns
    -------
    int
        0 after Ctrl-C.

    Raises
    ------
    OSError
        No free port among the next hundred, or an address that is not this machine's.
    """
    chosen = free_port(port, address)
    if chosen != port:
        print(f"Port {port} is taken; using {chosen}.", flush=True)
    threading.Thread(target=_begin, args=(address, chosen), daemon=True).start()
    os.environ["TOOLKIT_JOURNAL"] = journal
    if alerts is not None:
        os.environ["TOOLKIT_ALERTS"] = str(alerts.absolute())
    return int(cli.main(["run", str(APP), *_flags(address, chosen)], prog_name="toolkit dashboard", standalone_mode=False) or 0)


def free_port(port: int, address: str = "127.0.0.1") -> int:
    """Return ``port``, or the first free one after it."""
    for candidate in range(port, min(port + _TRIES, 65536)):
        if _is_free(candidate, address):
            return candidate
    raise OSError(f"no free port from {port} to {port + _TRIES - 1} on {address}: choose another with --port")


def _is_free(port: int, address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        # Without this a port stays "taken" for a minute after a dashboard on it was stopped; on Windows it would mean the opposite.
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno not in _IN_USE:
                raise
            return False
    return True


def _begin(address: str, port: int) -> None:
    """Say the address once it answers, for a link that is refused looks broken; then do what the first page would wait for."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
    while not _answers(here, port):
        time.sleep(0.05)
    print(f"Dashboard: http://{f'[{here}]' if ':' in here else here}:{port}  (Ctrl-C stops it)", flush=True)
    warm_up()


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def _flags(address: str, port: int) -> list[str]:
    """What depends on this start; the rest is in ``.streamlit/config.toml`` beside the app."""
    flags = [f"--server.address={address}", f"--server.port={port}", f"--browser.serverAddress={address}"]
    if settings.is_loopback(address):
        # A web page elsewhere could otherwise point its own host name at 127.0.0.1 and read the journal.
        flags += [f"--server.allowedHosts={host}" for host in ("127.0.0.1", "localhost", "::1")]
    return flags
