"""Pictures as the answers of a comparison: what is asked for, and how a table shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..client import ImageOptions, Options
from ..errors import ConfigError
from ..render import html_picture, size
from ..types import SHOWN_TYPES, Image
from .grid import Plan
from .scorers import SCORERS, read_scorers

__all__ = ["Kind", "Pictures", "check_pictures", "draws", "wanted_options"]

Kind = Literal["text", "image"]

FOR_PICTURES = ("size", "n", "seed", "timeout_s", "extra")


class Pictures(tuple[Image, ...]):
    """The pictures of one answer; as text, how many there are and their size."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{len(self)} picture{'s' * (len(self) != 1)}, {size(sum(len(image.data) for image in self))}"

    __repr__ = __str__

    def html(self) -> str:
        """The pictures themselves, scaled down; kinds that can carry scripts are only named."""
        return "".join(html_picture(image.mime, image.data if image.mime in SHOWN_TYPES else None) for image in self)


def wanted_options(kind: Kind, options: Mapping[str, Any]) -> Options | ImageOptions:  # each option has its own type
    """Return the options of a kind of answer.

    Raises
    ------
    ConfigError
        For another kind, or an option that the kind does not have.
    """
    if kind not in ("text", "image"):
        raise ConfigError(f"kind={kind!r}: it is 'text' or 'image'")
    given = {name: value for name, value in options.items() if value is not None}
    fitting = FOR_PICTURES if kind == "image" else tuple(name for name in options if name not in ("size", "n"))
    if wrong := [name for name in given if name not in fitting]:
        raise ConfigError(f"{wrong[0]}= does not go with kind={kind!r}; that takes {', '.join(fitting)}")
    return ImageOptions(**given) if kind == "image" else Options(**given)


def draws(plan: Plan) -> bool:
    """Whether a plan asks for pictures."""
    return isinstance(plan.variants[0].options, ImageOptions)


def check_pictures(plan: Plan, *, scorers: Any, fan_out: object) -> None:  # scorers: see compare
    """Refuse what can't be done with pictures, before anything is asked.

    Raises
    ------
    ConfigError
    """
    if not draws(plan):
        return
    if fan_out is not None:
        refuse_for_pictures("n_jobs= and joblib.parallel_config", "ask them from this process")
    if named := [name for name, scorer in read_scorers(scorers).items() if scorer is SCORERS.get(name)]:
        refuse_for_pictures(f"the scorer {named[0]}", "it reads words; a callable of yours gets the ImageResult")
    if any(not isinstance(question.prompt, str) for question in plan.questions):
        refuse_for_pictures("a list of messages as prompt", "write it as one string")


def refuse_for_pictures(what: str, instead: str) -> None:
    raise ConfigError(f"{what} does not work with pictures (kind='image'): {instead}")
