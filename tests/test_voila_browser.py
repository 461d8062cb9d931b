"""A notebook as an app: Voila, the system's browser, real kernels. Voila draws no output anew once its page is there."""

import re
import socket
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browsers import chromium_page, watched
from notebook_servers import NAMES, NotebookServer

pytestmark = pytest.mark.browser

# Voila's own page asks a CDN for its icons, which is no doing of ours; an app that may not is served with a template without them.
ICONS = r"^https://cdn\.jsdelivr\.net/npm/@fortawesome/"


class Voila(NotebookServer):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Where another took the port meanwhile, Voila takes the next and says which.
        self.url = self.start(
            "voila", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1", str(self.folder), ready=r"(http://127\.0\.0\.1:\d+)"
        )


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    running = Voila(tmp_path_factory.mktemp("voila"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def window():
    with chromium_page() as page:
        page.route(re.compile(ICONS), lambda route: route.fulfill(body="", content_type="text/css"))
        yield page


@pytest.fixture
def page(window, voila):
    with watched(window, voila.url, known=ICONS):
        yield window
        window.goto("about:blank")


def open_app(page: Page, voila: Voila, path: Path) -> None:
    page.goto(f"{voila.url}/voila/render/{path.name}")


def test_a_comparison_is_plain_html_when_the_page_is_there_and_the_playground_works_until_it_is_closed(page, voila):
    path = voila.write(
        "play.ipynb",
        "import toolkit as tk, lesson\nresult = await tk.acompare(lesson.models, lesson.prompts[:3])",
        "play = tk.playground([*lesson.models, lesson.hostile], prompt='case 1')\nplay",
    )
    open_app(page, voila, path)
    expect(page.get_by_text("done: 6 of 6")).to_be_visible()
    assert page.locator("progress").count() == 2
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("Swift words on case 1.")).to_be_visible()
    expect(page.get_by_text("<img src=x onerror").first).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("2 of 3 answers are complete")).to_be_visible()
    page.get_by_role("button", name="Keep", exact=True).click()
    kept = page.get_by_role("cell", name="A considered view of case 1.")
    expect(kept).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_text("This playground is closed.")).to_be_visible()
    expect(kept).to_be_visible()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_have_count(0)
    assert page.evaluate("() => [document.querySelectorAll('img[src=x]').length, document.title.includes('owned')]") == [0, False]


def test_a_blind_vote_works_by_keys_and_buttons_and_no_model_is_named(page, voila):
    sent = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(frame)))
    path = voila.write(
        "vote.ipynb",
        "import toolkit as tk, lesson\nresult = tk.compare(lesson.models, lesson.prompts[:3], progress=False)",
        "result.vote(rater='ann')",
    )
    open_app(page, voila, path)
    box = page.get_by_role("group", name="Blind vote")
    expect(box).to_contain_text("0 of 3 voted on, as ann")
    expect(box).to_contain_text("Swift words on")
    assert NAMES.findall(page.content()) == []
    box.focus()
    page.keyboard.press("1")
    expect(box).to_contain_text("1 of 3 voted on")
    box.get_by_role("button", name="Both bad").click()
    expect(box).to_contain_text("2 of 3 voted on")
    frames = "".join(frame if isinstance(frame, str) else frame.decode("utf-8", "replace") for frame in sent)
    assert "voted on, as ann" in frames, "the scan must have seen what the page was sent"
    assert NAMES.findall(page.content()) == NAMES.findall(frames) == []
    page.keyboard.press("3")
    expect(box).to_contain_text("Done: 3 of 3 voted on, as ann.")
