"""The dashboard as a person sees it: the real server, the system's browser, another process that writes."""

import itertools
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from browsers import chromium, watched
from dashboard_calls import SCRIPT, a_day, error_of, failed_call, live_call, log_entry, write
from toolkit.monitor.marks import MARK

pytestmark = pytest.mark.browser

# Opening a deep link, Streamlit's own page first asks below that path whether the server lives there.
PROBE = r"/\w+/_stcore/(health|host-config)$"
EVIL_MODEL = f"evil/{SCRIPT}"
START = "import sys; from dashboard.serve import run; sys.exit(run(sys.argv[1], int(sys.argv[2])))"
APPEND = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dashboard_calls import live_call, write
write(Path(sys.argv[1]), [live_call(time.time() - 1, "late/arrival", number=k) for k in range(10)])
"""


class Server:
    """``toolkit dashboard`` in a process of its own."""

    def __init__(self, journal: Path, port: int) -> None:
        self.journal = journal
        self.process = subprocess.Popen([sys.executable, "-c", START, str(journal), str(port)], stdout=subprocess.PIPE, text=True)
        self.said = []
        while not self.said or not self.said[-1].startswith("Dashboard: "):
            line = self.process.stdout.readline()
            assert line, f"the dashboard ended with {self.process.wait()}"
            self.said.append(line)
        self.url = self.said[-1].split()[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def evil_call():
    return live_call(time.time() - 60, EVIL_MODEL, latency_s=9.0, prompt=SCRIPT, text=SCRIPT)


@pytest.fixture(scope="module")
def server(tmp_path_factory, evil_call):
    journal = tmp_path_factory.mktemp("dashboard") / "journal.sqlite"
    evil_failure = failed_call(time.time() - 50, EVIL_MODEL, error_message=SCRIPT)
    hours_ago = (23.5, 15.2, 15.1, 15, 9, 8.5, 4, 1.5, 1, 0.1)
    marks = [log_entry(time.time() - 3600 * hours, f"marked {hours} hours ago {SCRIPT}", context=MARK) for hours in hours_ago]
    write(journal, [*a_day(time.time(), calls=1500), evil_call, evil_failure, error_of(evil_failure), *marks])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = Server(journal, port)
    yield running
    assert running.said[0] == f"Port {port} is taken; using {running.url.rpartition(':')[2]}.\n"
    assert running.stop() == 0, "Ctrl-C must end it cleanly"


@pytest.fixture(scope="module")
def context():
    with chromium() as browser:
        # One context for all: what it has compiled of the charts' library it need not compile again.
        yield browser.new_context(viewport={"width": 1400, "height": 1000}, permissions=["clipboard-read", "clipboard-write"])


@pytest.fixture
def page(context, server):
    """A fresh visitor."""
    page = context.new_page()
    page.set_default_timeout(30_000)
    with watched(page, server.url, known=PROBE):
        yield page
        page.close()


def go(page: Page, title: str) -> None:
    page.get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()


def resting_place(page: Page, part: Locator) -> dict:
    """Where a part of the page is once what is above it has its height."""
    place = None
    while place != (place := part.bounding_box()):
        page.wait_for_timeout(300)
    return place


def click_point(page: Page) -> None:
    point = page.locator(".scatterlayer .trace").first.locator(".point").nth(3)
    point.wait_for()
    box = point.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.click(*middle)


def choose_first_row(page: Page, *, table: int) -> None:
    """In the table of that number, from 1: each appears below the one that led to it, once it is there."""
    grids = page.locator("[data-testid=stDataFrame]")
    expect(grids).to_have_count(table)
    grid = grids.last
    grid.scroll_into_view_if_needed()
    grid.locator(".stDataFrameGlideDataEditor").first.click(
        position={"x": 14, "y": 52}
    )  # the first row's box: cells are drawn, not elements


def test_the_code_of_charts_is_read_before_there_is_one(page, server):
    with page.expect_request("**/PlotlyChart.*.js"):
        page.goto(f"{server.url}/logs")
    expect(page.get_by_role("heading", name="Logs", exact=True)).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(0)


def test_from_the_overview_to_a_point_to_its_slow_calls_to_one_call_to_the_errors(page, server):
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Overview", exact=True)).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    go(page, "Latency")
    click_point(page)
    expect(page.get_by_role("heading", name="Slowest calls of the point")).to_be_visible()
    choose_first_row(page, table=2)
    page.get_by_text("This call on a page of its own").click()
    expect(page.get_by_role("heading", name="Call", exact=True)).to_be_visible()
    expect(page.get_by_text("What is a cache?")).to_be_visible()
    assert "/call?call=" in page.url
    go(page, "Errors")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()


def test_a_script_that_a_model_wrote_does_not_run(page, server, evil_call):
    page.goto(f"{server.url}/latency?model={EVIL_MODEL.replace('#', '%23')}")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    choose_first_row(page, table=1)
    expect(page.get_by_role("heading", name="Slowest calls of the model")).to_be_visible()
    choose_first_row(page, table=2)
    expect(page.locator("code").get_by_text("onerror").first).to_be_visible()
    go(page, "Errors")
    choose_first_row(page, table=1)
    expect(page.get_by_role("heading", name="Affected calls")).to_be_visible()
    go(page, "Overview")
    expect(page.locator("[data-testid=stText]")).to_be_visible()
    assert page.evaluate("document.querySelectorAll('img[src=x], img[src*=\"192.0.2.1\"]').length") == 0
    assert "owned" not in page.title()


BOXES = """plot => [plot.querySelector('.nsewdrag'), ...plot.querySelectorAll('.annotation-text-g')].map(each => {
  const box = each.getBoundingClientRect();
  return [box.left, box.right, box.top, box.bottom];
})"""


@pytest.mark.parametrize("width", [1400, 1100, 390], ids=["wide", "narrow", "phone"])
def test_the_texts_of_marks_are_above_each_chart_and_none_hides_another(page, server, width):
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(server.url)
    charts = page.locator(".js-plotly-plot")
    expect(charts).to_have_count(3)
    expect(charts.last.locator(".annotation-text-g").first).to_be_visible()
    for number in range(3):
        area, *texts = charts.nth(number).evaluate(BOXES)
        assert len(texts) > 2
        assert all(bottom <= area[2] + 1 for _, _, _, bottom in texts)
        assert [pair for pair in itertools.combinations(texts, 2) if overlap(*pair)] == []


def overlap(one, other):
    """Whether two boxes lie over each other by more than the pixel around a text."""
    return min(one[1], other[1]) - max(one[0], other[0]) > 1 and min(one[3], other[3]) - max(one[2], other[2]) > 1


def test_all_of_a_marks_text_is_there_on_hover(page, server):
    page.goto(server.url)
    label = page.locator(".js-plotly-plot").first.locator(".annotation-text-g").first
    expect(label).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
    label.hover()
    told = page.locator(".js-plotly-plot .hovertext")
    expect(told).to_contain_text(re.compile(r"marked 23\.5 hours ago\s?<script>.*onerror=\"document.*\(http://192\.0\.2\.1/i\.png\)"))


def test_filters_survive_in_a_copied_address(page, context, server):
    page.goto(f"{server.url}/latency")
    page.get_by_role("radio", name="7d").click()
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="cohere/command-r").click()
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile("model=cohere"))
    expect(page).to_have_url(re.compile("window=7d"))
    counted = page.get_by_text("calls in the window")
    expect(counted).not_to_contain_text(re.compile("^1,5"))
    said = counted.inner_text().split(" calls")[0]
    go(page, "Cache")
    assert "window=7d" in page.url
    other = context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("heading", name="Cache", exact=True)).to_be_visible()
    expect(other.get_by_text(f"{said} calls in the window")).to_be_visible()
    other.close()


def test_dragging_over_a_chart_makes_that_time_the_window_and_a_chip_gives_the_old_one_back(page, server):
    page.goto(f"{server.url}/?status=ok")
    expect(page.locator(".js-plotly-plot .bars").first).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
    area = resting_place(page, page.locator(".js-plotly-plot .nsewdrag").first)
    middle = area["y"] + area["height"] / 2
    page.mouse.move(area["x"] + area["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, middle, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"window=custom&from=20\d\d-\d\d-\d\dT\d\d%3A\d\d&to=20"))
    assert "status=ok" in page.url
    page.get_by_role("button", name=re.compile(r"^20.* to 20.* UTC$")).click()
    expect(page).not_to_have_url(re.compile("window=custom|from=|to="))
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("status").get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    chip = page.get_by_role("button", name="status: ok")
    expect(chip).to_have_count(1)  # while the page is drawn again it is there at its old place too
    chip.click()
    expect(page).not_to_have_url(re.compile("status="))


def test_calls_of_another_process_appear_by_themselves(page, server):
    page.goto(f"{server.url}/?status=ok")
    counted = page.get_by_text(re.compile("calls in the window"))
    expect(page.locator(".js-plotly-plot")).to_have_count(3)
    expect(
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]")
    ).to_be_visible()  # the five seconds are those of an open page
    before = int(counted.inner_text().split(" calls")[0].replace(",", ""))
    subprocess.run(
        [sys.executable, "-c", APPEND, str(server.journal), str(Path(__file__).parent)], check=True
    )  # ends with the calls on disk
    expect(page.get_by_text(f"{before + 10:,} calls in the window")).to_be_visible(timeout=5_000)
    assert "status=ok" in page.url
