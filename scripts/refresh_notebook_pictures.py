"""Make docs/images/notebook-*.png: a comparison and its answers, the table of one under way, a blind vote, the playground, in JupyterLab.

python scripts/refresh_notebook_pictures.py
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from refresh_screenshots import IMAGES, compress  # noqa: E402

from browsers import chromium_page  # noqa: E402 - found only now
from test_jupyter_browser import Lab, open_notebook, run  # noqa: E402

# Services that no machine has on which pictures are made: their words and times are the script's.
SERVICES = """
from toolkit.testing import Answer, script
import toolkit as tk, random

openings = ["Yes:", "Usually:", "It depends:"]
rules = ["a cell that was read is frozen", "writing to a cell makes a new one", "whoever holds a cell sees the value it had", "nobody waits for a lock"]

def talker(seed, first_s, token_s, many):
    def talk(prompt, body):
        dice = random.Random(prompt + str(seed))
        said = " ".join([dice.choice(openings), ", and ".join(dice.sample(rules, many)) + "."])
        return Answer(said, first_token_s=first_s * dice.uniform(0.7, 1.6), per_token_s=token_s)
    return talk

models = [script("small-8b", talker(1, 0.10, 0.004, 2)), script("large-70b", talker(2, 0.15, 0.008, 3))]
""".strip()
COMPARE = """
prompts = [f"What does rule {number} say about cells?" for number in range(1, 25)]
result = await tk.acompare(models, prompts, repeats=5)
result
""".strip()
CELLS = {
    "setup": SERVICES,
    "compare": COMPARE,
    "side-by-side": "result.side_by_side(only='different', search='rule 2')",
    "live": "longer = await tk.acompare(models, [f'What does rule {n} say?' for n in range(200)], concurrency=8)",
    "vote": "result.vote(rater='ann')",
    "playground": "play = tk.playground(models, prompt='What does rule 7 say about cells?')\nplay",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            lab.write("pictures.ipynb", *CELLS.values())
            with chromium_page(width=1120, height=1400) as page:
                open_notebook(page, lab, "pictures.ipynb")
                take_all(page)
        finally:
            lab.stop()


def take_all(page: Page) -> None:
    run(page, 0)
    for name in ("compare", "side-by-side"):
        run(page, place(name))
        take(page, name)
    begin(page, "live")
    page.wait_for_function("cell => document.querySelectorAll('.jp-Cell')[cell].querySelector('progress')?.value > 60", arg=place("live"))
    take(page, "live")
    page.get_by_role("button", name="Stop", exact=True).click()
    run(page, place("vote"))
    page.get_by_role("group", name="Blind vote").focus()
    page.keyboard.press("1")
    page.get_by_text(re.compile("^1 of .* voted on")).wait_for()
    take(page, "vote")
    run(page, place("playground"))
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("2 of 2 answers are complete").wait_for()
    take(page, "playground")


def place(name: str) -> int:
    return list(CELLS).index(name)


def begin(page: Page, name: str) -> None:
    """Run a cell; comes back at once, for the picture is to be of a run under way."""
    page.evaluate("cell => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = cell }", place(name))
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")


def take(page: Page, name: str) -> None:
    """Take a picture of a cell and what came of it."""
    picture = IMAGES / f"notebook-{name}.png"
    cell = page.locator(".jp-Cell").nth(place(name))
    cell.scroll_into_view_if_needed()
    page.mouse.move(5, 5)
    cell.screenshot(path=picture)
    compress(picture)


if __name__ == "__main__":
    main()
