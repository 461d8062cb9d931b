"""Our widgets under VS Code's rules: its own widget manager, its way to find a widget's script, its choice among MIME types, a real kernel."""

import json
import re
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from jupyter_core.paths import ENV_JUPYTER_PATH
from playwright.sync_api import Page, expect

from browsers import chromium_page, watched
from notebook_servers import NAMES, NotebookServer
from servers.foreign import FOREIGN

pytestmark = pytest.mark.browser

BUNDLE = FOREIGN / "@vscode" / "jupyter-ipywidgets8" / "dist" / "ipywidgets.js"
HOST = Path(__file__).parent / "vscode" / "host.html"
INSTALLED = Path(ENV_JUPYTER_PATH[0])
WIDGET, HTML = "application/vnd.jupyter.widget-view+json", "text/html"
LATE_EXPORTS = "\nexport { __webpack_modules__, __webpack_require__ };\n"  # the kernel's connection is in the bundle, but not for others


class Host(NotebookServer):
    """Kernels, the page, and the scripts of the environment, all from one address."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        page = folder / "page"
        page.mkdir()
        (page / "host.html").write_text(HOST.read_text())
        (page / "ipywidgets.js").write_text(BUNDLE.read_text().replace("//# sourceMappingURL", "//") + LATE_EXPORTS)
        self.url = self.start(
            "jupyter_server", "--no-browser", "--allow-root", "--port=0", "--ip=127.0.0.1", "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True", f"--ServerApp.extra_static_paths={[str(page), str(INSTALLED)]}",
            f"--ServerApp.root_dir={self.folder}", ready=r"(http://127\.0\.0\.1:\d+)/$",
        )  # fmt: skip

    def ask(self, path: str, method: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/kernels{path}", method=method)) as answer:
            return answer.read()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    if not BUNDLE.exists():
        pytest.skip("VS Code's widgets are not installed: `make test` does it where there is npm")
    running = Host(tmp_path_factory.mktemp("vscode"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def window():
    with chromium_page() as page:
        yield page


@pytest.fixture
def page(window, host):
    kernel = json.loads(host.ask("", "POST"))["id"]
    with watched(window, host.url):
        window.goto(f"{host.url}/static/host.html?kernel={kernel}&paths={quote(json.dumps(widget_scripts()))}")
        expect(window).to_have_title("ready")
        yield window
        window.goto("about:blank")
    host.ask(f"/{kernel}", "DELETE")


def widget_scripts() -> dict[str, str]:
    """Where requirejs finds widgets; VS Code too reads it from the text of what each puts into the environment, and runs none of it."""
    entries = [path.read_text() for path in (INSTALLED / "nbextensions").glob("*/extension.js")]
    return {name: path for entry in entries for name, path in re.findall(r'(\w+): "(nbextensions/[^"]+)"', entry)}


def begin(page: Page, code: str) -> None:
    """Run a cell; comes back at once."""
    page.evaluate("code => { window.ended = false; window.begin(code).then(() => { window.ended = true }) }", code)


def run(page: Page, code: str) -> None:
    begin(page, code)
    page.wait_for_function("() => window.ended")


def shown_as(page: Page) -> list[str]:
    return page.evaluate("() => [...document.querySelectorAll('[data-mime]')].map(output => output.dataset.mime)")


def done_now(page: Page) -> int:
    return page.evaluate("() => [...document.querySelectorAll('progress')].reduce((sum, bar) => sum + bar.value, 0)")


def test_the_table_moves_stop_works_and_plain_html_stays(page):
    run(page, "import toolkit as tk, lesson")
    begin(
        page,
        "result = await tk.acompare(lesson.models, [f'case {i}' for i in range(500)], concurrency=4)\nprint(len(result), result.missing)",
    )
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.wait_for()
    assert shown_as(page) == [WIDGET]
    page.wait_for_function("() => [...document.querySelectorAll('progress')].some(bar => bar.value > 0)")
    first = done_now(page)
    page.wait_for_function(
        "first => [...document.querySelectorAll('progress')].reduce((sum, bar) => sum + bar.value, 0) > first", arg=first
    )
    stop.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => window.ended")
    expect(page.get_by_text(re.compile("stopped, what is finished is kept"))).to_be_visible()
    expect(stop).to_have_count(0)
    assert shown_as(page) == [HTML]
    kept, missing = map(int, re.search(r"(\d+) (\d+)", page.locator("section").last.inner_text().splitlines()[-1]).groups())
    assert kept == done_now(page) >= first and kept + missing == 1000


def test_a_blind_vote_works_by_keys_and_buttons_and_no_model_is_named(page):
    sent = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(frame)))
    page.reload()
    expect(page).to_have_title("ready")
    run(page, "import toolkit as tk, lesson\nresult = tk.compare(lesson.models, lesson.prompts[:3], progress=False)")
    run(page, "result.vote(rater='ann')")
    box = page.get_by_role("group", name="Blind vote")
    expect(box).to_contain_text("0 of 3 voted on, as ann")
    expect(box).to_contain_text("Swift words on")
    box.focus()
    page.keyboard.press("1")
    expect(box).to_contain_text("1 of 3 voted on")
    box.get_by_role("button", name="Both bad").click()
    expect(box).to_contain_text("2 of 3 voted on")
    frames = "".join(frame if isinstance(frame, str) else frame.decode("utf-8", "replace") for frame in sent)
    assert "voted on, as ann" in frames, "the scan must have seen what the page was sent"
    assert NAMES.findall(page.content()) == NAMES.findall(frames) == []
    assert shown_as(page) == [WIDGET]
    page.keyboard.press("3")
    expect(page.get_by_text("Done: 3 of 3 voted on, as ann. See how it went with .ranking().")).to_be_visible()
    assert shown_as(page) == [HTML]


def test_the_playground_streams_escaped_keeps_the_good_ones_and_leaves_plain_html(page):
    run(page, "import toolkit as tk, lesson\nplay = tk.playground([*lesson.models, lesson.hostile], prompt='case 1')\nplay")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("Swift words on case 1.")).to_be_visible()
    expect(page.get_by_text("<img src=x onerror").first).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("2 of 3 answers are complete")).to_be_visible()
    page.get_by_role("button", name="Keep", exact=True).click()
    kept = page.get_by_role("cell", name="A considered view of case 1.")
    expect(kept).to_be_visible()
    assert shown_as(page) == [WIDGET, HTML]
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_text("This playground is closed.")).to_be_visible()
    expect(kept).to_be_visible()
    assert shown_as(page) == [HTML, HTML]
    assert page.evaluate("() => [document.querySelectorAll('img[src=x]').length, document.title.includes('owned')]") == [0, False]
