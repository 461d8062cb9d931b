"""The disk tier: many processes, damage, limits, and folders that don't work."""

import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from toolkit.cache.base import MISS
from toolkit.cache.disk import DiskStore
from toolkit.cache.entries import FILE_NAME, ROWS_AT_ONCE, USES_AT_ONCE
from toolkit.errors import CacheError, ConfigError

STRESS_S = float(os.environ.get("STRESS_SECONDS", "0"))
"""For how long processes are killed in the test of that; eight times by default, which takes a few seconds; CI may give it 20 s."""

KEYS = 10_000
WORKER = """
import hashlib, random, sys
from toolkit.cache.disk import DiskStore
folder, seed, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store, chance = DiskStore(folder), random.Random(seed)
def whole(key, data):
    return data.startswith(key.encode() + b":") and hashlib.sha256(data[:-64]).hexdigest().encode() == data[-64:]
while True:
    key = f"{chance.randrange(keys):064d}"
    if chance.random() < 0.5:
        body = key.encode() + b":" + chance.randbytes(chance.randrange(1, 30_000)).hex().encode()
        store.set(key, body + hashlib.sha256(body).hexdigest().encode())
    else:
        data = store.get(key)
        if data and not whole(key, data):
            print("damaged", key, flush=True)
    print(".", end="", flush=True)
"""


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    store = DiskStore(tmp_path / "cache", clock=clock)
    yield store
    store.close()


def file_of(store):
    return store.entries.file


def rows(store, query, *values):
    connection = sqlite3.connect(file_of(store), isolation_level=None)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def test_what_was_set_is_found_by_another_store_on_the_same_folder(store, tmp_path):
    store.set("key", b"value")
    assert DiskStore(tmp_path / "cache").get("key") == b"value"
    assert store.get("another") is MISS


def test_an_empty_value_is_a_value(store):
    store.set("key", b"")
    assert store.get("key") == b""


def test_setting_again_replaces_and_deleting_forgets(store):
    store.set("key", b"one")
    store.set("key", b"two")
    assert store.get("key") == b"two"
    assert store.info().entries == 1
    assert store.delete("key")
    assert not store.delete("key")
    assert store.get("key") is MISS


@pytest.mark.parametrize("key", ["", "a/b", "ä", "it's", "%", "a" * 5000, "../../etc/passwd"])
def test_any_text_is_a_key(store, key):
    store.set(key, b"value")
    assert store.get(key) == b"value"
    assert list(store.entries.folder.parent.iterdir()) == [store.entries.folder]


def test_only_the_owner_may_look_inside(store):
    store.set("key", b"value")
    assert stat.S_IMODE(store.entries.folder.stat().st_mode) == 0o700
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in store.entries.folder.glob("*.sqlite*") if not path.name.endswith(".lock")
    }
    assert modes == {FILE_NAME: 0o600, f"{FILE_NAME}-wal": 0o600, f"{FILE_NAME}-shm": 0o600}


