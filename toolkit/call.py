"""One call as steps: look up, join, send, wait, keep. The heart of the toolkit; no I/O happens here.

Every second of a call is booked to exactly one part (see ``timing.Ledger``), so the parts of its timing add up to the total.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import httpx

from .cache.base import MISS, Found
from .cache.flights import Failed, Flight, Landed
from .cache.frozen import freeze
from .errors import (
    CacheMiss,
    ConfigError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitError,
    ReplyError,
    StreamInterrupted,
    ToolkitError,
    UnreachableError,
    forget_locals,
)
from .keys import Wire, key_of
from .monitor.outcomes import CallContext, Outcome
from .pricing import Price, PriceBook, at_standard_rates, cost_of
from .providers.base import DEFAULT_TIMEOUT_S, Provider, Reader
from .timing import Ledger, LoopDelays
from .types import CacheMode, ChatRequest, Completion, ImageReply, ImageRequest, ImageResult, Kept, Provenance, Reply, StreamEvent, Timing
from .wire.fastjson import check_depth
from .wire.limiter import Limiter
from .wire.retry import Retry
from .wire.size import TooLargeError
from .wire.steps import Emit, Join, Keep, Lookup, Read, ReaderLeft, Send, Sleep, Steps, T
from .wire.waits import Waits

__all__ = ["ChatQuestion", "ImageQuestion", "Observer", "Policy", "Question", "ask", "exchange"]

DEFAULT_RETRY = Retry()
LISTED_PRICES = PriceBook()
SHORTEST_READ_S = 0.001  # a limit of zero would mean: don't wait at all

Observer = Callable[[Outcome], None]
"""Told how a call ended, after it is recorded."""

ResultT = TypeVar("ResultT", Completion, ImageResult)
ResultT_co = TypeVar("ResultT_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a call is carried out: what the client decides once for all its calls."""

    retry: Retry = DEFAULT_RETRY
    prices: PriceBook = LISTED_PRICES
    limiter: Callable[[Provider], Limiter] = lambda _provider: Limiter(timer=time.monotonic)
    record: Callable[[Outcome], None] = lambda _outcome: None
    record_content: bool = True
    clock: Callable[[], float] = time.perf_counter
    wall: Callable[[], float] = time.time
    delays: LoopDelays | None = None
    """Of the event loop, where there is one."""
    waits: Waits = field(default_factory=Waits)


class CallIds:
    """Ids without a system call each: random per process, then counted. A forked child draws anew."""

    def __init__(self) -> None:
        self.begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self.prefix = os.urandom(8).hex()
        self.count = itertools.count()

    def __call__(self) -> str:
        return f"{self.prefix}{next(self.count):08x}"


new_call_id = CallIds()


# --- what can be asked -----------------------------------------------------------------------------------------------------


class Question(Protocol[ResultT_co]):
    """What kind of thing is asked for; a call does the same for all of them."""

    @property
    def request(self) -> ChatRequest | ImageRequest: ...

    def wire(self, provider: Provider) -> Wire:
        """Put it into the service's words."""
        ...

    def answer(self, provider: Provider, wire: Wire) -> Steps[Reply | ImageReply]:
        """Ask the service for a whole answer."""
        ...

    def parse(self, reply: Any) -> Any:  # what ``answer`` gives; whatever the caller's schema describes
        """Read the value in an answer; raise where it is not what was asked for: such an answer is not kept."""
        ...

    def result(self, reply: Any, parsed: Any, facts: dict[str, Any], /) -> ResultT_co:  # of ``answer`` and ``parse``; fields of any result
        """Make what the caller gets."""
        ...


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    """Asks for words; ``read`` makes a value of an answer's text where the request has a schema."""

    request: ChatRequest
    read: Callable[[str], Any] = json.loads  # whatever the schema describes

    def wire(self, provider: Provider) -> Wire:
        return provider.wire(self.request)

    def answer(self, provider: Provider, wire: Wire) -> Steps[Reply]:
        return provider.answer(self.request, wire)

    def parse(self, reply: Reply) -> Any:  # whatever the schema describes
        if self.request.schema is None or reply.finish_reason == "tool_calls":
            return None
        try:
            parsed = self.read(reply.text)
            check_depth(parsed)
            return parsed
        except (ValueError, RecursionError) as exc:
            model, why = self.request.model, "it was cut by max_tokens" if reply.finish_reason == "length" else str(exc)
            raise ReplyError(
                f"the answer of {model} is not the JSON that schema= asks for: {why}", model=model, partial=reply.text
            ) from exc

    def result(self, reply: Reply, parsed: Any, facts: dict[str, Any], /) -> Completion:  # see parse
        return Completion(
            reasoning=reply.reasoning,
            parsed=parsed,
            tool_calls=reply.tool_calls,
            finish_reason=reply.finish_reason,
            logprobs=reply.logprobs,
            **facts,
        )


