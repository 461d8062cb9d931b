"""Prices: the arithmetic, where they come from, and that a neighbour's price is never taken for one's own."""

import datetime
import json
import subprocess
import sys
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from servers.azure import AzureService
from servers.chat_completions import USAGE, ChatService
from servers.huggingface import HuggingFaceService
from servers.ollama import OllamaService
from toolkit import Client
from toolkit.pricing import LOCAL, Price, PriceBook, at_standard_rates, cost_of, price_in, price_sources
from toolkit.pricing.book import TABLE, Source, installed, read_price
from toolkit.pricing.genai import read_lists
from toolkit.types import Usage

TABLE_JSON = json.loads(TABLE.read_text("utf-8"))
NOON = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC).timestamp()
BOOK = PriceBook(wall=lambda: NOON)
FLASH_IMAGE = price_in("google", "gemini-3.1-flash-image", NOON)


# --- arithmetic ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "usage", "pictures", "total"),
    [
        ("azure/gpt-4o", Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=800), None, 0.0025),
        ("vertex/gemini-2.5-pro", Usage(input_tokens=250_000, output_tokens=100), None, 0.6265),
        ("vertex/gemini-3.1-flash-image", Usage(input_tokens=10, output_tokens=1295), 1290, 0.07742),
        ("azure/gpt-4o", Usage(input_tokens=1000, output_tokens=1, cached_input_tokens=2000), None, None),
        ("cohere/command-a-03-2025", Usage(input_tokens=45, output_tokens=14), None, 0.0002525),
    ],
)
def test_the_hand_checked_cases_come_out(model, usage, pictures, total):
    assert cost_of(usage, BOOK(model), image_output_tokens=pictures) == (None if total is None else pytest.approx(total, rel=1e-12))


@pytest.mark.parametrize(("tokens", "total"), [(200_000, 200_000 * 1.25), (200_001, 200_001 * 2.5)])
def test_a_tier_is_a_cliff_for_all_tokens(tokens, total):
    assert cost_of(Usage(input_tokens=tokens, output_tokens=0), BOOK("vertex/gemini-2.5-pro")) == pytest.approx(total / 1e6)


def test_the_highest_tier_that_is_passed_counts_whatever_their_order():
    price = Price(input=1, output=0, above=((20, Price(input=3, output=0)), (10, Price(input=2, output=0))))
    assert [price.at(tokens).input for tokens in (10, 11, 20, 21)] == [1, 2, 2, 3]


def test_thoughts_cost_what_the_answer_costs_unless_they_have_a_rate_of_their_own():
    usage = Usage(input_tokens=0, output_tokens=100, reasoning_tokens=60)
    assert cost_of(usage, Price(input=1, output=10)) == pytest.approx(100 * 10 / 1e6)
    assert cost_of(usage, Price(input=1, output=10, reasoning=5)) == pytest.approx((40 * 10 + 60 * 5) / 1e6)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(input_tokens=3),
        Usage(output_tokens=3),
        Usage(input_tokens=3, output_tokens=3, cached_input_tokens=4),
        Usage(input_tokens=3, output_tokens=3, reasoning_tokens=4),
    ],
)
def test_counts_that_are_missing_or_contradict_each_other_cost_nobody_knows_what(usage):
    assert cost_of(usage, Price(input=1, output=2)) is None
    assert cost_of(usage, LOCAL) == 0.0


def test_an_answer_with_pictures_has_no_cost_where_nobody_counted_them():
    assert cost_of(Usage(input_tokens=10, output_tokens=1295), FLASH_IMAGE) is None


# --- names -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o-super", "gpt-4o-mini-2", "gpt-9", "my-gpt-4o", "model-router"])
def test_a_name_that_only_begins_like_a_listed_one_has_no_price(model):
    listed = model in TABLE_JSON["lists"]["openai"]
    assert (BOOK(f"azure/{model}") is not None) == listed == (model == "gpt-4")


def test_a_model_newer_than_its_list_has_no_price():
    assert BOOK("cohere/command-a-plus-05-2026") is None
    assert BOOK("vertex/gemini-4-hydrogen") is None


@pytest.mark.parametrize("ending", ["-2031-01-31", "-20310131", "-01-2031", "-001"])
def test_a_dated_name_that_is_not_listed_costs_what_the_undated_one_does_and_says_so(ending):
    price = BOOK(f"cohere/command-r{ending}")
    assert (price.input, price.date) == (0.15, f"2026-11-23 ({TABLE_JSON['source']}, as command-r)")
    assert BOOK(f"vertex/gemini-2.5-pro{ending}").at(300_000).date.endswith("as gemini-2.5-pro)")


