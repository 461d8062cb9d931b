"""The notebook as a person sees it: JupyterLab, the system's browser, real kernels."""

import json
import re
import shutil
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Page, expect

from browsers import chromium_page, watched
from notebook_servers import NAMES, ROOT, NotebookServer

pytestmark = pytest.mark.browser

QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": {"autosave": False},
}
GIVEN_UP = "widget model not found"  # see reload_while_busy; a page that lacks a widget fails by what it should show
# The answer that restores the widgets is kept until JupyterLab looks for one of them, and comes as its time is up.
BUSY = """
(() => {
  if (!sessionStorage.getItem("busy")) return;
  const now = Date.now.bind(Date), Socket = window.WebSocket;
  let sought = false, late = 0;
  Date.now = () => {
    sought = sought || new Error().stack.includes("get_model");
    return now() + late;
  };
  window.WebSocket = class extends Socket {
    set onmessage(listener) {
      super.onmessage = async (event) => {
        if (typeof event.data !== "string" && new TextDecoder().decode(event.data).includes("update_states")) {
          while (!sought) await new Promise((go) => setTimeout(go, 20));
          late = 3000;
        }
        listener(event);
      };
    }
  };
})();
"""
RUN_WHOLE = ("02_compare.ipynb", "11_playground.ipynb")


class Lab(NotebookServer):
    """JupyterLab."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in RUN_WHOLE:
            shutil.copy(ROOT / "notebooks" / name, self.folder)
        for name, value in QUIET.items():
            path = folder / "settings" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        self.url = self.start(
            "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--ip=127.0.0.1", "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
            "--LabApp.extension_manager=readonly", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            f"--ServerApp.root_dir={self.folder}", ready=r"(http://127\.0\.0\.1:\d+)/lab",
        )  # fmt: skip

    def sessions(self) -> list[str]:
        with urllib.request.urlopen(f"{self.url}/api/sessions") as answer:
            return [session["id"] for session in json.load(answer)]

    def stop_kernels(self) -> None:
        for session in self.sessions():
            urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/sessions/{session}", method="DELETE")).close()

    def stop(self) -> None:
        self.stop_kernels()
        super().stop()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    running = Lab(tmp_path_factory.mktemp("lab"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def window():
    """One window for all tests: what a browser learns about JupyterLab's megabytes of script is learnt once."""
    with chromium_page() as page:
        page.add_init_script(BUSY)
        yield page


@pytest.fixture
def page(window, lab):
    with watched(window, lab.url, known=GIVEN_UP):
        yield window
        leave(window)
        lab.stop_kernels()


def leave(page: Page) -> None:
    """Close what is open, whatever state it is in."""
    page.evaluate("() => { for (const one of [...window.jupyterapp?.shell.widgets('main') ?? []]) one.dispose() }")


def open_notebook(page: Page, lab: Lab, name: str) -> None:
    """Open a notebook in a page that is loaded anew."""
    page.goto(f"{lab.url}/doc/tree/{name}")
    wait_for_kernel(page)


def open_here(page: Page, lab: Lab, name: str) -> None:
    """Open a notebook in the page that is there, if one is: loading JupyterLab again costs seconds."""
    if not page.evaluate("() => 'jupyterapp' in window"):
        open_notebook(page, lab, name)
        return
    leave(page)
    open_path(page, name)
    wait_for_kernel(page)


def open_path(page: Page, name: str) -> None:
    page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', { path, factory: 'Notebook' }) }", name)


def wait_for_kernel(page: Page) -> None:
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")