@dataclass(frozen=True, slots=True)
class ImageQuestion:
    """Asks for pictures."""

    request: ImageRequest

    def wire(self, provider: Provider) -> Wire:
        return provider.image_wire(self.request)

    def answer(self, provider: Provider, wire: Wire) -> Steps[ImageReply]:
        return provider.make_images(self.request, wire)

    def parse(self, reply: ImageReply) -> None:
        """A provider that finds no picture in an answer has said so already."""

    def result(self, reply: ImageReply, _parsed: None, facts: dict[str, Any], /) -> ImageResult:
        return ImageResult(images=reply.images, **facts)


# --- a call ----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    """The facts of one call while it is under way."""

    provider: Provider
    question: Question[Any]
    context: CallContext
    policy: Policy
    ledger: Ledger
    at: float
    call_id: str
    stream: bool
    emit: bool
    replay_recorded: bool
    observe: Observer | None
    wire: Wire | None = field(default=None, repr=False)  # its address may hold a password
    key: str | None = None
    attempts: int = 0
    emitted: bool = False
    provenance: Provenance = "live"

    @property
    def request(self) -> ChatRequest | ImageRequest:
        return self.question.request

    def waiting(self, reason: str) -> AbstractContextManager[None]:
        """Let whoever watches know that the call waits, as long as it does."""
        return self.policy.waits.noted(self.context.run_id, self.context.label, reason)

    def record(
        self, timing: Timing, *, completion: Completion | ImageResult | None = None, error: BaseException | None = None, partial: str = ""
    ) -> None:
        outcome = Outcome(
            at=self.at,
            call_id=self.call_id,
            context=self.context,
            request=self.request,
            timing=timing,
            completion=completion,
            error=error,
            partial=partial,
            provenance=self.provenance,
            attempts=completion.attempts if completion is not None else self.attempts if error is None else max(self.attempts, 1),
            base_url=self.provider.shown_url,
            key=self.key,
            record_content=self.policy.record_content,
        )
        self.policy.record(outcome)
        if self.observe is not None:
            self.observe(outcome)


def ask(
    provider: Provider,
    question: Question[ResultT],
    *,
    context: CallContext,
    policy: Policy,
    cache: CacheMode = True,
    stream: bool = False,
    emit: bool = False,
    replay_recorded: bool = False,
    observe: Observer | None = None,
) -> Steps[ResultT]:
    """Ask a model one question.

    ``stream`` asks the service for a stream, which is what gives a time to first token; ``emit`` hands its events to a reader.
    ``observe`` is told of the outcome once it is recorded.
    """
    call = Call(
        provider=provider,
        question=question,
        context=context,
        policy=policy,
        ledger=Ledger(policy.clock, None if provider.computes_here else policy.delays),
        at=policy.wall(),
        call_id=new_call_id(),
        stream=stream or emit,
        emit=emit,
        replay_recorded=replay_recorded,
        observe=observe,
    )
    try:
        completion: ResultT = yield from answer(call, cache)
    except ReaderLeft as left:
        call.record(call.ledger.timing(None, left=call.attempts > 0), partial=left.partial)
        raise
    except BaseException as error:  # recorded and raised on, an interrupt too
        if isinstance(error, ToolkitError):
            forget_locals(error)
        if not isinstance(error, ConfigError):
            call.ledger.give_up()
            call.record(call.ledger.timing(None), error=error)
        raise
    call.record(completion.timing, completion=completion)
    if emit and isinstance(completion, Completion):
        yield Emit([StreamEvent("end", "", completion)])
    return completion


