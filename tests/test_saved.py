"""Comparisons in a file: what comes back, what is left out, and what is said of a file that was cut or edited."""

import json
import subprocess
import sys
import zipfile

import pandas as pd
import pytest

import toolkit as tk
from toolkit.errors import ConfigError
from toolkit.monitor.journal import JournalReader
from toolkit.testing import Answer, Failure, script

CANARY = "sk-canary0123456789abcdef"


def compared(client=None, cache=True, **options):
    """Two models, one of which fails once; scores, a judge, votes."""
    script("poet", lambda prompt, _body: Answer(f"an ode to {prompt}", first_token_s=0.01, per_token_s=0.002))
    script("clerk", lambda prompt, _body: Failure(400, "no such form") if "3" in prompt else f"form {prompt}")
    script("judge", lambda prompt, _body: '{"verdict": "A", "reason": "it rhymes"}')
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(5)], "reference": ["ode", None, 3, "form", 0.5]})
    result = tk.compare(
        ["scripted/poet", tk.Model("scripted/clerk", temperature=0.5, label="clerk")], frame, scorers=["contains"], judge="scripted/judge",
        name="offices", client=client, cache=cache, **options,
    )  # fmt: skip
    result.ballot(rater="ann", seed=1).cast("a")
    return result


def rewritten(path, name, change):
    """The same zip file with one member changed."""
    with zipfile.ZipFile(path) as zipped:
        members = {member: zipped.read(member) for member in zipped.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as zipped:
        for member, data in members.items():
            zipped.writestr(member, data)


@pytest.mark.parametrize("keep", [tk.Comparison.save, tk.Comparison.to_capsule])
def test_everything_that_a_comparison_shows_comes_back(tmp_path, keep):
    result = compared()
    keep(result, tmp_path / "file.zip")
    again = tk.load_comparison(tmp_path / "file.zip")
    pd.testing.assert_frame_equal(again.frame, result.frame)
    for table in ("summary", "side_by_side", "latency", "errors", "cost", "judgements", "judge_report"):
        pd.testing.assert_frame_equal(pd.DataFrame(getattr(again, table)()), pd.DataFrame(getattr(result, table)()))
    pd.testing.assert_frame_equal(again.verdict("judge"), result.verdict("judge"))
    pd.testing.assert_frame_equal(
        again.votes().sort_values("vote_id", ignore_index=True), result.votes().sort_values("vote_id", ignore_index=True)
    )
    pd.testing.assert_frame_equal(again.ranking(), result.ranking())
    assert repr(again) == repr(result)
    assert (again.elapsed_s, again.run_id, again.order_seed) == (result.elapsed_s, result.run_id, result.order_seed)


def test_another_process_without_the_cache_reads_it(tmp_path):
    result = compared()
    result.save(tmp_path / "file.zip")
    code = f"import toolkit as tk; print(tk.load_comparison({str(tmp_path / 'file.zip')!r}).frame.text.tolist())"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"TOOLKIT_OFFLINE": "1", "HOME": str(tmp_path)}
    )
    assert out.stdout.strip() == str(result.frame["text"].tolist())


def test_conversations_and_pictures_in_prompts_come_back(tmp_path):
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [tk.TextPart(text="What is this?"), tk.ImagePart(data=b"\x89PNG")]},
    ]
    result = tk.compare(["scripted/echo"], [prompt, "plain \ud83d"], schema=None)
    result.save(tmp_path / "file.zip")
    assert tk.load_comparison(tmp_path / "file.zip")._plan == result._plan


