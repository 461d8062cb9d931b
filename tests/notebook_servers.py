"""Programs that serve notebooks, each in a process and a folder of its own, and what the notebooks of their tests import."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import nbformat

ROOT = Path(__file__).parents[1]
# The notebooks hold no model's name, so that a page which shows one has it from us.
LESSON = """
from toolkit.testing import Answer, script

QUICK, SLOW, EVIL = "quick-falcon", "slow-tortoise", "hostile-fox"
models = [
    script(QUICK, lambda prompt, body: Answer(f"Swift words on {prompt}.", first_token_s=0.15)),
    script(SLOW, lambda prompt, body: Answer(f"A considered view of {prompt}.", first_token_s=0.3)),
]
hostile = script(EVIL, lambda prompt, body: Answer("<img src=x onerror=document.title='owned'> " * 40, per_token_s=0.05))
prompts = [f"case {i}" for i in range(30)]
"""
NAMES = re.compile("falcon|tortoise|scripted", re.IGNORECASE)


class NotebookServer:
    """Serves a folder with the module ``lesson`` in it; no setting of whoever runs it counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        (self.folder / "lesson.py").write_text(LESSON)
        profile = folder / "ipython" / "profile_default"
        profile.mkdir(parents=True)
        # A page asks its kernel for what was typed in other notebooks, where models are named.
        (profile / "ipython_kernel_config.py").write_text("c = get_config()\nc.HistoryManager.enabled = False\n")
        kept = {name: value for name, value in os.environ.items() if name != "CI"}  # a live table is what a person sees
        own = {
            "JUPYTERLAB_SETTINGS_DIR": folder / "settings", "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
            "JUPYTER_CONFIG_DIR": folder / "config", "JUPYTER_RUNTIME_DIR": folder / "runtime", "JUPYTER_DATA_DIR": folder / "data",
            "IPYTHONDIR": folder / "ipython", "TOOLKIT_HOME": folder / "home", "PYTHONPATH": ROOT,
        }  # fmt: skip
        self.environment = kept | {name: str(value) for name, value in own.items()}

    def start(self, *command: str, ready: str) -> str:
        """Start the program and wait until it listens; returns its address, which ``ready`` finds in a line of its log."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=self.folder, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        said = []
        while not (found := re.search(ready, said[-1] if said else "")):
            said.append(self.process.stderr.readline())
            assert said[-1], f"{command[0]} ended: {''.join(said)}"
        # Nobody reads the rest, and a server whose pipe is full stands still.
        self.drain = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.drain.start()
        while not listens(found[1]):  # Jupyter's servers say where before they do
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"{command[0]} ended with {self.process.wait(timeout=0.01)}")
        return found[1]

    def write(self, name: str, *cells: str) -> Path:
        path = self.folder / name
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(book, path)
        return path

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        self.drain.join()
        self.process.stderr.close()


def listens(url: str) -> bool:
    place = urlsplit(url)
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((place.hostname, place.port)):
        return True
    return False
