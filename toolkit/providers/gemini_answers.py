"""What Gemini answers: ``generateContent``, whole and streamed, over as many requests as it takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..types import ChatRequest, FinishReason, Image, Reply, StreamEvent, TokenLogprob, Usage
from ..wire.fastjson import loads
from ..wire.stream import MAX_EVENT_BYTES, SSEDecoder, SSEvent, paired
from .base import hinted
from .images import read_base64
from .reading import StreamReader, count, number, objects

if TYPE_CHECKING:
    from .vertex import Vertex

__all__ = ["FINISH_REASONS", "GeminiDecoder", "GeminiReader", "sum_usage"]

MOST_HOPS = 64
"""Twice what the largest window takes in plain requests: whoever sends more continuations does so for ever."""

FILTERED = [
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR",
]  # fmt: skip
FAILED = [
    "LANGUAGE", "OTHER", "IMAGE_OTHER", "NO_IMAGE", "ESCALATION", "PUP_LIMITED_DISABLED", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE",
]  # fmt: skip
FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(FILTERED, "content_filter"),
    **dict.fromkeys(FAILED, "error"),
}


class GeminiDecoder(SSEDecoder):
    r"""Server-sent events, and the JSON that stands between them without a ``data:``: that is how the service reports some errors.

    Examples
    --------
    >>> decoder = GeminiDecoder()
    >>> decoder.feed(b'data: {}\r\n\r\n{\n  "error": {\n    "code": 503\n  }\n}\n')
    [('message', b'{}'), ('bare', b'{\n  "error": {\n    "code": 503\n  }\n}')]
    """

    FIELDS = (b"data", b"event", b"id", b"retry")

    def __init__(self) -> None:
        super().__init__()
        self._bare: list[bytes] = []
        self._bare_bytes = 0

    def feed(self, chunk: bytes) -> list[SSEvent]:
        return super().feed(chunk) + self._whole()

    def close(self) -> list[SSEvent]:
        return super().close() + self._whole()

    def _field(self, line: bytes) -> None:
        if line.partition(b":")[0] in self.FIELDS:
            super()._field(line)
        elif (self._bare or line.lstrip()[:1] in (b"{", b"[")) and self._bare_bytes <= MAX_EVENT_BYTES:
            self._bare.append(line)
            self._bare_bytes += len(line)

    def _whole(self) -> list[SSEvent]:
        """The bare JSON, once it is complete: a document can't end before its last bracket."""
        if not self._bare or self._bare[-1].rstrip()[-1:] not in (b"}", b"]"):
            return []
        text = b"\n".join(self._bare)
        try:
            loads(text)
        except ValueError:
            return []
        self._bare, self._bare_bytes = [], 0
        return [("bare", text)]