def answer(call: Call, cache: CacheMode) -> Steps[Any]:
    """From the cache, from the same call under way, or from the service."""
    call.wire = call.question.wire(call.provider)
    call.key = cache_key(call)
    if cache is True or cache == "only":
        found = yield Lookup(call.key)
        if found is not MISS:
            try:
                return (yield from replay(call, found))
            except ReplyError:  # kept for a dict, which asks for any JSON; a type in the same words checks it
                if cache == "only":
                    raise
                return (yield from live(call, keep=True))
        if cache == "only":
            raise CacheMiss(f"no answer of {call.context.model} to this prompt is kept; ask with cache=True")
    if cache is not True or call.emit:
        # A reader of a stream may stop for as long as it likes: nobody else must wait for it.
        return (yield from live(call, keep=cache is not False))
    flight: Flight[Kept] | Landed[Kept] | Failed | None = None
    while not isinstance(flight, Flight):
        flight = yield Join(call.key)
        if isinstance(flight, Landed):
            call.ledger.book_lookup()
            return finish(call, flight.kept, call.question.parse(flight.kept.reply), "coalesced")
        if isinstance(flight, Failed):
            raise flight.error
    return (yield from lead(call, flight))


def cache_key(call: Call) -> str:
    assert call.wire is not None
    try:
        return key_of(call.wire, call.context.repeat, call.context.operation)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"the request is not plain JSON ({exc}); use strings, numbers, lists and dicts in extra= and schema=") from exc


def lead(call: Call, flight: Flight[Kept]) -> Steps[Any]:
    """Ask for everybody who asks the same, and let them know how it ended, whatever happens."""
    assert call.key is not None
    try:
        # Between our look-up and our joining, another leader may have landed.
        found = yield Lookup(call.key, memory_only=True)
        if found is not MISS:
            flight.land(found.kept)
            return (yield from replay(call, found))
        completion = yield from live(call, keep=True, landed=flight.land)
    except ProviderError as error:
        flight.fail(error)
        raise
    finally:
        flight.abandon()  # does nothing where the flight has ended
    return completion


def replay(call: Call, found: Found) -> Steps[Any]:
    """Give a kept answer again: at once, or with the pauses of the first time."""
    kept, parsed = found.kept, call.question.parse(found.kept.reply)
    call.provenance = "replayed"
    call.ledger.book_lookup()
    if call.emit:
        clock = 0.0
        for at, event in replayed_events(kept):
            if call.replay_recorded and at > clock:
                yield Sleep(at - clock)
                clock = at
                call.ledger.book_lookup()
            yield from emitted(call, [event])
    return finish(call, kept, parsed, "replayed", found)


def replayed_events(kept: Kept) -> list[tuple[float, StreamEvent]]:
    """The events of a kept answer with their times: as they came where that is known, else each channel in one piece."""
    reply = kept.reply
    assert isinstance(reply, Reply), "pictures are not streamed"
    pieces = kept.pieces or ((kept.latency_s, "reasoning", len(reply.reasoning)), (kept.latency_s, "text", len(reply.text)))
    channels, taken = {"reasoning": reply.reasoning, "text": reply.text}, {"reasoning": 0, "text": 0}
    events = []
    for at, kind, size in pieces:
        if kind in channels and size:
            start = taken[kind]
            taken[kind] = start + size
            events.append((at, StreamEvent(kind, channels[kind][start : start + size])))
    return events


def live(call: Call, *, keep: bool, landed: Callable[[Kept], None] | None = None) -> Steps[Any]:
    """Ask the service, again where that can help, and keep the answer."""
    reply = yield from attempts(call)
    ledger = call.ledger
    price = None if reply.cost_usd is not None else price_of(call, reply)
    pictures = reply.image_output_tokens if isinstance(reply, ImageReply) else None
    cost = reply.cost_usd if price is None else cost_of(reply.usage, price, image_output_tokens=pictures)
    if cost is None and call.provider.free:
        cost = 0.0
    kept = freeze(
        Kept(
            reply=reply,
            at=call.at,
            latency_s=ledger.attempt_s,
            ttft_s=ledger.first_s(),
            ttfa_s=ledger.first_s("text"),
            pieces=tuple(ledger.pieces),
            cost_usd=cost,
            price_date=price.date if price else None,
        )
    )
    parsed = call.question.parse(reply)  # an answer that breaks its schema is shown to the caller, and not kept
    if keep and reply.keepable:
        assert call.key is not None
        yield Keep(call.key, kept)
    if landed is not None:
        landed(kept)
    ledger.book_lookup()
    return finish(call, kept, parsed, "live")


def price_of(call: Call, reply: Reply | ImageReply) -> Price | None:
    """The caller's price of what was asked for or of the model that answered; else what the service listed; else what a list says.

    A list is asked for the model that answered, where the service tells it: a deployment may be named after another model.
    """
    book, asked = call.policy.prices, call.context.model
    served = f"{call.context.provider}/{reply.served_model}" if reply.served_model else asked
    own = book.own.get(asked) or book.own.get(served)
    if own is not None:
        return own
    if not at_standard_rates(reply.reported):
        return None
    if isinstance(reply, ImageReply):  # a price without a rate for pictures is one of words
        listed = book.listed(served)
        return listed if listed is not None and listed.image_output is not None else None
    return call.provider.listed_price(call.request.model, reply.usage, call.at) or book.listed(served)


