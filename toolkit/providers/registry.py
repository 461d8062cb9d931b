"""Which provider is called what: the built-in ones, and those that installed packages register."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from ..errors import ConfigError
from .base import Provider

__all__ = ["PROVIDERS", "known_providers", "provider_class", "split_model"]

ENTRY_POINTS = "toolkit.providers"

PROVIDERS = {
    "azure": "toolkit.providers.azure:Azure",
    "cohere": "toolkit.providers.cohere:Cohere",
    "embedded": "toolkit.providers.embedded:Embedded",
    "huggingface": "toolkit.providers.huggingface:HuggingFace",
    "lmstudio": "toolkit.providers.lmstudio:LMStudio",
    "ollama": "toolkit.providers.ollama:Ollama",
    "openai_compatible": "toolkit.providers.openai_compatible:OpenAICompatible",
    "openrouter": "toolkit.providers.openrouter:OpenRouter",
    "replicate": "toolkit.providers.replicate:Replicate",
    "scripted": "toolkit.providers.scripted:Scripted",
    "vertex": "toolkit.providers.vertex:Vertex",
}


@cache
def installed() -> dict[str, str]:
    """Providers that other packages bring, by name."""
    from importlib.metadata import entry_points  # 20 ms, and most users never need it

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def known_providers() -> list[str]:
    """Return the names of all providers, sorted."""
    return sorted({*PROVIDERS, *installed()})


def provider_class(name: str) -> type[Provider]:
    """Return the class of a provider.

    Raises
    ------
    ConfigError
        If there is none of that name; the message lists the known ones.
    """
    place = PROVIDERS.get(name) or installed().get(name)
    if place is None:
        raise ConfigError(f"no provider is called {name!r}; there are {', '.join(known_providers())}")
    module, _, attribute = place.partition(":")
    found: type[Provider] = getattr(import_module(module), attribute)
    return found


def split_model(model: str) -> tuple[str, str]:
    """Split ``"provider/name"`` at its first slash.

    Raises
    ------
    ConfigError
        If it is not of that form.

    Examples
    --------
    >>> split_model("openai_compatible/org/model-7b")
    ('openai_compatible', 'org/model-7b')
    """
    provider, slash, name = model.partition("/") if isinstance(model, str) else ("", "", "")
    if not (provider and slash and name):
        raise ConfigError(
            f"a model is named 'provider/name', for example 'embedded/ngram-3'; got {model!r}. Providers: {', '.join(known_providers())}"
        )
    return provider, name
