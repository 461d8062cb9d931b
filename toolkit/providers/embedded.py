"""The embedded provider: n-gram language models that run in this process, for trying the toolkit without a key or a network."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import settings
from ..keys import Wire
from ..types import ChatRequest, Usage
from .chat_completions import ChatCompletions
from .inprocess import Answering, Body, Ending, InProcess, Pause, Piece, StatusError, Work, message_text
from .key import ApiKey
from .ngram import ORDERS, Ended, Index, NgramModel, load_index, tokenise

__all__ = ["Embedded", "NgramService"]

MODELS = {f"ngram-{order}": order for order in ORDERS}
MAX_TOKENS = 64
MOST_ALTERNATIVES = 20
BREATH = 8
"""An event loop turns to its other tasks after so many tokens."""

SAMPLING = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "n", "logprobs", "top_logprobs")
KNOWN = frozenset({"model", "messages", "stream", "stream_options", "response_format", *SAMPLING})


class Embedded(ChatCompletions):
    """Five tiny statistical models, ``embedded/ngram-1`` to ``embedded/ngram-5``, free and always there.

    They know which token follows which in the help topics of this Python, and nothing else: what they write looks like the
    manual and means nothing. They are no source of truth. What surrounds the text is real: sampling (``temperature``, ``top_p``,
    ``seed``, ``stop``, ``max_tokens``, 64 by default), streams, token counts, log-probabilities, errors. They continue the last
    message and can't follow a ``schema``.

    The models are trained on first use (half a second) and kept in the folder ``models`` of the toolkit's home.

    Parameters
    ----------
    base_url, api_key : str, optional
        As for every provider; nothing is sent anywhere.
    models_dir : pathlib.Path, optional
        Where the trained models are kept instead. It must be the user's own: the file in it is a pickle.

    Examples
    --------
    >>> Embedded(models_dir=Path("models"))
    <Embedded at http://embedded.invalid/v1>
    """

    name = "embedded"
    base_url = "http://embedded.invalid/v1"
    where = "in this process"
    free = True
    computes_here = True

    def __init__(self, *, base_url: str | None = None, api_key: ApiKey | None = None, models_dir: Path | None = None) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        self.server = InProcess(NgramService(models_dir))

    def transport(self) -> InProcess:
        return self.server

    def wire(self, request: ChatRequest) -> Wire:
        if request.schema is not None:
            self.refuse("schema", "an n-gram model can't be held to a structure")
        return super().wire(request)


class NgramService:
    """Who answers for the embedded models; one index, loaded once, serves them all."""

    name = "embedded"

    def __init__(self, models_dir: Path | None = None) -> None:
        self.models_dir = models_dir
        self.index: Index | None = None
        self.loaded: dict[str, NgramModel] = {}
        self.lock = threading.Lock()

    def models(self) -> list[str]:
        return list(MODELS)

    def answer(self, body: Body) -> Answering:
        name = body["model"]
        if name not in MODELS:
            raise StatusError(404, f"no model is called {name!r}; there are {', '.join(MODELS)}")
        options = read_options(body)
        texts = [read_text(message) for message in body["messages"]]
        model = self.loaded.get(name) or (yield Work(partial(self.load, name)))
        ended = yield from breathing(
            model.generate(
                texts[-1],
                temperature=options.temperature,
                top_p=options.top_p,
                seed=options.seed,
                stop=options.stop,
                max_tokens=options.max_tokens,
                top_logprobs=options.top_logprobs,
            )
        )
        prompt_tokens = sum(len(tokenise(text)) for text in texts)
        return Ending(ended.finish_reason, Usage(input_tokens=prompt_tokens, output_tokens=ended.tokens))

    def load(self, name: str) -> NgramModel:
        """Return a model, trained or read from its file by the first who asks."""
        with self.lock:
            if self.index is None:
                self.index = load_index(self.models_dir or settings.home() / "models")
            if name not in self.loaded:
                self.loaded[name] = NgramModel(self.index, MODELS[name])
            return self.loaded[name]


def breathing(pieces: Generator[Piece, None, Ended]) -> Generator[Piece | Pause, None, Ended]:
    """The same pieces, with room for other tasks of an event loop between them."""
    count = 0
    while True:
        try:
            yield next(pieces)
        except StopIteration as end:
            ended: Ended = end.value
            return ended
        count += 1
        if count % BREATH == 0:
            yield Pause(0)


# --- reading a request ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    max_tokens: int
    top_logprobs: int | None


def read_options(body: Body) -> Options:
    """Check every option; one that is not known is refused, for ignoring it would pretend."""
    refuse_unknown(body)
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return Options(
        temperature=number(body, "temperature", 1.0, lambda value: value >= 0, "a number of at least 0"),
        top_p=number(body, "top_p", 1.0, lambda value: 0 < value <= 1, "a number above 0 and at most 1"),
        seed=None if body.get("seed") is None else integer(body, "seed", 0, -math.inf, math.inf),
        stop=read_stop(body),
        max_tokens=integer(body, limit, MAX_TOKENS, 1, math.inf),
        top_logprobs=read_top_logprobs(body),
    )


def refuse_unknown(body: Body) -> None:
    kind = body.get("response_format")
    if kind is not None and kind != {"type": "text"}:
        raise StatusError(400, "response_format is not supported: an n-gram model can't be held to a structure")
    if integer(body, "n", 1, 1, math.inf) != 1:
        raise StatusError(400, f"n must be 1: there is one answer to a request; got {body['n']!r}")
    unknown = sorted(name for name, value in body.items() if value is not None and name not in KNOWN)
    if unknown:
        raise StatusError(400, f"there is no option {', '.join(unknown)}; there are {', '.join(SAMPLING)}")


def number(body: Body, name: str, default: float, fits: Callable[[float], bool], wanted: str) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not fits(value):
        raise StatusError(400, f"{name} must be {wanted}; got {value!r}")
    return float(value)


def integer(body: Body, name: str, default: int, low: float, high: float) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        span = "" if low == -math.inf else f" of at least {low}" if high == math.inf else f" from {low} to {high}"
        raise StatusError(400, f"{name} must be a whole number{span}; got {value!r}")
    return value


def read_stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise StatusError(400, f"stop must be a text or a list of texts, none of them empty; got {stop!r}")
    return tuple(stops)


def read_top_logprobs(body: Body) -> int | None:
    wanted = body.get("logprobs")
    if wanted is not None and not isinstance(wanted, bool):
        raise StatusError(400, f"logprobs must be true or false; got {wanted!r}")
    count = integer(body, "top_logprobs", 0, 0, MOST_ALTERNATIVES)
    if count and not wanted:
        raise StatusError(400, "top_logprobs needs logprobs: true")
    return count if wanted else None


def read_text(message: Body) -> str:
    """The words of a message that holds nothing else."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    if not isinstance(content, str | list | None) or not all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
        raise StatusError(400, "an n-gram model reads text only: the content of a message is a text or a list of text parts")
    return message_text(message)
