"""``docs/providers.md`` says what the classes do."""

import inspect
import pathlib
import re

import pytest

from toolkit.errors import ConfigError
from toolkit.pricing.book import LISTS
from toolkit.providers.base import Provider
from toolkit.providers.registry import PROVIDERS, provider_class
from toolkit.types import ChatRequest, ImageRequest, Message

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "providers.md").read_text("utf-8")
ADDRESSES = {"azure": "http://127.0.0.1:9/openai/v1", "huggingface": "http://127.0.0.1:9/v1", "replicate": "http://127.0.0.1:9/v1"}
ASKED = {"model": "acme/m", "messages": (Message(role="user", content="hi"),)}
SEED = 918_273
PRICES = {"openai_compatible": "tables, at OpenAI", "openrouter": "stated in the answer, list", "replicate": "–"}


def provider(name):
    return provider_class(name)(base_url=ADDRESSES.get(name, "http://127.0.0.1:9"), api_key="k")


def works(do):
    """Whether the provider begins to do it, in place of refusing."""
    try:
        begun = do()
        if inspect.isgenerator(begun):
            next(begun)
    except ConfigError:
        return False
    return True


def mark(answer):
    return "yes" if answer else "–"


def prices(name):
    one = provider_class(name)
    if name in PRICES:
        return PRICES[name]
    if one.free or name == "ollama":
        return "local"
    lists = one.listed_price is not Provider.listed_price
    return {(True, False): "tables", (False, True): "list, tables"}[(name in LISTS, lists)]


def row(name):
    one = provider(name)
    chat = lambda **options: lambda: one.wire(ChatRequest(**ASKED, **options))  # noqa: E731
    cells = {
        "stream": works(lambda: one.reader(ChatRequest(**ASKED))),
        "images": works(lambda: one.image_wire(ImageRequest(model="acme/m", prompt="a bridge"))),
        "models": type(one).list_models is not Provider.list_models,
        "pull": works(lambda: one.pull_model("m")),
        "delete": works(lambda: one.delete_model("m")),
        "load": works(lambda: one.load_model("m", None)),
        "schema": works(chat(schema={"type": "object"})),
        "seed": str(SEED) in str(chat(seed=SEED)().body),
    }
    return f"| `{name}` | {' | '.join(map(mark, cells.values()))} | {prices(name)} |"


def variables(names):
    return ", ".join(f"`{name}`" for name in names) or "–"


def address_row(name):
    one = provider_class(name)
    keys = one.key_vars or tuple(filter(None, [one.key_var]))
    default = getattr(one, "base_url", "")
    there = "in this process" if ".invalid" in default else f"`{default}`" if isinstance(default, str) and default else "by its settings"
    return f"| `{name}` | {variables(keys)} | {variables(one.url_vars)} | {there} |"


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_the_tables_say_what_a_provider_does(name):
    assert row(name) in PAGE.splitlines(), f"docs/providers.md lacks\n{row(name)}"
    assert address_row(name) in PAGE.splitlines(), f"docs/providers.md lacks\n{address_row(name)}"


def test_there_is_a_section_a_provider_and_no_other_row():
    assert [name for name in re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) if name in PROVIDERS] == sorted(PROVIDERS)
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(PROVIDERS)
