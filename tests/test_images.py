"""Pictures are asked for like words: one cache, one flight, one ledger, one journal. How they are shown is safe."""

import asyncio
import base64
import threading

import pytest

import toolkit as tk
from servers.http import Gate, json_answer
from servers.openrouter import PNG, OpenRouterService
from toolkit import AsyncClient, Client
from toolkit.cache import ResponseCache
from toolkit.client import read_size
from toolkit.errors import CacheMiss, ConfigError, ReplyError, ServerError
from toolkit.pricing import Price
from toolkit.providers.images import read_base64, read_data_url, read_picture
from toolkit.types import Image, ImageResult, Timing
from toolkit.wire.retry import Retry

MODEL = "openrouter/acme/painter"
PROMPT = "a stone <b>bridge</b> at dawn"
KEY = "sk-or-v1-0123456789"


class Threads:
    def __init__(self, server, **options):
        self.naps = []
        self.client = Client(**options_of(server, options), sleep=self.naps.append)

    def __call__(self, *arguments, **options):
        return self.client.generate_image(*arguments, **options)

    def close(self):
        self.client.close()


class Loop:
    def __init__(self, server, **options):
        self.naps = []
        self.client = AsyncClient(**options_of(server, options), sleep=self.nap)
        self.runner = asyncio.Runner()

    async def nap(self, seconds):
        self.naps.append(seconds)

    def __call__(self, *arguments, **options):
        return self.runner.run(self.client.generate_image(*arguments, **options))

    def close(self):
        self.runner.run(self.client.aclose())
        self.runner.close()


def options_of(server, options):
    addresses = {"base_urls": {"openrouter": f"{server.url}/api/v1"}, "api_keys": {"openrouter": KEY}}
    return {"cache": ResponseCache(), "journal": False, "retry": Retry(random=lambda: 0.0), **addresses, **options}


@pytest.fixture(params=[Threads, Loop], ids=["threads", "loop"])
def driver(request):
    return request.param


@pytest.fixture
def ask(driver):
    """Makes an asker of a service; everything is closed at the end."""
    opened = []

    def make(service=None, **options):
        server = (service or OpenRouterService()).serve()
        asker = driver(server, **options)
        asker.server = server
        opened.append(asker)
        return asker

    yield make
    for asker in opened:
        asker.close()
        asker.server.__exit__()


# --- the call ----------------------------------------------------------------------------------------------------------------------


def test_pictures_come_with_how_they_came_about(ask):
    result = ask()(MODEL, PROMPT)
    assert isinstance(result, ImageResult)
    assert result.images == (Image(data=PNG, mime="image/png"),)
    assert (result.provider, result.model, result.provenance, result.attempts) == ("openrouter", MODEL, "live", 1)
    assert (result.cost_usd, result.saved_usd, result.cache_tier) == (0.04, None, None)
    time = result.timing
    parts = time.lookup_s + time.limiter_wait_s + time.retry_sleep_s + time.failed_attempts_s + time.latency_s + time.consumer_s
    assert time.total_s == pytest.approx(parts) and time.latency_s > 0


def test_the_same_wish_is_answered_from_memory_and_says_so(ask):
    asker = ask()
    first, again = asker(MODEL, PROMPT), asker(MODEL, PROMPT)
    assert (again.images, again.provenance, again.cache_tier) == (first.images, "replayed", "memory")
    assert (again.cost_usd, again.saved_usd, again.saved_s) == (0.0, 0.04, first.timing.latency_s)
    assert again.call_id != first.call_id
    assert len(asker.server.requests) == 1


def test_a_picture_is_found_on_disk_by_another_client(ask, tmp_path):
    asker = ask(cache=ResponseCache(tmp_path))
    first = asker(MODEL, PROMPT)
    other = Client(**options_of(asker.server, {"cache": ResponseCache(tmp_path)}))
    again = other.generate_image(MODEL, PROMPT, cache="only")
    other.close()
    assert (again.images, again.cache_tier) == (first.images, "disk")


@pytest.mark.parametrize("changes", [{"size": "64x64"}, {"n": 2}, {"seed": 1}, {"extra": {"quality": "low"}}])
def test_whatever_is_wished_otherwise_is_another_picture(ask, changes):
    asker = ask()
    asker(MODEL, PROMPT)
    assert asker(MODEL, PROMPT, **changes).provenance == "live"


