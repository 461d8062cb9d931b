"""Write environment.yml from pyproject.toml and requirements.lock: the direct dependencies, with the lock's pins, for conda."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = (
    "dashboard",
    "notebook",
    "fast",
    "redis",
    "postgres",
    "vertex",
    "otel",
    "sentry",
    "prometheus",
    "prices",
    "dask",
    "ray",
    "docs",
    "test",
)
FROM_PYPI = {
    "cohere", "genai-prices", "gguf", "google-genai", "llmock", "nbval", "ollama", "openai", "playwright", "pyreqwest", "ray",
    "replicate", "scipy-stubs", "xllamacpp",
}  # fmt: skip
"""What conda-forge does not carry."""


def read_lock(text: str) -> dict[str, str]:
    """Return the pin of each package; where the lock has several, that of Python 3.11, which environment.yml asks for."""
    pins: dict[str, str] = {}
    for line in text.splitlines():
        if found := re.match(r"([A-Za-z0-9_.-]+)(?:\[.*\])?==([^ ;]+)(?: ; (.*))?", line.strip()):
            name, version, marker = found[1].lower(), found[2], found[3] or ""
            if name not in pins or "python_full_version < '3.12'" in marker:
                pins[name] = version
    return pins


def names(requirements: list[str]) -> set[str]:
    return {
        re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0].lower()
        for line in requirements
        if not line.startswith("model-comparison-toolkit")
    }


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = read_lock((ROOT / "requirements.lock").read_text())
    direct = sorted(names(project["dependencies"]).union(*(names(project["optional-dependencies"][extra]) for extra in EXTRAS)))
    lines = [
        "# The same pins as requirements.lock, for conda: conda env create -f environment.yml",
        "name: model-comparison-toolkit",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        "  - python>=3.11,<3.12",
        "  - pip",
        *(f"  - {name}=={pins[name]}" for name in direct if name not in FROM_PYPI),
        "  - pip:",
        *(f"      - {name}=={pins[name]}" for name in direct if name in FROM_PYPI),
        "      - --editable .",
    ]
    (ROOT / "environment.yml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
