"""The nouns of the toolkit: messages, requests, replies, completions, events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from .rates import TokenFlow
from .render import Shown, html_card, html_page, html_pictures, html_table, seconds, usd

__all__ = [
    "ChatRequest",
    "Completion",
    "Health",
    "Image",
    "ImagePart",
    "ImageReply",
    "ImageRequest",
    "ImageResult",
    "Kept",
    "Message",
    "ModelInfo",
    "PullProgress",
    "Reply",
    "StreamEvent",
    "TextPart",
    "Timing",
    "TokenLogprob",
    "ToolCall",
    "Usage",
]

REPR_CHARACTERS = 60

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "error", "unknown"]
Provenance = Literal["live", "replayed", "coalesced"]
CacheTier = Literal["memory", "disk", "redis"]
CacheMode = bool | Literal["refresh", "only"]
EventKind = Literal["text", "reasoning", "tool_call", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart(Shown):
    """A piece of text inside a message that also holds images."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart(Shown):
    """An image inside a message: its bytes, or the address of a page on the web.

    Parameters
    ----------
    data : bytes, optional
        The encoded image (PNG, JPEG, ...). Give either this or ``url``.
    url : str, optional
        An ``https://`` address; not every provider fetches those.
    mime : str
        Media type of ``data``.
    """

    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    mime: str = "image/png"

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an ImagePart holds either data= (bytes) or url=, and exactly one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall(Shown):
    """A function that the model wants called; ``arguments`` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str
    signature: str | None = field(default=None, repr=False)  # of the thought that led to it; Gemini wants it back unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Shown):
    """One turn of a conversation.

    Examples
    --------
    >>> Message(role="user", content="Name a river.").content
    'Name a river.'
    """

    role: Role
    content: str | tuple[TextPart | ImagePart, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The words of the message, images left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A question as every provider understands it; ``model`` is the provider's own name of the model."""

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    schema: Mapping[str, Any] | None = None  # JSON Schema: any JSON
    timeout_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # sent to the service as it stands: any JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A wish for pictures as every provider understands it."""

    model: str
    prompt: str
    size: tuple[int, int] | None = None  # width, height
    n: int = 1
    seed: int | None = None
    timeout_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # sent to the service as it stands: any JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Shown):
    """A picture: its encoded bytes and their media type."""

    data: bytes = field(repr=False)
    mime: str = "image/png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Shown):
    """Token counts as the service reported them; ``None`` where it did not.

    ``input_tokens`` includes the cached ones, ``output_tokens`` the reasoning ones.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_input_tokens: int | None = None


NO_USAGE = Usage()


class TokenLogprob(NamedTuple):
    """One token of the answer with its natural-log probability and the likeliest alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a provider's dialect reads from the wire: the answer without its circumstances. This is what caches keep."""

    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "unknown"
    served_model: str | None = None
    usage: Usage = NO_USAGE
    logprobs: tuple[TokenLogprob, ...] | None = None
    request_id: str | None = None
    cost_usd: float | None = None  # where the service itself states it
    reported: Mapping[str, float | str] = field(default_factory=dict)  # the service's own statistics, seconds and counts

    @property
    def keepable(self) -> bool:
        """Whether a cache may keep it: whole, not filtered, not empty."""
        whole = self.finish_reason in ("stop", "length", "tool_calls", "unknown")
        return whole and bool(self.text or self.reasoning or self.tool_calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReply:
    """What a provider's dialect reads from the wire when pictures were asked for; ``text`` is what came along with them."""

    images: tuple[Image, ...]
    text: str = ""
    served_model: str | None = None
    usage: Usage = NO_USAGE
    image_output_tokens: int | None = None  # of the output tokens: those that are pictures
    request_id: str | None = None
    cost_usd: float | None = None
    reported: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def keepable(self) -> bool:
        """Whether a cache may keep it: there is a picture, and it is not filtered (providers raise for those)."""
        return any(image.data for image in self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing(Shown):
    """Where the time of a call went, in seconds of a monotonic clock, and how fast its tokens came.

    ``total_s = lookup_s + limiter_wait_s + retry_sleep_s + failed_attempts_s + latency_s + consumer_s``, exactly
    (a ``latency_s`` of None, for an answer that was not asked for now, counts as nothing).

    Attributes
    ----------
    lookup_s : float
        The cache: making the key, looking it up, waiting for the same call already under way, keeping the answer.
    limiter_wait_s : float
        Waiting for the rate limiter's leave to send.
    retry_sleep_s, failed_attempts_s : float
        Pauses between attempts, and the attempts that failed.
    latency_s : float or None
        The good attempt alone, from handing over the request to the end of the answer, without the consumer's time.
    consumer_s : float
        What the reader of a stream took between events. Where the kernel tells when bytes came (Linux, our own transports), only what that
        added to the call: a reader that is busy while the model is at work makes nothing later.
    ttft_s, ttfa_s : float or None
        From handing over the request to the first token of any channel, and of the answer. Streams only.
    loop_stall_s : float
        How late the program was in taking what had come, being busy with other things. What that delayed the call is in no other part: by
        the clock on the wall, a call took up to so much longer than ``total_s``.
    e2e_tokens_per_s : float or None
        End to end: ``output_tokens / latency_s``. Of streams and of whole answers.
    output_tokens_per_s : float or None
        Decoding: tokens after the first arrival of any channel, over the time from there to the last arrival. Streams only, like all that
        follow. A token's arrival is known by its piece; an arrival of several tokens counts as so many, shared out of the reported
        usage by characters, each channel's own.
    answer_tokens_per_s : float or None
        The same of the answer alone, without its reasoning.
    tpot_s : float or None
        Time per output token after the first arrival, ``1 / output_tokens_per_s``: the mean of ``inter_token_s`` weighted by tokens.
    inter_token_s : tuple of float
        The gaps: for each arrival after the first, the time since the one before over the tokens in it. ``flow.gaps`` has their weights.
    itl_p50_s, itl_p95_s : float or None
        Inter-token latency: the gap that half, and 95 %, of the tokens did not exceed.
    flow : TokenFlow or None
        What the rates are worked out from, when they are asked for; None for an answer that was not asked for now.

    Notes
    -----
    The terms are those of inference benchmarks (vLLM's ``bench serve``, NVIDIA's GenAI-Perf): TTFT, TPOT, ITL, end to end. Theirs count a
    chunk as one token; ours does not depend on how many a chunk carries.
    """

    total_s: float = 0.0
    lookup_s: float = 0.0
    limiter_wait_s: float = 0.0
    retry_sleep_s: float = 0.0
    failed_attempts_s: float = 0.0
    latency_s: float | None = None
    consumer_s: float = 0.0
    ttft_s: float | None = None
    ttfa_s: float | None = None
    loop_stall_s: float = 0.0
    flow: TokenFlow | None = field(default=None, repr=False)

    @property
    def e2e_tokens_per_s(self) -> float | None:
        return self.flow.e2e_tokens_per_s if self.flow else None

    @property
    def output_tokens_per_s(self) -> float | None:
        return self.flow.output_tokens_per_s if self.flow else None

    @property
    def answer_tokens_per_s(self) -> float | None:
        return self.flow.answer_tokens_per_s if self.flow else None

    @property
    def tpot_s(self) -> float | None:
        return self.flow.tpot_s if self.flow else None

    @property
    def inter_token_s(self) -> tuple[float, ...]:
        return self.flow.inter_token_s if self.flow else ()

    @property
    def itl_p50_s(self) -> float | None:
        return self.flow.inter_token_percentile(0.5) if self.flow else None

    @property
    def itl_p95_s(self) -> float | None:
        return self.flow.inter_token_percentile(0.95) if self.flow else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer and how it came about.

    Attributes
    ----------
    text, reasoning : str
        The answer, and the thinking that came with it.
    parsed : object
        The value read from ``text`` when a ``schema`` was given.
    finish_reason : str
        ``stop length content_filter tool_calls error unknown``.
    provider, model, served_model : str
        Who was asked, for which model (``"provider/name"``), and which model the service says answered.
    cost_usd : float or None
        US dollars this call cost; ``None`` when unknown. A replayed answer costs 0 and ``saved_usd`` says what it cost once.
    provenance : str
        ``live`` (asked now), ``replayed`` (from the cache), ``coalesced`` (shared with an identical call under way).
    cache_tier : str or None
        Which tier a replayed answer came from.
    saved_s, saved_usd : float or None
        Latency and cost of the original, for an answer that was not asked for again.
    """

    text: str
    reasoning: str = ""
    parsed: Any = None  # whatever the caller's schema describes
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "unknown"
    provider: str = ""
    model: str = ""
    served_model: str | None = None
    usage: Usage = NO_USAGE
    timing: Timing = Timing()
    cost_usd: float | None = None
    price_date: str | None = None
    provenance: Provenance = "live"
    cache_tier: CacheTier | None = None
    attempts: int = 1
    request_id: str | None = None
    call_id: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)
    reported: Mapping[str, float | str] = field(default_factory=dict, repr=False)
    saved_s: float | None = None
    saved_usd: float | None = None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        shown = self.text if len(self.text) <= REPR_CHARACTERS else f"{self.text[:REPR_CHARACTERS]}…"
        return f"<Completion of {self.model}, {self.provenance}, {self.finish_reason}: {shown!r}>"

    def _repr_html_(self) -> str:
        time, usage = self.timing, self.usage
        facts = circumstances(self)
        if time.ttft_s is not None:
            facts["first token"] = seconds(time.ttft_s)
        if usage.output_tokens is not None:
            facts["tokens"] = f"{usage.input_tokens} in, {usage.output_tokens} out"
        facts |= {"cost": usd(self.cost_usd), "ended by": self.finish_reason}
        return html_card(self.model, self.text, facts)


SHOWN_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
"""Pictures that a notebook shows. Not SVG or HTML: those can carry scripts, and a model wrote them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """Pictures and how they came about; a notebook shows them.

    Attributes
    ----------
    images : tuple of Image
        Each with its encoded bytes (``.data``) and their media type (``.mime``).
    text : str
        What the model wrote along with them.

    The other attributes are those of ``Completion``.

    Examples
    --------
    >>> ImageResult(images=(Image(data=b"..."),), model="openrouter/acme/painter")
    <ImageResult of openrouter/acme/painter, live: 1 image (image/png, 3 bytes)>
    """

    images: tuple[Image, ...]
    text: str = ""
    provider: str = ""
    model: str = ""
    served_model: str | None = None
    usage: Usage = NO_USAGE
    timing: Timing = Timing()
    cost_usd: float | None = None
    price_date: str | None = None
    provenance: Provenance = "live"
    cache_tier: CacheTier | None = None
    attempts: int = 1
    request_id: str | None = None
    call_id: str = ""
    reported: Mapping[str, float | str] = field(default_factory=dict, repr=False)
    saved_s: float | None = None
    saved_usd: float | None = None

    def __repr__(self) -> str:
        count = f"{len(self.images)} image{'' if len(self.images) == 1 else 's'}"
        shown = ", ".join(f"{image.mime}, {len(image.data)} bytes" for image in self.images)
        return f"<ImageResult of {self.model}, {self.provenance}: {count} ({shown})>"

    def _repr_html_(self) -> str:
        facts = {**circumstances(self), "cost": usd(self.cost_usd)}
        pictures = [(image.mime, image.data if image.mime in SHOWN_TYPES else None) for image in self.images]
        return html_pictures(self.model, pictures, self.text, facts)


def circumstances(result: Completion | ImageResult) -> dict[str, object]:
    """Where an answer came from, and how long it took."""
    time = result.timing
    origin = result.provenance if result.cache_tier is None else f"{result.provenance} from {result.cache_tier}"
    took = seconds(time.latency_s) if result.saved_s is None else f"{seconds(time.total_s)} instead of {seconds(result.saved_s)}"
    return {"": origin, "latency": took}


class StreamEvent(NamedTuple):
    """One thing that happened in a stream; the last one is ``"end"`` and carries the completion.

    ``text`` is the piece that arrived, empty for ``"end"``: ``print(event.text, end="")`` is all a reader needs.
    """

    kind: EventKind
    text: str = ""
    completion: Completion | None = None

    def _repr_html_(self) -> str:
        rows = [(name, "–" if value is None else str(value)) for name, value in self._asdict().items()]
        return html_page("<b>StreamEvent</b>", html_table(("field", "value"), rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo(Shown):
    """A model that a provider offers; ``None`` where the service does not say."""

    id: str
    provider: str
    context_tokens: int | None = None
    size_bytes: int | None = None
    loaded: bool | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)  # the service's own description: any JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Shown):
    """Whether a provider can be used right now, and if not, what to do."""

    provider: str
    ok: bool
    latency_s: float | None = None
    detail: str = ""
    configured: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress(Shown):
    """How far the download of a model has come."""

    status: str
    completed_bytes: int = 0
    total_bytes: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer as a cache keeps it: the reply, and what it took to get it."""

    reply: Reply | ImageReply
    at: float  # seconds since 1970, UTC
    latency_s: float
    ttft_s: float | None = None
    ttfa_s: float | None = None
    pieces: tuple[tuple[float, EventKind, int], ...] = ()  # of a stream: seconds since the request, channel, characters
    cost_usd: float | None = None
    price_date: str | None = None