def test_the_modes_of_the_cache_hold_for_pictures(ask):
    asker = ask()
    with pytest.raises(CacheMiss):
        asker(MODEL, PROMPT, cache="only")
    assert [asker(MODEL, PROMPT, cache=mode).provenance for mode in (False, True, "refresh", "only")] == [
        "live",
        "live",
        "live",
        "replayed",
    ]


def test_a_wish_under_way_is_shared():
    gate = Gate()

    def wait(_request, good):
        good.before = (gate,)
        return good

    with OpenRouterService(fault=wait).serve() as server, Client(**options_of(server, {})) as client:
        results = []
        threads = [threading.Thread(target=lambda: results.append(client.generate_image(MODEL, PROMPT))) for _ in range(3)]
        threads[0].start()
        assert gate.reached.wait(10)
        for thread in threads[1:]:
            thread.start()
        gate.opened.set()
        for thread in threads:
            thread.join(10)
    assert [result.provenance for result in results].count("live") == 1
    assert len(server.requests) == 1


def test_a_busy_service_is_asked_again(ask):
    faults = iter([json_answer({"error": "busy"}, 503, {"retry-after": "2"})])
    asker = ask(OpenRouterService(fault=lambda _request, good: next(faults, good)))
    result = asker(MODEL, PROMPT)
    assert (result.attempts, asker.naps, result.timing.failed_attempts_s > 0) == (2, [2.0], True)


def test_an_answer_without_a_picture_is_not_kept(ask):
    faults = iter([json_answer({"data": []})])
    asker = ask(OpenRouterService(fault=lambda _request, good: next(faults, good)))
    with pytest.raises(ReplyError):
        asker(MODEL, PROMPT)
    assert asker(MODEL, PROMPT).provenance == "live"


def test_a_price_of_words_is_not_taken_for_pictures(ask):
    free_of_cost = json_answer(
        {"data": [{"b64_json": base64.b64encode(PNG).decode()}], "usage": {"prompt_tokens": 10, "completion_tokens": 10}}
    )
    listed = [{"id": "acme/painter", "pricing": {"prompt": "1", "completion": "1"}}]
    service = OpenRouterService(models=listed, fault=lambda *_: free_of_cost)
    with service.serve() as server, Client(**options_of(server, {})) as client:
        client.list_models("openrouter")
        assert client.generate_image(MODEL, PROMPT).cost_usd is None
    own = ask(service, prices={MODEL: Price(input=1.0, output=3.0)})
    assert own(MODEL, PROMPT).cost_usd == pytest.approx(40 / 1e6)


# --- the journal -------------------------------------------------------------------------------------------------------------------


def journal_rows(tmp_path):
    return tk.monitor.calls(journal=str(tmp_path / "journal.sqlite")).to_dict("records")


def test_the_journal_has_the_prompt_and_not_the_picture(ask, tmp_path):
    path = tmp_path / "journal.sqlite"
    asker = ask(journal=str(path))
    asker(MODEL, PROMPT)
    asker(MODEL, PROMPT)
    asker.client.journal.flush()
    live, replayed = journal_rows(tmp_path)
    assert (live["operation"], live["prompt"], live["provenance"], live["cost_usd"]) == ("image", PROMPT, "live", 0.04)
    assert (replayed["operation"], replayed["provenance"], replayed["saved_usd"]) == ("image", "replayed", 0.04)
    assert PNG not in path.read_bytes()
    assert base64.b64encode(PNG) not in path.read_bytes()


def test_a_picture_that_failed_is_a_row_too(ask, tmp_path):
    asker = ask(
        OpenRouterService(fault=lambda *_: json_answer({"error": "no"}, 500)),
        journal=str(tmp_path / "journal.sqlite"),
        retry=Retry(attempts=1),
    )
    with pytest.raises(ServerError):
        asker(MODEL, PROMPT)
    asker.client.journal.flush()
    (row,) = journal_rows(tmp_path)
    assert (row["operation"], row["status"], row["error_type"]) == ("image", "error", "ServerError")


# --- wrong wishes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": 0}, {"n": -1}, {"n": 1.5}, {"n": True}, {"n": "2"}, {"size": "big"}, {"size": "64"}, {"size": "0x64"}, {"size": "64x"}, {"size": "64x64x64"},
        {"size": "-1x5"}, {"size": (64,)}, {"size": (64, 0)}, {"size": (64.0, 64)}, {"size": (True, 64)}, {"size": 64}, {"timeout_s": 0}, {"cache": "no"},
    ],
)  # fmt: skip
def test_a_wish_that_makes_no_sense_is_refused_before_anything_is_sent(ask, arguments):
    asker = ask()
    with pytest.raises(ConfigError):
        asker(MODEL, PROMPT, **arguments)
    assert asker.server.requests == []