def test_the_same_comparison_gives_the_same_bytes(tmp_path):
    result = compared()
    result.save(tmp_path / "one.zip"), result.save(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_loaded_comparison_can_be_voted_on_judged_and_saved_again(tmp_path):
    compared().save(tmp_path / "file.zip")
    loaded = tk.load_comparison(tmp_path / "file.zip")
    loaded.ballot(rater="bob").cast("b")
    with pytest.raises(ConfigError, match="client="):
        loaded.judge("scripted/judge")
    script("other", lambda prompt, _body: '{"verdict": "tie"}')
    with tk.Client() as client:
        loaded.judge("scripted/other", client=client)
    loaded.save(tmp_path / "again.zip")
    again = tk.load_comparison(tmp_path / "again.zip")
    assert set(again.votes()["rater"]) == {"ann", "bob", "judge:scripted/judge", "judge:scripted/other"}
    assert again.judge_report().index.tolist() == ["judge:scripted/judge", "judge:scripted/other"]


def test_a_vote_on_a_loaded_comparison_is_in_the_journal_and_found_by_the_next_to_load_it(tmp_path, monkeypatch):
    compared().save(tmp_path / "file.zip")
    monkeypatch.setenv("TOOLKIT_JOURNAL", str(tmp_path / "another machine.sqlite"))
    tk.load_comparison(tmp_path / "file.zip").ballot(rater="bob").cast("b")
    assert JournalReader(tmp_path / "another machine.sqlite").votes()["rater"] == ["bob"]
    assert set(tk.load_comparison(tmp_path / "file.zip").votes()["rater"]) == {"ann", "bob", "judge:scripted/judge"}


def test_a_comparison_that_was_stopped_says_so_after_loading(tmp_path):
    ticks = []

    def watch(run):
        ticks.append(run)
        run.stop()

    script("slowly", lambda prompt, _body: Answer(prompt, first_token_s=0.15))
    result = tk.compare(["scripted/slowly"], [str(i) for i in range(8)], concurrency=1, progress=watch)
    assert result.missing
    result.save(tmp_path / "file.zip")
    again = tk.load_comparison(tmp_path / "file.zip")
    assert (again.missing, again.stopped) == (result.missing, True)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    result = compared()
    result.save(tmp_path / "file.zip")
    before = (tmp_path / "file.zip").read_bytes()
    with pytest.raises(OSError):
        result.save(tmp_path / "no such folder" / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.zip*")] == ["file.zip"]


# --- capsules --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_a_replay_gives_the_same_frame_without_asking_anybody(tmp_path, cache):
    result = compared(cache=cache)
    result.to_capsule(tmp_path / "capsule.zip")
    with_nobody = tk.replay(tmp_path / "capsule.zip")
    pd.testing.assert_frame_equal(with_nobody.frame, result.frame)
    pd.testing.assert_frame_equal(with_nobody.latency(), result.latency())
    assert set(with_nobody.frame["provenance"]) == {"live"}


def test_a_capsule_of_replayed_answers_keeps_their_pieces_and_their_provenance(tmp_path):
    compared()
    again = compared()
    again.to_capsule(tmp_path / "capsule.zip")
    pd.testing.assert_frame_equal(tk.replay(tmp_path / "capsule.zip").frame, again.frame)
    with zipfile.ZipFile(tmp_path / "capsule.zip") as zipped:
        streams = json.loads(zipped.read("streams.json"))
    assert len(streams) == 9  # all but the failed one
    assert len(streams["0"]) == 4  # an ode to p0


@pytest.mark.parametrize("cache", [True, False])
def test_a_replay_with_the_recorded_timing_waits_as_long_as_it_took_and_gives_the_pieces_in_order(tmp_path, cache):
    result = compared(cache=cache)
    result.to_capsule(tmp_path / "capsule.zip")
    naps, seen = [], []
    again = tk.replay(tmp_path / "capsule.zip", speed="recorded", sleep=naps.append, watch=seen.append)
    rows = result.frame
    span = ((rows["at"] - rows["at"].min()).dt.total_seconds() + rows["total_s"]).max()
    assert sum(naps) == pytest.approx(span, abs=1e-5)
    assert [moment.at_s for moment in seen] == sorted(moment.at_s for moment in seen)
    told = {(m.label, m.prompt_id): "".join(x.text for x in seen if (x.label, x.prompt_id) == (m.label, m.prompt_id)) for m in seen}
    assert told["scripted/poet", "001"] == "an ode to p0"
    poet = [moment for moment in seen if (moment.label, moment.prompt_id) == ("scripted/poet", "002")]
    assert len(poet) == 5
    assert poet[-1].ended
    pauses = [later.at_s - earlier.at_s for earlier, later in zip(poet, poet[1:-1])]
    assert min(pauses) >= 0.0019
    pd.testing.assert_frame_equal(again.frame, result.frame)


def test_an_interrupt_ends_the_waiting_and_the_result_is_whole(tmp_path):
    result = compared()
    result.to_capsule(tmp_path / "capsule.zip")

    def interrupted(_pause):
        raise KeyboardInterrupt

    pd.testing.assert_frame_equal(tk.replay(tmp_path / "capsule.zip", speed="recorded", sleep=interrupted).frame, result.frame)


def test_progress_moves_as_it_did(tmp_path):
    compared().to_capsule(tmp_path / "capsule.zip")
    done = []
    tk.replay(tmp_path / "capsule.zip", speed="recorded", sleep=lambda _s: None, progress=lambda run: done.append(len(run.done)))
    assert set(range(1, 11)) <= set(done)
    assert done == sorted(done)


def test_no_secret_is_in_a_capsule(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    script("parrot", lambda prompt, _body: f"you said {prompt}")
    script("other", lambda prompt, _body: "nothing")
    script("judge", lambda prompt, _body: json.dumps({"verdict": "A", "reason": f"I saw {CANARY}"}))
    frame = pd.DataFrame({"prompt": [f"my key is {CANARY}", "harmless"], "reference": [CANARY, "x"]})
    result = tk.compare(
        [tk.Model("scripted/parrot", extra={"api_key": CANARY, "note": f"Bearer {CANARY}"}, system=f"key {CANARY}", stop=[CANARY]), "scripted/other"],
        frame, judge="scripted/judge", name=f"run {CANARY}",
    )  # fmt: skip
    result.ballot(rater="ann").cast("a")
    result.to_capsule(tmp_path / "capsule.zip")
    with zipfile.ZipFile(tmp_path / "capsule.zip") as zipped:
        assert not any(CANARY.encode() in zipped.read(name) for name in zipped.namelist())
    again = tk.replay(tmp_path / "capsule.zip")
    assert again.frame["text"].iloc[0] == "you said my key is [redacted]"
    assert len(again.votes()) == len(result.votes())  # also those on answers that were cleaned
    result.save(tmp_path / "saved.zip")
    with zipfile.ZipFile(tmp_path / "saved.zip") as zipped:
        assert CANARY not in json.dumps(json.loads(zipped.read("plan.json"))["variants"][0]["options"]["extra"])


def test_a_saved_comparison_is_no_capsule(tmp_path):
    compared().save(tmp_path / "file.zip")
    with pytest.raises(ConfigError, match="load_comparison"):
        tk.replay(tmp_path / "file.zip")


def test_a_wrong_speed_is_told(tmp_path):
    with pytest.raises(ConfigError, match="'instant' or 'recorded'"):
        tk.replay(tmp_path / "any.zip", speed="fast")


# --- damage ----------------------------------------------------------------------------------------------------------------


def capsule(folder):
    path = folder / "capsule.zip"
    compared().to_capsule(path)
    return path


@pytest.mark.parametrize("read", [tk.load_comparison, tk.replay])
def test_a_file_cut_anywhere_is_told(tmp_path, read):
    whole = capsule(tmp_path).read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.zip").write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=r"cut\.zip .*again from where it came"):
            read(tmp_path / "cut.zip")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("calls.json", lambda data: data.replace(b"an ode", b"an oat")),
        ("plan.json", lambda data: data.replace(b'"p1"', b'"p9"')),
        ("opinions.json", lambda data: data.replace(b'"a"', b'"b"')),
        ("streams.json", lambda data: b"{}"),
        ("manifest.json", lambda data: data.replace(b"0.1.0", b"0.1.1")),
    ],
)
def test_an_edited_file_is_told(tmp_path, name, change):
    path = capsule(tmp_path)
    rewritten(path, name, change)
    with pytest.raises(ConfigError, match=rf"changed after it was written: {name}.*again from where it came"):
        tk.replay(path)


def test_every_flipped_byte_is_told_or_harmless(tmp_path):
    path = capsule(tmp_path)
    expected = tk.replay(path).frame
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            frame = tk.replay(path).frame
        except ConfigError:
            continue
        pd.testing.assert_frame_equal(frame, expected)  # a byte of the zip's own book-keeping


@pytest.mark.parametrize("what", [b"", b"not a zip", None])
def test_what_is_no_comparison_is_told(tmp_path, what):
    path = tmp_path / "thing.zip"
    if what is not None:
        path.write_bytes(what)
    with pytest.raises(ConfigError, match="thing"):
        tk.load_comparison(path)
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("readme.txt", "hello")
    with pytest.raises(ConfigError, match="no saved comparison"):
        tk.load_comparison(path)


def test_a_file_of_a_newer_toolkit_is_told(tmp_path):
    path = capsule(tmp_path)
    rewritten(path, "manifest.json", lambda data: json.dumps({**json.loads(data), "version": 99}).encode())
    with pytest.raises(ConfigError, match="upgrade"):
        tk.load_comparison(path)


def test_a_forged_file_runs_no_code_and_is_told(tmp_path):
    from toolkit.comparison import saved

    path = capsule(tmp_path)
    with zipfile.ZipFile(path) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist() if name != "manifest.json"}
    members["plan.json"] = b'{"variants": [{"label": 1}], "name": "x", "run_id": "y", "elapsed_s": "z"}'
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in {"manifest.json": saved.manifest(members), **members}.items():
            zipped.writestr(name, data)
    with pytest.raises(ConfigError, match="does not hold a comparison"):
        tk.load_comparison(path)