def test_a_dated_name_that_is_listed_has_its_own_price():
    assert BOOK("azure/gpt-4o-2024-05-13").input == 5.0
    assert BOOK("azure/gpt-4o-2024-05-13").date == f"2026-11-23 ({TABLE_JSON['source']})"


def test_a_price_changes_on_its_day():
    source = Source(
        {"acme": {"m": [["", {"input": 1, "output": 2}], ["2026-12-01", {"input": 3, "output": 4}]]}}, lambda day: f"seen {day}"
    )
    assert [source.find("acme", "m", day).input for day in ("2026-11-30", "2026-12-01", "2027-01-01")] == [1, 3, 3]
    assert source.find("acme", "m", "2026-11-30").date == "seen 2026-11-30"
    assert price_in("google", "gemini-4-argon", NOON) != price_in("google", "gemini-4-argon", NOON + 30 * 86_400)


def test_a_service_without_a_list_has_no_prices_of_ours():
    assert [BOOK(f"{provider}/gpt-4o") for provider in ("openrouter", "openai_compatible", "replicate", "ollama")] == [None] * 4


def test_the_callers_own_price_counts_first():
    own = Price(input=7, output=7)
    assert PriceBook({"azure/gpt-4o": own})("azure/gpt-4o") is own


# --- the table and its source ----------------------------------------------------------------------------------------------------


def test_the_shipped_table_is_what_its_source_says():
    """After an update of genai-prices: run scripts/refresh_prices.py."""
    assert TABLE_JSON["source"] == f"genai-prices {genai_prices.__version__}"
    assert TABLE_JSON["lists"] == read_lists()
    assert datetime.date.fromisoformat(TABLE_JSON["as_of"]) <= datetime.datetime.now(datetime.UTC).date()
    assert "MIT" in TABLE_JSON["license"]


def test_each_cost_by_the_table_is_that_of_its_source():
    noon = datetime.datetime.fromtimestamp(NOON, datetime.UTC)
    compared = 0
    for provider in get_snapshot().providers:
        rows = TABLE_JSON["lists"].get(provider.id, {})
        for model in provider.models:
            price = price_in(provider.id, model.id, NOON) if isinstance(rows.get(model.id.lower()), list) else None
            for asked in (1000, 500_000) if price else ():
                counts = {"input_tokens": asked, "output_tokens": 700}
                pictures = 300 if price.image_output is not None else None
                theirs = model.calc_price(
                    genai_prices.Usage(**counts, cache_read_tokens=400, **({"output_image_tokens": pictures} if pictures else {})),
                    provider,
                    genai_request_timestamp=noon,
                    auto_update_timestamp=None,
                )
                ours = cost_of(Usage(**counts, cached_input_tokens=400), price, image_output_tokens=pictures)
                assert ours == pytest.approx(float(theirs.total_price), rel=1e-9), (provider.id, model.id)
                compared += 1
    assert compared > 500


def test_a_package_of_another_version_is_read_and_dated_by_the_day():
    source = installed("genai-prices 0.0.1")
    assert source.find("openai", "gpt-4o", "2026-11-24").date == f"2026-11-24 (genai-prices {genai_prices.__version__})"
    assert installed(f"genai-prices {genai_prices.__version__}") is None


