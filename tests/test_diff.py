"""Answers side by side and word by word, as a notebook shows them."""

import re

import pytest

import toolkit as tk
from toolkit.comparison.diff import word_pieces
from toolkit.errors import ConfigError
from toolkit.testing import Failure, script


def compared(prompts=3, second=lambda prompt, _body: f"It is {prompt}, surely."):
    one = script("one", lambda prompt, _body: f"It is {prompt}.")
    return tk.compare([one, script("two", second)], [f"p{i}" for i in range(prompts)], cache=False)


def test_words_that_differ_are_told_and_white_space_is_not():
    assert [tuple(piece) for piece in word_pieces("the  cat sat", "the dog\nsat")] == [
        ("same", "the "),
        ("removed", "cat "),
        ("added", "dog\n"),
        ("same", "sat"),
    ]
    assert {piece.kind for piece in word_pieces("a  b\n", "a b")} == {"same"}


@pytest.mark.parametrize(("first", "second"), [("", "new words"), ("old words", ""), ("a b c d", "c a d b"), ("x" * 50, "é ü 你好 😀")])
def test_the_second_answer_can_be_read_off_the_pieces(first, second):
    pieces = word_pieces(first, second)
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == second
    assert re.sub(r"\s", "", "".join(piece.text for piece in pieces if piece.kind != "added")) == re.sub(r"\s", "", first)


def test_a_difference_shows_itself_as_text_and_as_html():
    diff = compared().diff("001", "scripted/one", "scripted/two")
    assert repr(diff) == "--- scripted/one\n+++ scripted/two\nIt is p0{+, surely+}."
    assert "<ins style=" in diff.html
    assert diff._repr_html_() == diff.html


def test_a_difference_escapes_what_a_model_wrote():
    result = compared(second=lambda prompt, _body: "<script>alert(1)</script> \x1b[31m")
    diff = result.diff("001", "scripted/one", "scripted/two")
    assert "<script>" not in diff.html
    assert "&lt;" in diff.html
    assert "\x1b" not in repr(diff)


def test_a_failed_call_shows_its_error_in_a_difference():
    with_failure = compared(second=lambda prompt, _body: Failure(400, "no"))
    assert "RequestError" in with_failure.diff("001", "scripted/one", "scripted/two").text_b


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("9", "scripted/one", "scripted/two"), "no prompt '9'; it has 001, 002, 003"),
        (("001", "scripted/one", "scripted/three"), "no model 'scripted/three'"),
    ],
)
def test_a_wrong_difference_is_told(arguments, told):
    with pytest.raises(ConfigError, match=told):
        compared().diff(*arguments)


def test_only_different_marks_the_words_against_the_first_model():
    table = compared().side_by_side(only="different")
    html = table._repr_html_()
    assert html.count("<ins style=") == 3
    assert "<ins" not in compared().side_by_side()._repr_html_()
    assert table.iloc[0].tolist() == ["It is p0.", "It is p0, surely."]


def test_twenty_rows_a_page_and_the_others_fold_without_a_script():
    html = compared(45).side_by_side()._repr_html_()
    assert html.count("<details>") == 2
    assert re.findall(r"<summary>(.*?)</summary>", html) == ["prompts 21 to 40", "prompts 41 to 45"]
    assert "<script" not in html
    assert html.split("<details>")[0].count("<tr><td") == 20


def test_a_very_long_table_says_how_to_find_the_rest():
    html = compared(205).side_by_side()._repr_html_()
    assert "and 5 more" in html
    assert "search=" in html


def test_below_each_answer_stand_its_figures_and_a_failed_call_has_none():
    models = [
        script("one", lambda prompt, _body: "Lima." if prompt == "Peru?" else Failure(status=400)),
        script("two", lambda *_: "It is Cusco."),
    ]
    short = {"short": lambda done, _reference: len(done.text) < 6}

    def figures():
        html = tk.compare(models, ["Peru?", "again?"], scorers=short).side_by_side()._repr_html_()
        return re.findall(r"<td>([^<]*)<div class=\"muted\">(.*?)</div></td>", html)

    live = figures()
    assert [text for text, _ in live] == ["Lima.", "It is Cusco.", "It is Cusco."]
    assert all(re.fullmatch(r"[\d.]+ (s|ms|µs) · [24] tokens · \$0 · short [01]", line) for _, line in live), live
    assert [line for _, line in figures()] == ["replayed · 2 tokens · short 1", *["replayed · 4 tokens · short 0"] * 2]


def test_a_search_finds_prompts_and_answers():
    result = compared(12)
    assert result.side_by_side(search="P11").index.get_level_values("prompt").tolist() == ["p11"]
    assert len(result.side_by_side(search="SURELY")) == 12
    assert len(result.side_by_side(search="nowhere")) == 0
    assert "<table>" in result.side_by_side(search="nowhere")._repr_html_()


def test_side_by_side_escapes_prompts_and_answers():
    one = script("one", lambda prompt, _body: "<img src=x onerror=alert(1)>")
    two = script("two", lambda prompt, _body: "<b>bold</b>")
    for only in (None, "different"):
        html = tk.compare([one, two], ["<script>p</script>"], cache=False).side_by_side(only)._repr_html_()
        assert not re.search(r"<(img|script|b)\b", html)


def test_two_long_answers_are_compared_soon_enough():
    words = [f"word{i % 997}" for i in range(12_000)]
    pieces = word_pieces(" ".join(words), " ".join([*words[:6_000], "new", *words[6_000:]]))
    assert [piece.text for piece in pieces if piece.kind == "added"] == ["new "]