def test_nothing_is_made_before_the_first_use(tmp_path):
    DiskStore(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_entry_is_gone_at_the_end_of_its_time(store, clock):
    store.set("short", b"value", ttl_s=10)
    store.set("long", b"value")
    clock.now += 9
    assert store.get("short") == b"value"
    clock.now += 1
    assert store.get("short") is MISS
    assert store.get("long") == b"value"
    assert store.info().entries == 1


def test_a_store_may_have_a_time_to_live_of_its_own(tmp_path, clock):
    store = DiskStore(tmp_path, default_ttl_s=10, clock=clock)
    store.set("key", b"value")
    clock.now += 10
    assert store.get("key") is MISS


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": -1}, {"default_ttl_s": 0}])
def test_limits_of_zero_or_less_are_refused(tmp_path, options):
    with pytest.raises(ConfigError, match="must be above zero"):
        DiskStore(tmp_path, **options)


def test_a_hit_writes_nothing_until_a_minute_has_passed_and_then_only_with_others(store, clock):
    for n in range(USES_AT_ONCE):
        store.set(str(n), b"value")
    wal = Path(f"{file_of(store)}-wal")
    size = wal.stat().st_size
    store.get("0")
    clock.now += 61
    for n in range(USES_AT_ONCE - 1):
        store.get(str(n))
    assert wal.stat().st_size == size
    store.get(str(USES_AT_ONCE - 1))
    assert {used for (used,) in rows(store, "SELECT used_at FROM entry")} == {clock.now}


def test_pruning_removes_the_longest_unused_first(store, clock):
    for n in range(10):
        clock.now += 100
        store.set(str(n), b"x" * 100)
    clock.now += 100
    store.get("0")
    assert store.prune(max_entries=3) == 7
    assert [n for n in range(10) if store.get(str(n)) is not MISS] == [0, 8, 9]


def test_pruning_by_size_stops_as_soon_as_the_rest_fits(store, clock):
    for n in range(10):
        clock.now += 1
        store.set(str(n), b"x" * 1000)
    size = store.info().size_bytes
    assert store.prune(max_bytes=size - 1) == 1
    assert store.prune(max_bytes=size) == 0
    assert store.prune(max_bytes=size // 2) == 4
    assert store.info().entries == 5


def test_pruning_by_age_goes_by_the_last_use(store, clock):
    store.set("old", b"value")
    store.set("used", b"value")
    clock.now += 1000
    store.get("used")
    assert store.prune(older_than_s=500) == 1
    assert store.get("used") == b"value"


def test_pruning_removes_what_has_expired_whatever_the_limits(store, clock):
    store.set("key", b"value", ttl_s=5)
    clock.now += 5
    assert store.prune() == 1


def test_pruning_works_in_batches_and_gives_the_space_back(store, clock):
    many = ROWS_AT_ONCE * 2 + 10
    for n in range(many):
        store.set(str(n), b"x" * 2000)
    store.close()
    before = file_of(store).stat().st_size
    assert store.prune(max_entries=10) == many - 10
    store.close()
    assert file_of(store).stat().st_size < before / 4


def test_pruning_does_not_walk_over_the_whole_store(store):
    store.set("key", b"value")
    queries = [
        "SELECT id, size FROM entry ORDER BY used_at LIMIT 500",
        "SELECT id FROM entry WHERE expires_at <= 5 LIMIT 500",
        "SELECT id FROM entry WHERE used_at < 5 ORDER BY used_at LIMIT 500",
        "SELECT value FROM entry WHERE path = 'x'",
    ]
    for query in queries:
        plan = " ".join(row[-1] for row in rows(store, f"EXPLAIN QUERY PLAN {query}"))
        assert "USING" in plan and "INDEX" in plan, plan
        assert "TEMP B-TREE" not in plan, plan


def test_the_running_totals_are_those_of_a_full_count(store, clock):
    for n in range(50):
        store.set(str(n % 20), b"x" * n, ttl_s=5 if n % 3 else None)
    store.delete("7")
    clock.now += 6
    store.get("1")
    store.prune(max_entries=8)
    assert [(store.info().entries, store.info().size_bytes)] == rows(store, "SELECT count(*), sum(size) FROM entry")
    store.clear()
    assert (store.info().entries, store.info().size_bytes) == (0, 0)


def test_a_store_that_has_grown_too_large_prunes_itself(tmp_path, clock):
    store = DiskStore(tmp_path, max_bytes=50_000, clock=clock)
    for n in range(100):
        clock.now += 1
        store.set(str(n), b"x" * 1000)
        assert store.info().size_bytes <= 50_000
    assert store.get("99") is not MISS
    assert store.get("0") is MISS
    assert store.info().max_bytes == 50_000


def test_a_value_larger_than_the_whole_store_is_left_out_with_a_warning(tmp_path, caplog):
    store = DiskStore(tmp_path, max_bytes=1000)
    store.set("small", b"value")
    store.set("large", b"x" * 1001)
    assert store.get("large") is MISS
    assert store.get("small") == b"value"
    assert "1001 bytes is not kept" in caplog.text


@pytest.mark.parametrize("damage", ["value = x'00'", "value = 'text'", "checksum = 0", "checksum = NULL", "path = 'answers/moved'"])
def test_a_damaged_entry_is_missing_set_aside_and_reported_once(store, caplog, damage):
    store.set("key", b"value")
    rows(store, f"UPDATE entry SET {damage}")
    key = "moved" if "moved" in damage else "key"
    with caplog.at_level(logging.WARNING):
        assert store.get(key) is MISS
        assert store.get(key) is MISS
    assert len(caplog.records) == 1
    assert "is damaged; it is set aside" in caplog.text
    assert store.entries.damaged() == [f"answers/{key}"]
    store.set(key, b"again")
    assert store.get(key) == b"again"


@pytest.mark.parametrize("damage", [b"this is no database", b"SQLite format 3\x00" + b"\xff" * 5000], ids=["text", "torn"])
def test_a_damaged_file_is_moved_aside_with_one_warning_and_a_new_one_begun(tmp_path, caplog, damage):
    (tmp_path / FILE_NAME).write_bytes(damage)
    store = DiskStore(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert store.get("key") is MISS
        store.set("key", b"value")
        assert store.get("key") == b"value"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (aside,) = tmp_path.glob(f"{FILE_NAME}.damaged-*[0-9]")
    assert aside.read_bytes() == damage


def test_a_file_damaged_while_it_is_open_is_replaced_too(store, caplog):
    for n in range(200):
        store.set(str(n), b"x" * 500)
    store.close()
    with file_of(store).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 60_000)
    other = threading.Thread(target=lambda: store.get("1"))
    other.start()
    other.join()
    assert store.get("1") is MISS
    store.set("1", b"value")
    assert store.get("1") == b"value"
    assert len([record for record in caplog.records if "new one is begun" in record.message]) == 1


def test_a_store_whose_folder_was_removed_starts_anew(store):
    store.set("key", b"value")
    shutil.rmtree(store.entries.folder)
    assert store.get("missing") is MISS
    assert store.get("key") is MISS
    store.set("key", b"again")
    assert file_of(store).exists()
    assert store.get("key") == b"again"


def test_a_folder_that_cannot_be_is_a_cache_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = DiskStore(tmp_path / "file" / "cache")
    with pytest.raises(CacheError, match="can't be used"):
        store.get("key")
    with pytest.raises(CacheError, match="can't be used"):
        store.set("key", b"value")


def python(script, *arguments, **options):
    return subprocess.run(
        check=False, args=[sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


READ_ONLY = """
import json, os, sys
from toolkit.cache.disk import DiskStore
from toolkit.errors import CacheError
import toolkit.cache.tiers
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
store = DiskStore(sys.argv[1])
def outcome(work):
    try:
        return repr(work())
    except CacheError as error:
        return "CacheError"
print(json.dumps([outcome(lambda: store.get("key")), outcome(lambda: store.set("key", b"new"))]))
"""


def test_a_folder_that_may_not_be_written_to_is_a_cache_error():
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o555)
        try:
            done = python(READ_ONLY, Path(parent) / "cache")
        finally:
            Path(parent).chmod(0o755)
    assert done.stderr == ""
    assert json.loads(done.stdout) == ["CacheError", "CacheError"]


FULL = """
import json, resource, signal, sys
from toolkit.cache.disk import DiskStore
from toolkit.errors import CacheError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = DiskStore(sys.argv[1])
store.set("first", b"value")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
failed = False
for n in range(100):
    try:
        store.set(str(n), b"x" * 10_000)
    except CacheError:
        failed = True
still = store.get("first").decode()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.set("last", b"value")
print(json.dumps([failed, still, store.get("last").decode()]))
"""


def test_a_full_disk_is_an_error_of_that_write_alone(tmp_path):
    done = python(FULL, tmp_path)
    assert json.loads(done.stdout) == [True, "value", "value"], done.stderr


def test_four_processes_killed_at_random_leave_every_value_whole(tmp_path):
    workers, chance, end = {}, random.Random(7), time.monotonic() + STRESS_S
    try:
        for seed in itertools.count():
            if seed >= 8 and time.monotonic() >= end:
                break
            slot = chance.randrange(4) if len(workers) == 4 else len(workers)
            if slot in workers:
                finish(workers.pop(slot))
            command = [sys.executable, "-c", WORKER, str(tmp_path), str(seed), str(KEYS)]
            workers[slot] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert workers[slot].stdout.read(chance.randrange(50, 200)).strip(b".") == b"", workers[slot].stderr
    finally:
        for worker in workers.values():
            finish(worker)
    store = DiskStore(tmp_path)
    found = {key: store.get(key) for key in (f"{n:064d}" for n in range(KEYS))}
    values = {key: value for key, value in found.items() if value is not MISS}
    assert len(values) > 200
    assert all(value.startswith(key.encode() + b":") for key, value in values.items())
    assert all(hashlib.sha256(value[:-64]).hexdigest().encode() == value[-64:] for value in values.values())
    assert store.entries.damaged() == []
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]
    assert [(store.info().entries, store.info().size_bytes)] == rows(store, "SELECT count(*), sum(size) FROM entry")


def finish(worker):
    os.kill(worker.pid, signal.SIGKILL)
    out, err = worker.communicate(timeout=30)
    assert b"damaged" not in out
    assert err == b""


def test_processes_that_begin_a_store_together_all_succeed(tmp_path):
    script = "import sys; from toolkit.cache.disk import DiskStore; s = DiskStore(sys.argv[1]); s.set(sys.argv[2], b'v'); print(s.get(sys.argv[2]))"
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for n in range(6)
    ]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == [b"b'v'\n"] * 6
    assert DiskStore(tmp_path).info().entries == 6


def test_a_forked_child_uses_a_connection_of_its_own(store):
    if not hasattr(os, "fork"):
        return
    store.set("key", b"value")
    child = os.fork()
    if child == 0:
        good = store.get("key") == b"value"
        store.set("child", b"from the child")
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get("child") == b"from the child"
    store.set("key", b"still works")
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]


def test_many_threads_share_a_store_and_closing_it_closes_for_all(store):
    failures = []

    def work(seed):
        for n in range(100):
            key = str((n * seed) % 50)
            store.set(key, key.encode())
            if store.get(key) != key.encode():
                failures.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store.close()
    assert store.get("1") == b"1"
