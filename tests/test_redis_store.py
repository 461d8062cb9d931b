"""The tier that machines share: what it trusts, what it shows, and what it leaves alone."""

import subprocess
import sys

import pytest

from servers.redis import RedisServer
from toolkit.cache import ResponseCache
from toolkit.cache.base import MISS
from toolkit.cache.codec import encode
from toolkit.cache.redis import RedisStore
from toolkit.client import Client
from toolkit.errors import CacheError, ConfigError
from toolkit.types import Kept, Reply

KEPT = Kept(reply=Reply(text="Elbe", finish_reason="stop"), at=1000.0, latency_s=0.5)
PASSWORD = "s3cret-w0rd"
NAME = "toolkit:v1:answer:key"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), password=PASSWORD, persistent=False) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def store(server, client):
    store = RedisStore(server.url)
    yield store
    store.close()


def test_an_answer_is_kept_as_json_text_under_a_name_with_the_version(store, client):
    store.set("key", encode(KEPT))
    seal, _, text = client.get(NAME).partition(b"\n")
    assert text == encode(KEPT)
    assert len(seal.split()) == 3


def test_the_time_to_live_is_the_servers_own(store, client):
    store.set("key", b"1", ttl_s=100)
    store.set("for ever", b"1")
    assert 99_000 < client.pttl(NAME) <= 100_000
    assert client.pttl("toolkit:v1:answer:for ever") == -1


def test_a_store_may_have_a_time_to_live_of_its_own(server, client):
    RedisStore(server.url, default_ttl_s=50).set("key", b"1")
    assert 49_000 < client.pttl(NAME) <= 50_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"text of somebody else",
        lambda data: data[:-1],
        lambda data: data.replace(b"Elbe", b"Oder"),
        lambda data: data.replace(b" ", b"  ", 1),
    ],
    ids=["empty", "foreign", "cut", "changed", "another envelope"],
)
def test_a_damaged_entry_is_missing_set_aside_and_reported_once(store, client, caplog, damage):
    store.set("key", b'"Elbe"')
    damaged = damage(client.get(NAME))
    client.set(NAME, damaged)
    assert store.get("key") is MISS
    assert store.get("key") is MISS
    assert len(caplog.records) == 1
    assert client.get("toolkit:v1:damaged:key") == damaged
    assert client.ttl("toolkit:v1:damaged:key") > 0
    store.set("key", b"1")
    assert store.get("key") == b"1"


def test_a_value_moved_to_another_key_is_damage(store, client):
    store.set("key", b"1")
    client.rename(NAME, "toolkit:v1:answer:other")
    assert store.get("other") is MISS


def test_with_a_secret_only_what_was_signed_with_it_is_believed(server, client, caplog):
    signing, other, without = (RedisStore(server.url, hmac_key=secret) for secret in (b"one", b"another", None))
    signing.set("key", b'"ours"')
    assert signing.get("key") == b'"ours"'
    assert without.get("key") == b'"ours"'
    assert other.get("key") is MISS
    without.set("key", b'"forged"')
    assert signing.get("key") is MISS
    assert "not signed by us" in caplog.text


def test_a_signed_answer_does_not_answer_another_question(server, client):
    store = RedisStore(server.url, hmac_key=b"secret")
    store.set("key", b"1")
    client.copy(NAME, "toolkit:v1:answer:other")
    assert store.get("other") is MISS


