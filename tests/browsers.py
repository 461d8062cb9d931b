"""The system's Chromium, and what may not happen in its pages."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 60_000  # a machine with other work; nothing is waited for longer than it takes


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@contextmanager
def chromium_page(*, width: int = 1500, height: int = 1100) -> Iterator[Page]:
    """A page in a browser of its own, without animations."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
        page.set_default_timeout(PATIENCE_MS)
        yield page


@contextmanager
def watched(page: Page, home: str, *, known: str = "(?!)") -> Iterator[None]:
    """Whatever the browser complains of, or asks another machine than ``home`` for, fails the test, save what is ``known``."""
    complaints, strangers = [], []
    ours = (home, home.replace("http", "ws"), "data:", "blob:")

    def listen(message):
        if message.type == "error":
            complaints.append(f"{message.text} at {message.location['url']}")

    def fail(error):
        complaints.append(f"{error}")

    def watch(request):
        if not request.url.startswith(ours):
            strangers.append(request.url)

    listeners = {"console": listen, "pageerror": fail, "request": watch}
    for event, listener in listeners.items():
        page.on(event, listener)
    yield
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert [complaint for complaint in complaints if not re.search(known, complaint)] == []
    assert [url for url in strangers if not re.search(known, url)] == []