@pytest.mark.parametrize("prompt", ["", "  \n", None, ["a"], b"a"])
def test_a_wish_without_words_is_refused(ask, prompt):
    with pytest.raises(ConfigError, match="prompt"):
        ask()(MODEL, prompt)


@pytest.mark.parametrize(
    ("size", "read"), [("1024x768", (1024, 768)), (" 64X32 ", (64, 32)), ("64×32", (64, 32)), ([5, 6], (5, 6)), (None, None)]
)
def test_a_size_is_width_and_height(size, read):
    assert read_size(size) == read


@pytest.mark.parametrize("model", ["embedded/ngram-2", "scripted/echo", "ollama/x"])
def test_a_provider_that_makes_no_pictures_says_so(model):
    with Client(cache=False, journal=False) as client, pytest.raises(ConfigError, match="no images"):
        client.generate_image(model, "x")


def test_what_extra_can_t_say_is_told(ask):
    with pytest.raises(ConfigError, match="extra="):
        ask()(MODEL, PROMPT, extra={"prompt": "another"})


def test_the_function_is_that_of_the_process_wide_client(monkeypatch):
    with OpenRouterService(key=KEY).serve() as server:
        monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
        monkeypatch.setenv("OPENROUTER_BASE_URL", f"{server.url}/api/v1")
        assert tk.generate_image(MODEL, PROMPT, n=1).images[0].data == PNG


# --- how it shows itself -----------------------------------------------------------------------------------------------------------


def shown(*images, **fields):
    return ImageResult(images=images, model="p/<i>m</i>", timing=Timing(latency_s=1.5), **fields)


def test_a_notebook_shows_the_pictures():
    page = shown(Image(data=PNG), Image(data=b"GIF89a", mime="image/gif"), cost_usd=0.04)._repr_html_()
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in page
    assert 'src="data:image/gif;base64,' in page
    assert "1.50 s" in page and "$0.04" in page


@pytest.mark.parametrize("mime", ["image/svg+xml", "text/html", "image/png;x", 'image/png" onerror="alert(1)', "IMAGE/PNG", ""])
def test_nothing_else_is_put_into_a_page(mime):
    page = shown(Image(data=b"<svg onload=alert(1)>", mime=mime))._repr_html_()
    assert "<img" not in page and "data:" not in page and 'onerror="' not in page
    assert "not shown here" in page


def test_every_word_is_escaped():
    page = shown(text="<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<i>" not in page


def test_its_repr_is_short_and_the_same_each_time():
    assert (
        repr(shown(Image(data=b"x" * 16), Image(data=b"x" * 9, mime="image/webp")))
        == "<ImageResult of p/<i>m</i>, live: 2 images (image/png, 16 bytes, image/webp, 9 bytes)>"
    )
    assert repr(shown()) == "<ImageResult of p/<i>m</i>, live: 0 images ()>"


# --- pictures on the wire ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "claimed", "mime"),
    [
        (b"\x89PNG\r\n", None, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/png", "image/jpeg"),
        (b"RIFF1234WEBP", "application/octet-stream", "image/webp"),
        (b"RIFF1234WAVE", "audio/wav", None),
        (b"....ftypavif", "image/avif; q=1", "image/avif"),
        (b"<svg/>", "image/svg+xml", "image/svg+xml"),
        (b"{}", "application/json", None),
        (b"", "image/png", None),
    ],
)
def test_the_first_bytes_of_a_picture_say_what_it_is(data, claimed, mime):
    image = read_picture(data, claimed)
    assert (image and image.mime) == mime


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "%%%", "data:", "data:image/png", "data:text/html;base64,PGI+", "data:image/png,%89PNG", "https://x.example/a.png"],
)
def test_what_is_no_data_address_is_no_picture(text):
    assert read_data_url(text) is None


def test_base64_may_come_with_its_address():
    encoded = base64.b64encode(PNG).decode()
    assert read_base64(encoded) == read_base64(f"data:image/png;base64,{encoded}") == Image(data=PNG)