def test_the_secret_comes_from_the_environment(server, client, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE_HMAC_KEY", "from the environment")
    signing = RedisStore(server.url)
    signing.set("key", b"1")
    monkeypatch.delenv("TOOLKIT_CACHE_HMAC_KEY")
    assert RedisStore(server.url, hmac_key=b"from the environment").get("key") == b"1"
    assert RedisStore(server.url, hmac_key=b"something else").get("key") is MISS


def test_a_pickle_is_never_loaded(store, client, capsys):
    client.set(NAME, b"cbuiltins\nprint\n(S'run'\ntR.")
    assert ResponseCache(stores=[store]).get("key") is MISS
    assert capsys.readouterr().out == ""


def test_clearing_leaves_other_keys_of_the_server_alone(server, client):
    mine, similar = RedisStore(server.url, prefix="a*[b]"), RedisStore(server.url, prefix="axb")
    client.set("somebody's", "thing")
    mine.set("key", b"1")
    similar.set("key", b"2")
    mine.clear()
    assert mine.get("key") is MISS
    assert similar.get("key") == b"2"
    assert client.get("somebody's") == b"thing"


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://localhost", "redis://", "redis://localhost:port/0", "redis://:s3cret-w0rd@host:99999999/0"]
)
def test_an_address_that_cannot_be_read_is_refused_without_showing_it(url):
    with pytest.raises(ConfigError) as caught:
        RedisStore(url)
    assert PASSWORD not in str(caught.value)
    assert "redis://" in str(caught.value)


@pytest.mark.parametrize("option", ["default_ttl_s", "timeout_s", "lease_s"])
def test_a_number_of_zero_or_less_is_refused(option):
    with pytest.raises(ConfigError, match=option):
        RedisStore("redis://localhost", **{option: 0})


def test_a_password_is_in_no_repr_and_no_error(server, caplog):
    wrong = f"redis://user:{PASSWORD}%21@127.0.0.1:{server.port}/0?password={PASSWORD}"
    store = RedisStore(wrong)
    with pytest.raises(CacheError) as caught:
        store.get("key")
    ResponseCache(stores=[store]).get("key")
    assert "can't be used" in caplog.text
    for shown in (repr(store), str(caught.value), repr(caught.value), caplog.text, str(caught.value.__cause__)):
        assert PASSWORD not in shown


def test_an_option_of_the_address_that_nobody_knows_is_a_cache_error(server):
    with pytest.raises(CacheError, match="can't be used"):
        RedisStore(f"{server.url}?db=first").get("key")


def test_a_server_that_is_down_costs_one_warning_and_the_work_goes_on(monkeypatch, caplog):
    monkeypatch.setenv("TOOLKIT_CACHE", "redis://127.0.0.1:9/0")
    with Client(journal=False) as client:
        assert repr(client.cache) == "ResponseCache(memory, disk, redis)"
        assert client.generate_text("scripted/echo", "hi").provenance == "live"
        assert client.generate_text("scripted/echo", "ho").provenance == "live"
        assert client.generate_text("scripted/echo", "hi").cache_tier == "memory"
    assert [record.levelname for record in caplog.records if record.levelname != "DEBUG"] == ["WARNING"]
    with Client(journal=False) as client:
        assert client.generate_text("scripted/echo", "hi").cache_tier == "disk"


def test_the_settings_put_redis_below_the_folder(server, client, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", server.url)
    with Client(journal=False) as one:
        one.generate_text("scripted/echo", "hi")
    with Client(journal=False, cache=ResponseCache(url=server.url)) as another_machine:
        assert another_machine.generate_text("scripted/echo", "hi").cache_tier == "redis"


def test_another_kind_of_address_in_the_settings_is_refused(monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", "memcached://localhost")
    with pytest.raises(ConfigError, match="redis://"):
        Client(journal=False)


WITHOUT_REDIS = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "redis" else real(name, *rest)
from toolkit.cache.redis import RedisStore
try:
    RedisStore("redis://localhost")
except Exception as error:
    print(type(error).__name__, error)
print("redis" in sys.modules)
"""


def test_without_the_package_the_extra_is_named_and_nothing_of_it_is_imported():
    done = subprocess.run([sys.executable, "-c", WITHOUT_REDIS], capture_output=True, text=True, check=True)
    assert "ConfigError" in done.stdout
    assert "model-comparison-toolkit[redis]" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_program_without_a_shared_cache_does_not_import_redis():
    script = "import sys, toolkit.cache; toolkit.cache.redis.RedisStore('redis://localhost'); print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
