"""Make the pictures of docs/images: every page of the dashboard, light and dark, of a journal that a fixed seed invents.

python scripts/refresh_screenshots.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

from benchmarks.dashboard import write_journal  # noqa: E402 - found only now
from toolkit.monitor.events import VoteRecord  # noqa: E402
from toolkit.monitor.journal import Journal  # noqa: E402
from toolkit.monitor.marks import annotate  # noqa: E402

PAGES = {
    "overview": "?window=7d",
    "latency": "latency?window=7d&model=cohere%2Fcommand-r&model=openrouter%2Fopenai%2Fgpt-4o-mini&model=ollama%2Fllama3.2:1b&q=p90",
    "cache": "cache?window=7d",
    "errors": "errors?window=7d",
    "cost": "cost?window=7d&budget=40",
    "compare": "compare?window=7d&runs=run-10&runs=run-11",
    "health": "health?window=24h",
    "logs": "logs?window=24h&level=error&level=warn",
}
WIDTH, HEIGHT = 1400, 1250
TALLER = {"cache": 1850, "latency": 2260, "cost": 1600}
START = "import sys; from dashboard.serve import run; sys.exit(run(sys.argv[1], 8701))"
RULES = '[[burn_rate]]\nname = "error budget"\nobjective = 0.99\n'


def main() -> None:
    wanted = sys.argv[1:] or list(PAGES)
    with tempfile.TemporaryDirectory() as folder:
        journal, rules = Path(folder, "journal.sqlite"), Path(folder, "alerts.toml")
        write_journal(journal, 60_000, time.time(), seed=7, days=12)
        add_votes(journal)
        annotate("system prompt v2", at="2d", journal=journal)
        rules.write_text(RULES)
        environment = {"PATH": "/usr/bin", "TOOLKIT_HOME": folder, "TOOLKIT_ALERTS": str(rules), "PYTHONPATH": str(ROOT)}
        server = subprocess.Popen([sys.executable, "-c", START, str(journal)], stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stdout is not None
            url = next(line.split()[1] for line in server.stdout if line.startswith("Dashboard: "))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
                for scheme in ("light", "dark"):
                    take(browser, url, scheme, wanted)
                browser.close()
        finally:
            server.terminate()
            server.wait()


def add_votes(path: Path) -> None:
    """Sixty blind votes, as ``comparison.vote()`` writes them."""
    journal, names = Journal(path), ("cohere/command-r", "ollama/llama3.2:1b", "openrouter/openai/gpt-4o-mini")
    choices = ("a", "a", "b", "tie", "a", "b", "both_bad")
    for number in range(60):
        a, b = names[number % 3], names[(number + 1) % 3]
        choice = choices[number * 5 % len(choices)]
        journal.append(VoteRecord(time.time(), f"vote-{number}", "run-11", "nightly-11", f"p{number:03d}", 0, a, b, choice, "me", "", 4.0))
    journal.close()


def take(browser: Browser, url: str, scheme: str, wanted: list[str]) -> None:
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, timezone_id="Europe/Berlin")  # type: ignore[arg-type]
    page = context.new_page()
    for name in wanted:
        page.set_viewport_size({"width": WIDTH, "height": TALLER.get(name, HEIGHT)})
        page.goto(f"{url}/{PAGES[name]}")
        settle(page)
        if name == "errors":
            page.locator(".stDataFrameGlideDataEditor").first.click(position={"x": 14, "y": 52})
            settle(page)
        page.mouse.move(5, 5)
        picture = IMAGES / f"dashboard-{name}{'-dark' if scheme == 'dark' else ''}.png"
        page.screenshot(path=picture)
        compress(picture)
    context.close()


def settle(page: Page) -> None:
    page.get_by_text("calls in the window ·").wait_for(timeout=60_000)
    page.wait_for_timeout(800)
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=60_000)
    page.wait_for_function("[...document.querySelectorAll('[data-testid=stSkeleton]')].every(each => each.offsetParent === null)")
    page.wait_for_timeout(2500)


def compress(picture: Path) -> None:
    """Keep the 256 most frequent colours as they are; the others, at the edges of letters, become the nearest of them."""
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    frequent = sorted(image.getcolors(image.width * image.height) or (), reverse=True)[:256]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in frequent for part in colour])  # type: ignore[misc]  # of an RGB image a colour is a tuple
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main()
