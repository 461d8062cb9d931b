"""The scripted provider: answers, delays and failures from a script, for tests and lessons."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import httpx

from ..errors import ConfigError
from ..types import FinishReason, ToolCall, Usage
from .chat_completions import ChatCompletions
from .inprocess import Answering, Body, Ending, InProcess, Pause, Piece, StatusError, Work, last_user_text, message_text
from .key import ApiKey
from .ngram import tokenise

__all__ = ["Answer", "Failure", "ScriptService", "Scripted", "script"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scripted model says, and how fast.

    Parameters
    ----------
    text : str
        The answer. It is streamed in tokens: words with the blank before them, punctuation marks, white space.
    reasoning : str
        Thinking that comes before it.
    tool_calls : tuple of ToolCall
        Functions it wants called.
    finish_reason : str
        As the service reports it.
    first_token_s, per_token_s : float
        Seconds before the first token, and between one token and the next.
    usage : Usage, optional
        Token counts to report; by default those of the prompt and of the answer, as they are streamed.

    Examples
    --------
    >>> Answer("Lima.", first_token_s=0.2).text
    'Lima.'
    """

    text: str
    _: KW_ONLY
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    first_token_s: float = 0.0
    per_token_s: float = 0.0
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.first_token_s < float("inf") and 0 <= self.per_token_s < float("inf")):
            raise ConfigError("the delays of an Answer are seconds, zero or more")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a scripted model fails.

    Parameters
    ----------
    status : int
        HTTP status, 400 to 599.
    message : str
        What the service says about it.
    retry_after_s : float, optional
        Seconds after which it asks to be tried again.
    after_tokens : int, optional
        Fail inside the stream, after so many tokens of ``text``: as an error event, or by dropping the connection.
    drop : bool
        Drop the connection instead of saying anything.
    text : str
        What it was saying; the user's last message when empty.

    Examples
    --------
    >>> Failure(429, "slow down", retry_after_s=2).status
    429
    """

    status: int = 500
    message: str = "the script says that this call fails"
    _: KW_ONLY
    retry_after_s: float | None = None
    after_tokens: int | None = None
    drop: bool = False
    text: str = ""

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ConfigError(f"the status of a Failure is 400 to 599; got {self.status!r}")


Line = str | Answer | Failure
Talk = Callable[[str, dict[str, Any]], Line]  # the last user message and the JSON body of the request


class Turns:
    """Answers served in turn, to whoever asks next."""

    def __init__(self, name: str, lines: Sequence[Line], *, cycle: bool) -> None:
        self.name = name
        self.lines = lines
        self.cycle = cycle
        self.served = 0
        self.lock = threading.Lock()

    def __call__(self, _prompt: str, _body: Body) -> Line:
        with self.lock:
            turn = self.served
            self.served += 1
        if turn >= len(self.lines) and not self.cycle:
            return Failure(400, f"the script {self.name!r} is over: it has {len(self.lines)} answers")
        return self.lines[turn % len(self.lines)]


# --- the built-in models -------------------------------------------------------------------------------------------------


def echo(prompt: str, _body: Body) -> Line:
    return prompt


def slow(prompt: str, _body: Body) -> Line:
    return Answer(prompt, first_token_s=0.4, per_token_s=0.04)


def broken(_prompt: str, _body: Body) -> Line:
    return Failure(500, "this model always fails")


class Flaky:
    """Fails the first time it sees a prompt."""

    REMEMBERED = 10_000

    def __init__(self) -> None:
        self.seen: dict[str, None] = {}
        self.lock = threading.Lock()

    def __call__(self, prompt: str, _body: Body) -> Line:
        with self.lock:
            if prompt in self.seen:
                return prompt
            self.seen[prompt] = None
            if len(self.seen) > self.REMEMBERED:
                del self.seen[next(iter(self.seen))]
        return Failure(503, "busy; the next attempt will do")


BUILT_IN = ("broken", "echo", "flaky", "slow")

scripts: dict[str, Talk] = {}
"""The scripts of this process; the notebook that writes one and the client that plays it have nothing else in common."""


def script(name: str, answers: Iterable[Line] | Talk, *, cycle: bool = True) -> str:
    """Give this process a model ``scripted/<name>`` and return that name. A script of the same name is replaced.

    Parameters
    ----------
    name : str
        Name of the model.
    answers : iterable of str, Answer or Failure; or callable
        What it says, call by call, in whatever thread. A callable is given the user's last message and the JSON body of the
        request, and returns one of the three.
    cycle : bool
        Whether to begin again after the last answer; otherwise further calls fail with status 400.

    Raises
    ------
    ConfigError
        If the name is that of a built-in model (``broken``, ``echo``, ``flaky``, ``slow``) or there is nothing to say.

    Examples
    --------
    >>> script("capitals", ["Lima.", Failure(503), Answer("Oslo.", first_token_s=0.2)])
    'scripted/capitals'
    """
    if not isinstance(name, str) or not name or name in BUILT_IN:
        raise ConfigError(f"a script needs a name of its own, not {name!r}; built in are {', '.join(BUILT_IN)}")
    scripts[name] = answers if callable(answers) else Turns(name, read_lines(name, answers), cycle=cycle)
    return f"scripted/{name}"


def read_lines(name: str, answers: Iterable[Line]) -> list[Line]:
    if isinstance(answers, str):
        raise ConfigError(f"the script {name!r} is a list of answers; for a single one write [{answers!r}]")
    lines = [checked(name, line) for line in answers]
    if not lines:
        raise ConfigError(f"the script {name!r} has no answers")
    return lines


def checked(name: str, line: object) -> Line:
    if not isinstance(line, str | Answer | Failure):
        raise ConfigError(f"the script {name!r} says str, Answer or Failure; got {type(line).__name__}")
    return line


# --- the provider --------------------------------------------------------------------------------------------------------


class Scripted(ChatCompletions):
    """Models that say what a script says: the built-in ``echo``, ``slow``, ``flaky`` and ``broken``, and those of ``script()``.

    ``echo`` gives back the user's last message; ``slow`` does so after 0.4 s, a token each 0.04 s; ``flaky`` fails with status
    503 the first time it sees a prompt; ``broken`` always fails with status 500.

    Parameters
    ----------
    base_url, api_key : str, optional
        As for every provider; nothing is sent anywhere.
    sleep, async_sleep : callable
        How to wait, for tests that don't want to.

    Examples
    --------
    >>> Scripted()
    <Scripted at http://scripted.invalid/v1>
    """

    name = "scripted"
    base_url = "http://scripted.invalid/v1"
    where = "in this process"
    free = True

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: ApiKey | None = None,
        sleep: Callable[[float], object] = time.sleep,
        async_sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(base_url=base_url, api_key=api_key)
        self.server = InProcess(ScriptService(), sleep=sleep, async_sleep=async_sleep)

    def transport(self) -> InProcess:
        return self.server


class ScriptService:
    """Who answers for the scripted models."""

    name = "scripted"

    def __init__(self) -> None:
        self.built_in: dict[str, Talk] = {"broken": broken, "echo": echo, "flaky": Flaky(), "slow": slow}

    def models(self) -> list[str]:
        return sorted({*self.built_in, *scripts})

    def answer(self, body: Body) -> Answering:
        name = body["model"]
        talk = self.built_in.get(name) or scripts.get(name)
        if talk is None:
            raise StatusError(404, f"no script is called {name!r}; there are {', '.join(self.models())}")
        prompt = last_user_text(body)
        # A function of the user's own may take its time, and others have their answers measured meanwhile.
        said = talk(prompt, body) if name in self.built_in or isinstance(talk, Turns) else (yield Work(partial(talk, prompt, body)))
        line = checked(name, said)
        if isinstance(line, Failure):
            return (yield from fail(line, prompt))
        answer = Answer(line) if isinstance(line, str) else line
        thoughts, words = tokenise(answer.reasoning), tokenise(answer.text)
        yield from say(answer, thoughts, words)
        return Ending(answer.finish_reason, answer.usage or count(len(thoughts), len(words), body))


def say(answer: Answer, thoughts: list[str], words: list[str]) -> Generator[Piece | Pause, Any, None]:
    pieces = [*[Piece("", token) for token in thoughts], *map(Piece, words)]
    if answer.tool_calls:
        pieces.append(Piece(tool_calls=answer.tool_calls))
    pause = answer.first_token_s
    for piece in pieces:
        if pause:
            yield Pause(pause)
        yield piece
        pause = answer.per_token_s


def fail(failure: Failure, prompt: str) -> Answering:
    if failure.after_tokens:
        for token in tokenise(failure.text or prompt)[: failure.after_tokens]:
            yield Piece(token)
    if failure.drop:
        raise httpx.ReadError("the script drops the connection")
    raise StatusError(failure.status, failure.message, retry_after_s=failure.retry_after_s)


def count(thoughts: int, words: int, body: Body) -> Usage:
    return Usage(
        input_tokens=sum([len(tokenise(message_text(message))) for message in body["messages"]]),
        output_tokens=thoughts + words,
        reasoning_tokens=thoughts or None,
    )