def attempts(call: Call) -> Steps[Reply | ImageReply]:
    """Ask until there is an answer or no hope."""
    assert call.wire is not None
    ledger, retry, limiter = call.ledger, call.policy.retry, call.policy.limiter(call.provider)
    while True:
        call.attempts += 1
        ledger.book_lookup()
        if not limiter.enter():
            with call.waiting("rate limit"):
                yield from wait_for(limiter, ledger)
        refused = answered = False
        ledger.begin_attempt()
        try:
            if call.stream:
                reply: Reply | ImageReply = yield from streamed(call)
            else:
                reply = yield from timed(ledger, call.question.answer(call.provider, call.wire))
            answered = True
        except (ProviderError, httpx.HTTPError, httpx.InvalidURL) as exc:
            error = translated(exc, call.provider, call.request.model)
            refused = isinstance(error, RateLimitError)
        finally:  # after an interrupt too
            ledger.end_attempt(answered=answered)
            limiter.leave(refused=refused, answered=answered)
        if answered:
            return reply
        ledger.discard_attempt()
        error.attempts, error.emitted = call.attempts, call.emitted
        pause = None if call.emitted else retry.wait(error, call.attempts, ledger.sleep_s)
        if pause is None:
            raise error
        with call.waiting("rate limit" if refused else f"retry after {type(error).__name__}"):
            try:
                yield Sleep(pause)
            finally:
                ledger.book_sleep()


def wait_for(limiter: Limiter, ledger: Ledger) -> Steps[None]:
    """Wait until the limiter lets this call in."""
    limiter.queue_up()
    try:
        while True:
            try:
                yield Sleep(limiter.pause_s())
            finally:
                ledger.book_limiter()
            if limiter.enter():
                return
    finally:
        limiter.step_out()


def timed(ledger: Ledger, steps: Steps[T]) -> Steps[T]:
    """Pass steps on, and note when the whole responses that they send for came."""
    try:
        step = next(steps)
        while True:
            try:
                value = yield step
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the steps' to deal with
                step = steps.throw(error)
            else:
                if type(step) is Send and not step.stream:
                    ledger.book_arrival(step.arrived_at)
                step = steps.send(value)
    except StopIteration as done:
        result: T = done.value
        return result


def streamed(call: Call) -> Steps[Reply]:
    """One streamed attempt: bytes in, events out, arrivals noted."""
    provider, request = call.provider, call.request
    assert call.wire is not None
    assert isinstance(request, ChatRequest), "pictures are not streamed"
    reader = provider.reader(request)
    try:
        steps = provider.answer_stream(request, call.wire, reader, lambda response: read_stream(call, reader, response))
        response = yield from timed(call.ledger, steps)
        reply = reader.close()
        if reader.tail:
            yield from arrived(call, reader.tail)
    except ReaderLeft as left:
        left.partial = reader.text
        raise
    except httpx.ReadTimeout as exc:
        if provider.first_token_timeout_s > (request.timeout_s or DEFAULT_TIMEOUT_S):
            raise
        provider.keys.wash(exc)
        raise without_token(call) from exc
    return reply if reply.request_id else replace(reply, request_id=provider.request_id(response))


def read_stream(call: Call, reader: Reader, response: httpx.Response) -> Steps[None]:
    """Take the bytes of one response to its end."""
    provider, request, ledger = call.provider, call.request, call.ledger
    limit_s, first_s = request.timeout_s or DEFAULT_TIMEOUT_S, provider.first_token_timeout_s
    read, pieces = Read(response), ledger.pieces
    while True:
        read.within_s = None if pieces else max(min(first_s, limit_s) - ledger.attempt_s, SHORTEST_READ_S)
        try:
            chunk = yield read
        except httpx.HTTPError as exc:
            if reader.done:  # all was said before the connection broke
                break
            if not pieces:
                raise
            raise interrupted(exc, call, reader) from exc
        ledger.book_arrival(read.arrived_at)
        if chunk is None:
            break
        events = reader.feed(chunk)
        if events:
            yield from arrived(call, events)
        if reader.failure is not None:
            raise reader.failure
        if ledger.attempt_s > limit_s:
            why = f"{provider.name} was still streaming after {limit_s:g} s; give it more with timeout_s="
            raise ProviderTimeoutError(why, provider=provider.name, model=request.model, partial=reader.text)
        if not pieces and ledger.attempt_s > first_s and not reader.done:
            raise without_token(call)