def run_all(page: Page) -> None:
    """Run all cells; comes back at once."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")


def run(page: Page, cell: int) -> None:
    """Run a cell and wait for its end."""
    page.evaluate(
        """async cell => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = cell;
        await window.jupyterapp.commands.execute('notebook:run-cell'); }""",
        cell,
    )


def ended(page: Page, number: int) -> None:
    """Wait until so many cells have run."""
    page.wait_for_function(
        """n => { const w = window.jupyterapp.shell.currentWidget;
        return w.content.widgets.filter(c => c.model.executionCount).length >= n && w.sessionContext.session.kernel.status === 'idle' }""",
        arg=number,
    )


def save(page: Page) -> None:
    page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")


def outputs(path: Path, cell: int) -> list:
    return nbformat.read(path, as_version=4).cells[cell].outputs


def reload_while_busy(page: Page) -> None:
    """Load the page again as a busy machine does: its widgets are restored when the time in which JupyterLab looks for them is over."""
    page.evaluate("() => sessionStorage.setItem('busy', 'yes')")
    with page.expect_console_message(lambda message: GIVEN_UP in message.text):
        page.reload()
    page.evaluate("() => sessionStorage.removeItem('busy')")
    wait_for_kernel(page)


def reopen_without_kernel(page: Page, lab: Lab, path: Path) -> None:
    """Open what was saved as a reader does who has no kernel for it: the copy names none, and none is chosen."""
    book = nbformat.read(path, as_version=4)
    book.metadata.clear()
    nbformat.write(book, path.with_name("reopened.ipynb"))
    leave(page)
    lab.stop_kernels()
    open_path(page, "reopened.ipynb")
    page.locator(".jp-Dialog").get_by_role("button", name="No Kernel").click()


def done_now(page: Page) -> int:
    return page.evaluate("() => [...document.querySelectorAll('.jp-OutputArea progress')].reduce((sum, bar) => sum + bar.value, 0)")


def test_the_table_moves_stop_works_and_the_saved_file_shows_what_was_finished(page, lab):
    path = lab.write(
        "live.ipynb",
        "import toolkit as tk, lesson",
        "prompts = [f'case {i}' for i in range(500)]  # more than anybody waits for\nresult = await tk.acompare(lesson.models, prompts, concurrency=4)",
        "print('kept', len(result), 'missing', result.missing)",
    )
    open_here(page, lab, path.name)
    run_all(page)
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.wait_for()
    page.wait_for_function("() => [...document.querySelectorAll('progress')].some(bar => bar.value > 0)")
    first = done_now(page)
    page.wait_for_function(
        "first => [...document.querySelectorAll('progress')].reduce((sum, bar) => sum + bar.value, 0) > first", arg=first
    )
    expect(page.locator(".tk-voice[role=status][aria-live=polite]")).to_have_text(re.compile("calls are done$"))
    stop.focus()
    page.keyboard.press("Enter")
    ended(page, 3)
    kept, missing = map(int, re.search(r"kept (\d+) missing (\d+)", page.locator(".jp-OutputArea").last.inner_text()).groups())
    assert kept >= first > 0
    assert missing > 0 and kept + missing == 1000
    expect(page.get_by_text(re.compile("stopped, what is finished is kept"))).to_be_visible()
    save(page)
    (output,) = outputs(path, 1)
    assert set(output.data) == {"text/html", "text/plain"}
    published, _ = HTMLExporter().from_filename(str(path))
    assert "stopped, what is finished is kept" in published and "widget-view" not in published
    reopen_without_kernel(page, lab, path)
    expect(page.get_by_text(re.compile("stopped, what is finished is kept"))).to_be_visible()
    assert done_now(page) == kept
    assert page.get_by_text("Error displaying widget").count() == 0
    assert lab.sessions() == []


@pytest.mark.parametrize(("name", "ending"), list(zip(RUN_WHOLE, ("done: ", "This playground is closed."))))
def test_a_notebook_runs_from_top_to_bottom(page, lab, name, ending):
    path = lab.folder / name
    cells = nbformat.read(path, as_version=4).cells
    open_here(page, lab, path.name)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    run_all(page)
    ended(page, sum(cell.cell_type == "code" for cell in cells))
    save(page)
    shown = [output for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in shown if output.output_type == "error"] == []
    assert ending in "".join(output.get("data", {}).get("text/html", "") for output in shown)
    assert "widget-view" not in path.read_text()


def test_the_playground_streams_while_the_cell_is_free_and_keeps_the_good_ones(page, lab):
    path = lab.write(
        "play.ipynb",
        "import toolkit as tk, lesson\nplay = tk.playground([*lesson.models, lesson.hostile], prompt='case 1')\nplay",
        "print('while running:', play.running)",
        "print(play.comparison())",
    )
    open_here(page, lab, path.name)
    run(page, 0)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("Swift words on case 1.")).to_be_visible()
    expect(page.get_by_text("<img src=x onerror").first).to_be_visible()
    run(page, 1)
    expect(page.get_by_text("while running: True")).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("2 of 3 answers are complete")).to_be_visible()
    assert page.get_by_text(re.compile("tokens/s .* cost \\$0")).count() == 2
    page.get_by_role("button", name="Keep", exact=True).click()
    kept = page.get_by_role("cell", name="A considered view of case 1.")
    expect(kept).to_be_visible()
    save(page)
    assert "A considered view of case 1." in outputs(path, 0)[1].data["text/html"], "a saved notebook shows it whether closed or not"
    run(page, 2)
    expect(page.get_by_text("<Comparison 'playground': 2 models x 1 prompt, 2 ok, 0 failed>")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_text("This playground is closed.")).to_be_visible()
    expect(kept).to_be_visible()
    assert page.evaluate("() => [document.querySelectorAll('img[src=x]').length, document.title.includes('owned')]") == [0, False]
    save(page)
    assert "widget-view" not in path.read_text()
    assert "A considered view of case 1." in json.dumps(outputs(path, 0))


def test_who_wrote_an_answer_is_nowhere_in_the_page_before_the_vote(page, lab):
    sent = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(frame)))
    path = lab.write(
        "vote.ipynb",
        "import toolkit as tk, lesson\nresult = tk.compare(lesson.models, lesson.prompts[:4], progress=False)",
        "result.vote(rater='ann')",
        "print(result.votes()[['choice', 'rater']].to_numpy().tolist())",
    )
    open_notebook(page, lab, path.name)
    run(page, 0)
    run(page, 1)
    box = page.get_by_role("group", name="Blind vote")
    expect(box).to_contain_text("0 of 4 voted on, as ann")
    expect(box).to_contain_text("Swift words on")
    box.focus()
    page.keyboard.press("1")
    expect(box).to_contain_text("1 of 4 voted on")
    save(page)
    reload_while_busy(page)
    expect(box).to_contain_text("1 of 4 voted on")
    box.focus()
    page.keyboard.press("s")
    expect(box).to_contain_text("2 of 4 voted on")
    box.get_by_role("button", name="Both bad").click()
    expect(box).to_contain_text("3 of 4 voted on")
    page_source = page.evaluate("() => document.documentElement.outerHTML")
    frames = "".join(frame if isinstance(frame, str) else frame.decode("utf-8", "replace") for frame in sent)
    assert "voted on, as ann" in frames, "the scan must have seen what the page was sent"
    assert NAMES.findall(page_source) == []
    assert [frames[max(0, found.start() - 200) : found.end() + 200] for found in NAMES.finditer(frames)] == []
    page.keyboard.press("3")
    expect(page.get_by_text("Done: 4 of 4 voted on, as ann. See how it went with .ranking().")).to_be_visible()
    run(page, 2)
    expect(page.get_by_text("[['a', 'ann'], ['skip', 'ann'], ['both_bad', 'ann'], ['tie', 'ann']]")).to_be_visible()
    run(page, 1)  # the page was loaded again since it ran, and no longer knows where to put the ending
    save(page)
    assert "Done: 4 of 4 voted on" in outputs(path, 1)[0].data["text/html"]
    assert "widget-view" not in path.read_text()
