"""What the site has beside ``docs/``: the notebooks as lessons, the changelog, the guide for contributors, and the command's help."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from toolkit.cli import parser

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COPIES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
TUTORIAL = """\
# Tutorial

Each lesson is a notebook that runs as it stands, offline, on models that are shipped with the toolkit. To work through them:
`pip install '.[notebook]'` in the repository, then `jupyter lab notebooks`. Here they are to read, with their outputs as text.

"""
COMMAND = """\
# The command `toolkit`

Exit codes: 0 good, 1 the work failed, 2 wrong usage. With `--json` the answer is one for machines.

"""

Cell = dict[str, Any]  # of a notebook: JSON


def on_config(config: MkDocsConfig) -> None:
    """List a lesson a notebook under Tutorial."""
    (tutorial,) = (section["Tutorial"] for section in config.nav or () if "Tutorial" in section)
    tutorial.extend(f"tutorial/{path.stem}.md" for path in NOTEBOOKS)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is not in ``docs/``."""
    pages = {page: (ROOT / source).read_text("utf-8") for page, source in COPIES.items()}
    pages |= {"tutorial/index.md": tutorial_page(), "reference/command.md": command_page()}
    pages |= {f"tutorial/{path.stem}.md": lesson_page(path) for path in NOTEBOOKS}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    for path in NOTEBOOKS:
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))


def tutorial_page() -> str:
    """What the lessons are, one a line."""
    titles = {path: lesson_page(path).partition("\n")[0].removeprefix("# ") for path in NOTEBOOKS}
    return TUTORIAL + "".join(f"{number}. [{title}]({path.stem}.md)\n" for number, (path, title) in enumerate(titles.items(), 1))


def lesson_page(path: Path) -> str:
    """A notebook as a page: its text, its code, and what came of it as far as that is text."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    title, *text = "\n\n".join(shown_cell(cell) for cell in cells).split("\n", 1)
    return "\n".join([title, "", f"The notebook: [{path.name}](../notebooks/{path.name})", *text, ""])


def shown_cell(cell: Cell) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source.replace("](../docs/", "](../")
    return "\n\n".join([fenced("python", source), *(fenced("text", text) for text in outputs(cell))])


def outputs(cell: Cell) -> Iterator[str]:
    """The texts below a cell; what was printed piece by piece is one of them."""
    printed = "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")
    results = ["".join(output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]]
    yield from filter(None, [printed.rstrip("\n"), *results])


def fenced(language: str, text: str) -> str:
    return f"````{language}\n{text}\n````"  # four: what a model wrote may have three


def command_page() -> str:
    """The help of the command and of all that it does, as it prints it."""
    os.environ["COLUMNS"] = "100"  # argparse has no other way to be told a width
    return COMMAND + "\n\n".join(f"## {each.prog}\n\n{fenced('text', each.format_help())}" for each in all_parsers(parser())) + "\n"


def all_parsers(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from all_parsers(each)