def without_token(call: Call) -> ProviderTimeoutError:
    provider = call.provider
    why = f"{provider.name} sent no token within {provider.first_token_timeout_s:g} s; give it more with Client(first_token_timeout_s=)"
    return ProviderTimeoutError(why, provider=provider.name, model=call.request.model)


def arrived(call: Call, events: list[StreamEvent]) -> Steps[None]:
    """Note when events came, and hand them to the reader of the stream if there is one."""
    ledger = call.ledger
    at = ledger.attempt_s
    ledger.pieces += [(at, event.kind, len(event.text)) for event in events]
    if call.emit:
        call.emitted = True
        yield from emitted(call, events)


def emitted(call: Call, events: list[StreamEvent]) -> Steps[None]:
    """Hand events to the reader of the stream; what passes until the next is wanted is the reader's time, and so is a leave-taking."""
    try:
        yield Emit(events)
    finally:
        call.ledger.book_consumer()


def interrupted(error: httpx.HTTPError, call: Call, reader: Reader) -> ProviderError:
    """The error of a stream that broke off after it had begun, with what had arrived."""
    name, model = call.provider.name, call.request.model
    call.provider.keys.wash(error)
    if isinstance(error, httpx.TimeoutException):
        ours: ProviderError = ProviderTimeoutError(f"{name} fell silent in the middle of its answer", provider=name, model=model)
    else:
        ours = StreamInterrupted(f"the stream of {name} broke off in the middle of its answer", provider=name, model=model)
    ours.partial = reader.text
    return ours


def translated(error: Exception, provider: Provider, model: str | None) -> ProviderError:
    """Turn what the transport raised into one of our errors, with the address and the next step."""
    if isinstance(error, ProviderError):
        return error
    provider.keys.wash(error)
    where, why = provider.shown_url, provider.scrub(str(error) or type(error).__name__)
    facts: dict[str, Any] = {"provider": provider.name, "model": model}  # keyword arguments of an exception
    if isinstance(error, httpx.TimeoutException):
        ours: ProviderError = ProviderTimeoutError(f"{provider.name} at {where} did not answer in time ({why}); see timeout_s=", **facts)
    elif isinstance(error, httpx.ConnectError):
        ours = UnreachableError(f"can't reach {provider.name} at {where} ({why}); is it running, and is the address right?", **facts)
    elif isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        ours = UnreachableError(f"the address of {provider.name}, {where}, can't be used ({why})", **facts)
        ours.retryable = False
    elif isinstance(error, TooLargeError):
        ours = ReplyError(f"the answer of {provider.name} at {where} was not read to its end: {why}", **facts)
    elif isinstance(error, httpx.DecodingError):
        ours = ReplyError(f"{provider.name} at {where} sent bytes that can't be decoded ({why})", **facts)
    else:
        ours = UnreachableError(f"the connection to {provider.name} at {where} broke ({why})", **facts)
    ours.__cause__ = error
    return ours


def finish(call: Call, kept: Kept, parsed: Any, provenance: Provenance, found: Found | None = None) -> Any:  # both as the question says
    """Make the result: the answer, how it came about, what it cost or saved."""
    reply = kept.reply
    lives = provenance == "live"
    facts: dict[str, Any] = {  # the fields that a Completion and an ImageResult share
        "text": reply.text,
        "provider": call.context.provider,
        "model": call.context.model,
        "served_model": reply.served_model,
        "usage": reply.usage,
        "timing": call.ledger.timing(kept if lives else None),
        "cost_usd": kept.cost_usd if lives else 0.0,
        "price_date": kept.price_date,
        "provenance": provenance,
        "cache_tier": found.tier if found else None,
        "attempts": call.attempts if lives else 0,
        "request_id": reply.request_id,
        "call_id": call.call_id,
        "reported": dict(reply.reported) if reply.reported else {},
        "saved_s": None if lives else kept.latency_s,
        "saved_usd": None if lives else kept.cost_usd,
    }
    return call.question.result(reply, parsed, facts)


def exchange(provider: Provider, steps: Steps[T], model: str | None = None) -> Steps[T]:
    """Carry out steps that are no model call (a list of models, say), with its transport errors translated."""
    try:
        return (yield from steps)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise translated(exc, provider, model) from exc
    except ToolkitError as exc:
        forget_locals(exc)
        raise
