"""``joblib.Memory(folder, backend="toolkit")``: joblib's items in the file of the disk tier."""

import datetime
import json
import pickle
import sqlite3
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest

from toolkit.cache.disk import DiskStore
from toolkit.cache.entries import FILE_NAME
from toolkit.cache.joblib_store import BACKEND, SQLiteStoreBackend
from toolkit.errors import ConfigError

calls = []


def double(x, note="a secret note"):
    calls.append(x)
    return x * 2


def twin(x):
    return {"values": x, "note": None}


async def later(x):
    calls.append(x)
    return x * 2


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()
    joblib.memory._FUNCTION_HASHES.clear()  # joblib's note of which sources it has checked outlives a folder


@pytest.fixture
def memory(tmp_path):
    return joblib.Memory(tmp_path / "memo", backend=BACKEND, verbose=0)


def names(memory):
    return sorted(path.name for path in memory.store_backend._entries.folder.iterdir())


def test_a_second_call_is_answered_from_the_one_file(memory):
    cached = memory.cache(double)
    assert [cached(3), cached(3), cached(4)] == [6, 6, 8]
    assert calls == [3, 4]
    assert {name.removesuffix("-wal").removesuffix("-shm").removesuffix(".lock") for name in names(memory)} == {FILE_NAME}


def test_results_outlive_the_memory_object(memory):
    memory.cache(double)(3)
    again = joblib.Memory(memory.location, backend=BACKEND, verbose=0).cache(double)
    assert again.check_call_in_cache(3)
    assert again(3) == 6
    assert calls == [3]


@pytest.mark.parametrize(
    "value",
    [None, np.arange(6).reshape(2, 3), pd.DataFrame({"a": [1, 2], "b": ["x", None]}), {"nested": [np.float32(1)]}, "x" * 100_000],
    ids=["none", "array", "frame", "dict", "text"],
)
@pytest.mark.parametrize("compress", [False, 3])
def test_values_come_back_as_they_were(tmp_path, value, compress):
    cached = joblib.Memory(tmp_path / "memo", backend=BACKEND, verbose=0, compress=compress).cache(twin)
    cached(value)
    assert cached.check_call_in_cache(value)
    assert joblib.hash(cached(value)) == joblib.hash({"values": value, "note": None})


def test_coroutine_functions_are_kept_too(memory):
    import asyncio

    cached = memory.cache(later)

    async def main():
        return [await cached(3), await cached(3)]

    assert asyncio.run(main()) == [6, 6]
    assert calls == [3]


def test_a_changed_source_forgets_the_old_results(tmp_path):
    script = tmp_path / "script.py"
    source = """
import joblib, sys
import toolkit.cache.joblib_store
def work(x):
    print("working")
    return x + {number}
print(joblib.Memory(sys.argv[1] + "/memo", backend="toolkit", verbose=0).cache(work)(1))
"""
    outputs = []
    for number in (1, 1, 2):
        script.write_text(source.format(number=number))
        done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
        outputs.append(done.stdout.split())
    assert outputs == [["working", "2"], ["2"], ["working", "3"]]


def test_clearing_one_function_leaves_the_others(memory):
    first, second = memory.cache(double), memory.cache(twin)
    first(1)
    second(1)
    first.clear(warn=False)
    assert not first.check_call_in_cache(1)
    assert second.check_call_in_cache(1)
    assert first(1) == 2


def test_clearing_the_memory_forgets_everything(memory):
    cached = memory.cache(double)
    cached(1)
    memory.clear(warn=False)
    assert memory.store_backend.get_items() == []
    assert cached(1) == 2
    assert calls == [1, 1]


def test_one_result_can_be_forgotten(memory):
    cached = memory.cache(double)
    shelved = cached.call_and_shelve(3)
    assert shelved.get() == 6
    shelved.clear()
    assert not cached.check_call_in_cache(3)
    with pytest.raises(KeyError):
        shelved.get()


def test_results_expire_by_joblibs_own_rule(memory):
    cached = memory.cache(double, cache_validation_callback=joblib.expires_after(hours=1))
    fresh = memory.cache(double, cache_validation_callback=joblib.expires_after(hours=-1))
    cached(3)
    assert cached.check_call_in_cache(3)
    assert not fresh.check_call_in_cache(3)


