"""The command line: what it prints, and how it ends."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from toolkit import monitor
from toolkit.cli import DEMO_MODELS, DEMO_PROMPTS, main
from toolkit.client import Client
from toolkit.monitor.journal import JournalReader


def test_the_demo_shows_answers_percentiles_and_intervals_and_then_the_cache(capsys, own_home, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")  # a prompt fits into its column
    assert main(["demo"]) == 0
    first = capsys.readouterr().out
    assert len(DEMO_MODELS) >= 3 and len(DEMO_PROMPTS) >= 8
    for shown in (*DEMO_MODELS, *DEMO_PROMPTS, "p50", "p95 interval"):
        assert shown in first
    assert "Nothing came from the cache" in first
    assert main(["demo"]) == 0
    second = capsys.readouterr().out
    calls = len(DEMO_MODELS) * len(DEMO_PROMPTS) * 10
    assert f"{calls} of {calls} answers were replayed" in second
    assert "no live call" in second
    rows = JournalReader(own_home / "journal.sqlite").calls(columns=["provenance"])["provenance"]
    assert rows.count("live") == calls + 1  # and the one that trains the model
    assert rows.count("replayed") == calls + 1


def test_ask_prints_the_answer_alone_on_standard_output(capsys):
    assert main(["ask", "scripted/echo", "Hello there"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == "Hello there"
    assert "live" in printed.err


def test_ask_gives_json_to_machines(capsys):
    assert main(["ask", "scripted/echo", "Hello", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["text"], done["provenance"], done["timing"]["consumer_s"]) == ("Hello", "live", 0.0)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["ask", "nowhere/x", "hi"], 2, "embedded"),
        (["ask", "openai_compatible/x", "hi"], 2, "OPENAI_API_KEY"),
        (["ask", "scripted/none", "hi"], 1, "none"),
        (["compare", "scripted/echo"], 2, "--prompt"),
        (["compare", "scripted/echo", "--prompts", "nowhere.txt"], 2, "nowhere.txt"),
        (["models", "nowhere"], 2, "embedded"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_and_in_the_exit_code(capsys, arguments, code, told):
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1


def test_wrong_usage_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["frobnicate"])
    assert ended.value.code == 2
    assert "frobnicate" in capsys.readouterr().err


def test_compare_reads_prompts_from_files_and_writes_rows(capsys, tmp_path):
    questions, rows = tmp_path / "questions.csv", tmp_path / "rows.csv"
    questions.write_text("topic,reference\nfor,loop\nif,branch\n")
    assert main(["compare", "scripted/echo", "--prompts", str(questions), "--template", "The {topic}", "--out", str(rows)]) == 0
    assert pd.read_csv(rows)["text"].tolist() == ["The for", "The if"]
    assert "The if" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("one\n\ntwo\n")
    assert main(["compare", "scripted/echo", "--prompts", str(tmp_path / "lines.txt"), "--json"]) == 0
    assert [row["text"] for row in json.loads(capsys.readouterr().out)] == ["one", "two"]


def test_a_file_that_rows_can_not_be_written_to_is_told_before_anything_is_asked(capsys, own_home):
    assert main(["compare", "scripted/echo", "--prompt", "hi", "--out", "rows.xlsx"]) == 2
    assert ".csv or .parquet" in capsys.readouterr().err
    assert monitor.calls().empty


def test_compare_ends_with_1_when_a_call_failed_and_says_what_to_do(capsys):
    assert main(["compare", "scripted/none", "scripted/echo", "--prompt", "hi"]) == 1
    assert "→" in capsys.readouterr().err


def test_doctor_tells_what_to_do_for_each_provider(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "OPENAI_API_KEY" in out and "embedded" in out and "journal" in out
    assert main(["doctor", "ollama"]) == 1
    assert main(["doctor", "embedded", "--json"]) == 0


def test_models_lists_what_can_be_asked(capsys):
    assert main(["models", "embedded"]) == 0
    assert capsys.readouterr().out.split()[0] == "embedded/ngram-1"


def test_the_command_is_installed():
    done = subprocess.run([sys.executable, "-m", "toolkit.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("toolkit ")


def asked(capsys, *arguments):
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def kept_answers(count):
    with Client() as client:
        for n in range(count):
            client.generate_text("scripted/echo", f"prompt {n}")
            client.generate_text("scripted/echo", f"prompt {n}")


def test_cache_stats_tell_how_full_each_tier_is_and_what_it_saved(capsys):
    kept_answers(3)
    code, told = asked(capsys, "cache", "stats")
    memory, disk = told["tiers"]
    assert (code, told["coalesced"]) == (0, 0)
    assert (memory["tier"], memory["hits"]) == ("memory", 3)
    assert (disk["tier"], disk["entries"], disk["works"]) == ("disk", 3, True)
    assert disk["size_bytes"] > 0
    assert main(["cache", "stats"]) == 0
    shown = capsys.readouterr().out
    assert "saved time" in shown
    assert "2,000.0 MB" in shown


def test_cache_stats_work_before_anything_was_asked(capsys):
    code, told = asked(capsys, "cache", "stats")
    assert code == 0
    assert [tier["hits"] for tier in told["tiers"]] == [0, 0]


@pytest.mark.parametrize(
    ("limits", "left"), [(["--max-entries", "2"], 2), (["--max-bytes", "0.001kB"], 0), (["--older-than", "30d"], 5), ([], 5)]
)
def test_cache_prune_keeps_what_fits(capsys, limits, left):
    kept_answers(5)
    assert asked(capsys, "cache", "prune", *limits) == (0, {"removed": 5 - left, "left": {"disk": left}})


def test_cache_clear_forgets_everything(capsys):
    kept_answers(5)
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == "removed 5 answers; left: 0 in disk\n"


@pytest.mark.parametrize(
    "wrong", [["--max-bytes", "many"], ["--max-bytes", "-1"], ["--older-than", "30"], ["--older-than", "3 weeks"], ["--max-entries", "1kB"]]
)
def test_cache_prune_refuses_limits_it_does_not_understand(capsys, wrong):
    with pytest.raises(SystemExit) as ended:
        main(["cache", "prune", *wrong])
    assert ended.value.code == 2
    assert "is not a number" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["stats", "prune", "clear"])
def test_a_shared_cache_that_is_down_is_work_that_failed(capsys, monkeypatch, action):
    monkeypatch.setenv("TOOLKIT_CACHE", "redis://:secret@127.0.0.1:9/0")
    assert main(["cache", action]) == 1
    assert "secret" not in "".join(capsys.readouterr())
