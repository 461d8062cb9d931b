"""Which model is asked in the end: aliases, and who stands in for a model that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .errors import ConfigError, ProviderError
from .providers.registry import provider_class, split_model
from .wire.steps import Steps, T

__all__ = ["Routing", "ask_in_turn"]


class Routing:
    """Names of a user's own for models, and stand-ins.

    Parameters
    ----------
    aliases : mapping
        A name without a slash to ``"provider/name"``.
    fallbacks : mapping
        ``"provider/name"``, or an alias, to the models to ask in turn when it fails.

    Raises
    ------
    ConfigError
        If an alias has a slash or names another alias, or a provider is unknown.
    """

    def __init__(self, aliases: Mapping[str, str] | None = None, fallbacks: Mapping[str, Sequence[str]] | None = None) -> None:
        self._aliases = dict(aliases or {})
        for alias, model in self._aliases.items():
            if "/" in alias:
                raise ConfigError(f"the alias {alias!r} has a slash and would hide a model; choose a name without one")
            check_model(model)
        self._fallbacks: dict[str, tuple[str, ...]] = {}
        for model, others in (fallbacks or {}).items():
            if isinstance(others, str):
                raise ConfigError(f"fallbacks={{{model!r}: ...}} takes a list of models; write [{others!r}] for one")
            self._fallbacks[self.resolve(model)] = tuple(self.resolve(other) for other in others)
        for models in ((model, *others) for model, others in self._fallbacks.items()):
            for model in models:
                check_model(model)

    def resolve(self, model: str) -> str:
        """Return the model that a name stands for."""
        return self._aliases.get(model, model) if isinstance(model, str) else model

    def fallbacks(self, model: str) -> tuple[str, ...]:
        """Return the models that stand in for one."""
        return self._fallbacks.get(model, ())


def ask_in_turn(first: Steps[T], others: Sequence[str], ask: Callable[[str], Steps[T]]) -> Steps[T]:
    """Carry out a call and, while calls fail, the same with the next of the other models; the last error reaches the caller.

    A stream that has begun is not begun again by another model.
    """
    steps = first
    for other in others:
        try:
            return (yield from steps)
        except ProviderError as error:
            if error.emitted:
                raise
        steps = ask(other)
    return (yield from steps)


def check_model(model: str) -> None:
    provider_class(split_model(model)[0])