def test_a_price_is_found_without_the_long_import_of_the_package():
    code = (
        "import sys, toolkit; from toolkit.pricing import PriceBook; assert PriceBook()('azure/gpt-4o').input;"
        "assert not {'genai_prices', 'pydantic', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_sources_are_told_with_their_day():
    (shipped,) = price_sources()
    assert shipped.name == f"{TABLE_JSON['as_of']} ({TABLE_JSON['source']})"
    assert shipped.models > 500


def test_rates_are_read_without_noise_of_binary_floats():
    rates = [rate for rows in TABLE_JSON["lists"].values() for history in rows.values() if isinstance(history, list) for _, rate in history]
    assert all(Decimal(str(rate["input"])).as_tuple().exponent >= -9 for rate in rates)
    assert all(read_price(rate, "").input >= 0 for rate in rates)


# --- of calls --------------------------------------------------------------------------------------------------------------------


def ask(service, provider, model, path="/v1", **options):
    with service.serve() as server, Client(base_urls={provider: server.url + path}, cache=False, journal=False, **options) as client:
        return client.generate_text(f"{provider}/{model}", "hi")


class Deployment(AzureService):
    """A deployment of gpt-4o under another name, demo-small."""

    def whole(self):
        return {**super().whole(), "model": "gpt-4o-2024-08-06"}


def test_a_deployment_costs_what_the_model_behind_it_does():
    done = ask(Deployment(), "azure", "demo-small", "/openai/v1")
    cached = USAGE["prompt_tokens_details"]["cached_tokens"]
    assert done.cost_usd == pytest.approx(((USAGE["prompt_tokens"] - cached) * 2.5 + cached * 1.25 + USAGE["completion_tokens"] * 10) / 1e6)
    assert done.price_date == f"{TABLE_JSON['as_of']} ({TABLE_JSON['source']})"


class Misnamed(AzureService):
    """A deployment named gpt-4o that runs another model."""

    def __init__(self, behind):
        super().__init__(deployments=("gpt-4o",))
        self.behind = behind

    def whole(self):
        return {**super().whole(), "model": self.behind}


def test_a_deployment_named_after_another_model_costs_what_answered():
    honest = ask(Misnamed("gpt-4o-2024-08-06"), "azure", "gpt-4o", "/openai/v1")
    smaller = ask(Misnamed("gpt-4o-mini"), "azure", "gpt-4o", "/openai/v1")
    assert smaller.served_model == "gpt-4o-mini" and smaller.cost_usd < honest.cost_usd / 10
    assert ask(Misnamed("house-model-7"), "azure", "gpt-4o", "/openai/v1").cost_usd is None


def test_the_callers_price_of_what_he_asked_for_goes_before_that_of_what_answered_and_both_before_a_list():
    paid = [
        ask(Misnamed("gpt-4o-mini"), "azure", "gpt-4o", "/openai/v1", prices=prices).cost_usd
        for prices in (
            {"azure/gpt-4o": Price(input=1e6, output=0), "azure/gpt-4o-mini": Price(input=2e6, output=0)},
            {"azure/gpt-4o-mini": Price(input=2e6, output=0)},
        )
    ]
    assert paid == [USAGE["prompt_tokens"], 2 * USAGE["prompt_tokens"]]


class Tiered(AzureService):
    """Tells the service tier that answered."""

    def __init__(self, tier):
        super().__init__(deployments=("gpt-4o",))
        self.tier = tier

    def whole(self):
        return {**super().whole(), "model": "gpt-4o", "service_tier": self.tier}


@pytest.mark.parametrize(("tier", "known"), [("default", True), ("auto", True), (None, True), ("flex", False), ("priority", False)])
def test_a_tier_that_the_lists_do_not_price_has_an_unknown_cost(tier, known):
    done = ask(Tiered(tier), "azure", "gpt-4o", "/openai/v1")
    assert (done.cost_usd is not None) == known
    assert done.reported.get("service_tier") == tier
    assert ask(Tiered(tier), "azure", "gpt-4o", "/openai/v1", prices={"azure/gpt-4o": Price(input=1, output=1)}).cost_usd > 0


@pytest.mark.parametrize(("traffic", "known"), [("ON_DEMAND", True), ("ON_DEMAND_FLEX", False), ("PROVISIONED_THROUGHPUT", False)])
def test_googles_kinds_of_traffic_are_such_tiers(traffic, known):
    assert at_standard_rates({"traffic_type": traffic}) == known


def test_a_route_of_hugging_face_has_its_own_price_and_no_route_has_none():
    (model,) = [name for name in TABLE_JSON["lists"]["huggingface_groq"] if name == "qwen/qwen3-32b"]
    pinned = ask(HuggingFaceService(models=[{"id": "x"}]), "huggingface", f"{model}:groq")
    assert pinned.cost_usd > 0
    assert ask(HuggingFaceService(), "huggingface", model).cost_usd is None
    assert ask(HuggingFaceService(), "huggingface", f"{model}:fastest").cost_usd is None


def test_an_unknown_price_is_none_and_never_nothing():
    done = ask(ChatService(), "openai_compatible", "demo-small")
    assert (done.cost_usd, done.price_date) == (None, None)


def test_a_model_on_this_machine_costs_nothing_and_says_why():
    done = ask(OllamaService(), "ollama", "alpine:4b", "")
    assert (done.cost_usd, done.price_date) == (0.0, "local")
    done = ask(ChatService(), "lmstudio", "demo-small")
    assert (done.cost_usd, done.price_date) == (0.0, "local")


@pytest.mark.parametrize("model", ["alpine:cloud", "alpine:4b-cloud"])
def test_a_model_that_a_local_ollama_hands_on_has_an_unknown_cost(model):
    done = ask(OllamaService(models={model: 1}), "ollama", model, "")
    assert (done.cost_usd, done.price_date) == (None, None)