def test_arguments_are_not_written_down(memory):
    memory.cache(double)(3, note="key-4711")
    (entry,) = memory.store_backend._entries.listed()
    described = json.loads(memory.store_backend._entries.description(entry.path))
    assert sorted(described) == ["duration", "time"]
    assert not any(b"key-4711" in path.read_bytes() for path in memory.store_backend._entries.folder.iterdir())


@pytest.mark.parametrize("limits", [{"items_limit": 3}, {"bytes_limit": "2K"}, {"bytes_limit": 2048}])
def test_reduce_size_keeps_what_fits(memory, limits):
    cached = memory.cache(double)
    for n in range(20):
        cached("x" * 100 + str(n))
    memory.reduce_size(**limits)
    items = memory.store_backend.get_items()
    assert 0 < len(items) < 20
    assert len(items) == 3 or sum(item.size for item in items) <= 2048


def test_reduce_size_by_age_goes_by_the_last_use(memory):
    memory.cache(double)(1)
    memory.reduce_size(age_limit=datetime.timedelta(days=1))
    assert len(memory.store_backend.get_items()) == 1
    with pytest.raises(ValueError, match="positive timedelta"):
        memory.reduce_size(age_limit=datetime.timedelta(days=-1))


def test_answers_of_the_disk_tier_are_items_that_joblib_lists_loads_and_prunes(tmp_path):
    store = DiskStore(tmp_path)
    store.set("a" * 64, b'{"text": "Elbe"}')
    memory = joblib.Memory(tmp_path, backend=BACKEND, verbose=0)
    (item,) = memory.store_backend.get_items()
    assert item.path == str(tmp_path / "answers" / ("a" * 64))
    assert memory.store_backend.contains_item(["answers", "a" * 64])
    assert memory.store_backend.load_item(["answers", "a" * 64]) == '{"text": "Elbe"}'
    memory.reduce_size(items_limit=0)
    assert store.info().entries == 0


class Bomb:
    def __reduce__(self):
        return print, ("unpickled",)


def test_an_answer_is_never_unpickled(tmp_path, capsys):
    DiskStore(tmp_path).set("key", pickle.dumps(Bomb(), protocol=0))
    loaded = joblib.Memory(tmp_path, backend=BACKEND, verbose=0).store_backend.load_item(["answers", "key"])
    assert isinstance(loaded, str)
    assert capsys.readouterr().out == ""


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="others can write to"):
        joblib.Memory(folder, backend=BACKEND, verbose=0)


def test_memory_mapping_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="mmap_mode"):
        joblib.Memory(tmp_path, backend=BACKEND, mmap_mode="r", verbose=0)


def test_a_damaged_result_is_worked_out_again(memory, caplog):
    cached = memory.cache(double)
    cached(3)
    with sqlite3.connect(memory.store_backend._entries.file) as connection:
        connection.execute("UPDATE entry SET value = x'00'")
    connection.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert cached(3) == 6
    assert calls == [3, 3]
    assert "is damaged; it is set aside" in caplog.text
    assert cached(3) == 6
    assert calls == [3, 3]


def test_a_value_that_cannot_be_pickled_leaves_nothing_half_written(memory):
    store = memory.store_backend
    with pytest.raises(ValueError, match="half"), store._open_item(f"{store.location}/f/1/output.pkl", "wb") as draft:
        draft.write(b"half")
        raise ValueError("half")
    assert not store.contains_item(["f", "1"])


def test_parts_can_be_moved_as_joblib_moves_them(memory):
    store = memory.store_backend
    with store._open_item(f"{store.location}/f/1/output.pkl", "wb") as draft:
        draft.write(b"value")
    store._move_item(f"{store.location}/f/1/output.pkl", f"{store.location}/f/2/output.pkl")
    assert store.contains_item(["f", "2"])
    assert not store.contains_item(["f", "1"])


def test_a_memory_travels_to_worker_processes(memory):
    cached = memory.cache(abs)
    results = joblib.Parallel(n_jobs=2)(joblib.delayed(cached)(-n) for n in range(4))
    assert results == [0, 1, 2, 3]
    assert len(memory.store_backend.get_items()) == 4


def test_functions_with_one_beginning_of_their_name_are_kept_apart(tmp_path):
    store = SQLiteStoreBackend()
    store.configure(str(tmp_path / "memo"))
    for name in ("f", "f0", "f.g", "f/inner"):
        store.dump_item([name, "1"], name)
    store.clear_path(["f"])
    assert [store.contains_item([name, "1"]) for name in ("f", "f0", "f.g", "f/inner")] == [False, True, True, False]