class GeminiReader(StreamReader[SSEvent]):
    """Reads ``generateContent`` answers, whole and streamed, over as many requests as they take.

    - There is no mark of the end but a finish reason: a stream that ends without one was cut.
    - Numbers that are zero are left out, once there are numbers at all; chunks on the way hold running totals, so the last one counts.
    - A prompt that was blocked is an answer with status 200 and without candidates.
    """

    provider: Vertex

    def __init__(self, provider: Vertex, request: ChatRequest, decoder: GeminiDecoder) -> None:
        super().__init__(provider, request, decoder)
        self.images: list[Image] = []
        self.image_tokens: int | None = None
        self.id: str | None = None
        self._token: str | None = None
        self._earlier = Usage()
        self._hops = 1
        self._signatures: list[str | None] = []

    # --- long answers --------------------------------------------------------------------------------------------------

    @property
    def continues(self) -> bool:
        """Whether the answer goes on, when it is asked for once more."""
        return self._token is not None and self.failure is None and self._hops < MOST_HOPS

    def take_token(self) -> str | None:
        """What to send to go on; ``None`` at the beginning. Usage is the service's sum: each request bills its own."""
        token, self._token = self._token, None
        if token is not None:
            self._earlier = self.usage
            self.finish = None
            self.done = False
            self._hops += 1
            self.reported["requests"] = self._hops
            self._decoder = GeminiDecoder()
        return token

    def end_hop(self) -> None:
        """Take up what the end of a response completes: the token to go on with may stand in an event without its blank line."""
        if self.failure is None:
            self._take(self._decoder.close(), self.tail)

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        late, self.tail = self.tail, []
        return late + super().feed(chunk)

    # --- reading -------------------------------------------------------------------------------------------------------

    def read_item(self, item: SSEvent, events: list[StreamEvent]) -> None:
        data = item[1]
        if data.lstrip()[:1] != b"[":
            self.read_json(data, events)
            return
        try:
            listed = loads(data)
        except ValueError:
            return
        for each in listed if isinstance(listed, list) else []:
            if isinstance(each, dict) and self.failure is None:
                self.read_data(each, events)

    def read_object(self, data: dict[str, Any], events: list[StreamEvent]) -> None:
        if isinstance(usage := data.get("usageMetadata"), dict):
            self._read_usage(usage)
        if isinstance(model := data.get("modelVersion"), str):
            self.served_model = paired(model)
        if isinstance(id_ := data.get("responseId"), str):
            self.id = paired(id_)
        if isinstance(feedback := data.get("promptFeedback"), dict) and feedback.get("blockReason"):
            self._end("content_filter", feedback["blockReason"], feedback.get("blockReasonMessage"))
            self.reported["blocked_prompt"] = 1.0
        candidates = data.get("candidates")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if isinstance(candidate, dict) and not candidate.get("index"):
            self._read_candidate(candidate, events)

    def _read_candidate(self, candidate: Mapping[str, Any], events: list[StreamEvent]) -> None:
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict):
                self._read_part(part, events)
        if isinstance(logprobs := candidate.get("logprobsResult"), dict):
            self.logprobs += read_logprobs(logprobs)
        reason = candidate.get("finishReason")
        if isinstance(reason, str) and reason:
            self._end(FINISH_REASONS.get(reason, "unknown"), reason, candidate.get("finishMessage"))
            token = candidate.get("continuationToken")
            self._token = token if reason == "CONTINUATION" and isinstance(token, str) and token else None

    def _read_part(self, part: Mapping[str, Any], events: list[StreamEvent]) -> None:
        text = part.get("text")
        if isinstance(text, str) and text:
            self.add("reasoning" if part.get("thought") else "text", text, events)
        if isinstance(call := part.get("functionCall"), dict):
            self._read_call(call, part.get("thoughtSignature"), events)
        if isinstance(data := part.get("inlineData"), dict) and not part.get("thought"):
            self._read_image(data)

    def _read_call(self, call: Mapping[str, Any], signature: Any, events: list[StreamEvent]) -> None:  # any JSON
        if call.get("partialArgs") or call.get("willContinue"):
            why = "the arguments of a tool call come in pieces; leave streamFunctionCallArguments out of extra="
            self.fail(self.provider.bad_reply(why, self.request, 200))
            return
        arguments = json.dumps(call.get("args") or {}, ensure_ascii=False, separators=(",", ":"))
        fragment = {"index": len(self.calls), "id": call.get("id"), "function": {"name": call.get("name"), "arguments": arguments}}
        events.append(StreamEvent("tool_call", paired(self.calls.add(fragment))))
        self._signatures.append(paired(signature) if isinstance(signature, str) else None)

    def _read_image(self, data: Mapping[str, Any]) -> None:
        image = read_base64(data.get("data"), str(data.get("mimeType") or "image/png"))
        if image is None:
            self.fail(self.provider.bad_reply("a picture in the answer is not base64 of a picture", self.request, 200))
        else:
            self.images.append(image)

    def _read_usage(self, usage: Mapping[str, Any]) -> None:
        if isinstance(traffic := usage.get("trafficType"), str):
            self.reported["traffic_type"] = paired(traffic)
        if any(count(usage.get(name)) for name in ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")):
            self.usage = sum_usage((self._earlier, read_usage(usage)))
            self.image_tokens = read_image_tokens(usage)

    def _end(self, finish: FinishReason, reason: Any, message: Any) -> None:  # any JSON
        """Keep the service's own word where ours says less."""
        self.finish = finish
        if reason not in ("STOP", "MAX_TOKENS"):
            self.reported["finish"] = self.provider.scrub(hinted(str(reason), message if isinstance(message, str) else ""))

    def reply(self, request_id: str | None = None) -> Reply:
        reply = super().reply(self.id or request_id)
        calls = zip(reply.tool_calls, self._signatures)
        return replace(reply, tool_calls=tuple(replace(call, signature=signature) if signature else call for call, signature in calls))


def read_usage(usage: Mapping[str, Any]) -> Usage:
    thoughts = count(usage.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=(count(usage.get("promptTokenCount")) or 0) + (count(usage.get("toolUsePromptTokenCount")) or 0),
        output_tokens=(count(usage.get("candidatesTokenCount")) or 0) + (thoughts or 0),
        reasoning_tokens=thoughts,
        cached_input_tokens=count(usage.get("cachedContentTokenCount")),
    )


def read_image_tokens(usage: Mapping[str, Any]) -> int | None:
    """How many of the answer's tokens are pictures; ``None`` where the service does not tell words and pictures apart."""
    details = usage.get("candidatesTokensDetails")
    counts = [count(entry.get("tokenCount")) or 0 for entry in objects(details) if entry.get("modality") == "IMAGE"]
    return sum(counts) if counts else None


def sum_usage(usages: Iterable[Usage]) -> Usage:
    """Add up what several requests used; what none of them tells stays unknown."""
    told = [asdict(usage) for usage in usages]
    known = {name: [usage[name] for usage in told if usage[name] is not None] for name in told[0]}
    return Usage(**{name: sum(values) if values else None for name, values in known.items()})


def read_logprobs(result: Mapping[str, Any]) -> list[TokenLogprob]:
    """Read ``chosenCandidates`` and, in step with them, ``topCandidates``."""
    chosen, tops = result.get("chosenCandidates"), result.get("topCandidates")
    found = []
    for at, entry in enumerate(chosen if isinstance(chosen, list) else []):
        top = tops[at].get("candidates") if isinstance(tops, list) and at < len(tops) and isinstance(tops[at], dict) else None
        if token := read_token(entry):
            others = [read_token(other) for other in top] if isinstance(top, list) else []
            found.append(TokenLogprob(*token, tuple(other for other in others if other)))
    return found


def read_token(entry: Any) -> tuple[str, float] | None:  # any JSON
    if not isinstance(entry, dict):
        return None
    token, logprob = entry.get("token"), number(entry.get("logProbability"))
    return (paired(token), logprob) if isinstance(token, str) and logprob is not None else None
