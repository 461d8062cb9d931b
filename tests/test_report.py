"""What a comparison says of itself in a notebook, and the page of HTML for those who have none."""

import math
import re

import pytest

import toolkit as tk
from browsers import chromium, watched
from toolkit.comparison.comparison import first_sentences
from toolkit.render import html_interval
from toolkit.testing import Failure, script

SECRET = "sk-" + "a1B2" * 12


def compared(prompts=25, **options):
    models = [
        script("brief", lambda prompt, _body: f"Yes, {prompt}."),
        script("wordy", lambda prompt, _body: f"Yes, {prompt}, " + "and so on " * (9 + len(prompt))),
        script("middling", lambda prompt, _body: f"<b>Yes</b>, {prompt}, and so on."),
    ]
    length = {"length": lambda done, _reference: len(done.text)}
    return tk.compare(models, [f"case {i}" for i in range(prompts)], name="<i>three</i>", scorers=length, progress=False, **options)


def test_a_comparison_says_what_is_decided():
    html = compared()._repr_html_()
    for more, less in (("wordy", "brief"), ("middling", "brief"), ("wordy", "middling")):
        assert re.search(rf"<div>scripted/{more} [^<]* than scripted/{less} by [^<]*, n = 25 prompts</div>", html), html


def test_of_many_pairs_the_first_are_told_and_the_rest_counted():
    table = compared().verdict("length")
    assert first_sentences(table, "length") == table["sentence"].tolist()
    assert first_sentences(table.assign(decided=[False, True, False]), "length") == [
        table["sentence"][1],
        "2 more pairs: .verdict('length')",
    ]
    (nothing,) = first_sentences(table.assign(decided=False), "length")
    assert nothing.startswith("no difference in length between any two models is decided yet")
    assert first_sentences(table.assign(n=0), "length") == []


def test_one_model_and_replays_alone_have_no_verdict_on_latency():
    compared()
    again = compared()
    assert "latency_s" not in again._repr_html_() and "length" in again._repr_html_()
    assert "<div>" not in tk.compare(["scripted/echo"], ["a"])._repr_html_().replace('<div class="tk">', "")


@pytest.mark.parametrize(
    ("low", "high", "ends", "words"),
    [(1.0, 4.0, 2, "both"), (1.0, math.nan, 1, "open"), (math.nan, 4.0, 1, "open"), (math.nan, math.nan, 0, "none")],
)
def test_an_interval_is_drawn_to_scale_and_an_unknown_end_is_open(low, high, ends, words):
    drawn = html_interval(low, 2.0, high, 4.0, f"<{words}>")
    assert drawn.endswith(f"&lt;{words}&gt;")
    marks = [float(x) for x in re.findall(r'<line x1="([\d.]+)" x2="\1"', drawn)]
    assert len(marks) == ends
    places = dict(zip((low, high), marks)) if ends == 2 else {}
    middle = float(re.search(r'cx="([\d.]+)"', drawn)[1])
    assert all(place == pytest.approx(middle * value / 2.0) for value, place in places.items())
    assert ("<line" in drawn) == (ends > 0)


def test_nothing_is_drawn_where_no_time_is_known():
    assert html_interval(math.nan, math.nan, math.nan, 0.0, "–") == "–"


def test_the_page_holds_everything_and_no_secret(tmp_path):
    script("leaky", lambda prompt, _body: f"the key is {SECRET}" if prompt == "tell" else Failure(status=400))
    result = tk.compare(["scripted/leaky", "scripted/echo"], ["tell", "fail", "<script>alert(1)</script>"], repeats=2, progress=False)
    result.to_html(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert SECRET not in html and "[redacted]" in html
    assert html.count("<script") == 1 and "&lt;script&gt;alert(1)" in html
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Latency in seconds", "Verdict on latency_s", "Errors", "Answers"]
    assert "RequestError" in html and "<summary>repeat 2</summary>" in html
    assert not re.search(r"""(src|href|action)=["']?(?!data:)""", html), "it asks no machine for anything"


def test_the_page_has_every_prompt_however_many(tmp_path):
    tk.compare(["scripted/echo"], [f"case {i}" for i in range(230)], progress=False).to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<td>case ") == 2 * 230


@pytest.mark.browser
def test_the_search_finds_rows_on_all_pages_and_no_script_of_an_answer_runs(tmp_path):
    result = compared()
    result.to_html(tmp_path / "page.html")
    address = (tmp_path / "page.html").as_uri()
    with chromium() as browser, watched(page := browser.new_page(), address):
        page.goto(address)
        assert page.title() == "<i>three</i>" and page.locator("h1").inner_text() == "3 models, 25 prompts"
        page.get_by_role("searchbox").fill("CASE 23")
        assert page.locator("output").inner_text() == "1 of 25"
        assert page.get_by_role("cell", name="case 23", exact=True).is_visible(), "the second page is opened"
        assert not page.get_by_role("cell", name="case 1", exact=True).is_visible()
        page.get_by_role("searchbox").fill("")
        assert page.get_by_role("cell", name="case 1", exact=True).is_visible()
        assert not page.get_by_role("cell", name="case 23", exact=True).is_visible()
        assert page.locator("#answers b").count() == 0


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "missing" / "page.html"
    with pytest.raises(FileNotFoundError):
        tk.compare(["scripted/echo"], ["a"], progress=False).to_html(path)
    assert not path.parent.exists()
