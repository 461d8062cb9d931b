"""A capsule: a comparison that others can play back offline, with the times of every piece. It holds no secret that can be told as one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..cache.base import MISS
from ..cache.tiers import ResponseCache
from ..client import ImageOptions, Options
from ..errors import ConfigError, ToolkitError
from ..monitor.events import CallRecord, VoteRecord
from ..monitor.journal import Journal, open_journal
from ..monitor.redaction import redact_text
from ..types import ImagePart, Message, TextPart
from .grid import Plan, Question, Variant
from .judge import Judgement
from .pairings import pairings
from .progress import Progress, watcher_for
from .run import Run
from .saved import Content, Stream, read

if TYPE_CHECKING:
    from .comparison import Comparison

__all__ = ["Moment", "load_comparison", "replay", "scrubbed", "streams_of"]


class Moment(NamedTuple):
    """Something that happened in a replay: a piece of an answer, or (``ended``) the end of a call."""

    at_s: float  # since the first call began
    label: str
    prompt_id: str | None
    repeat: int
    text: str
    ended: bool


def load_comparison(path: str | os.PathLike[str]) -> Comparison:
    """Return a comparison that was saved: its tables, votes and plots, without asking anybody. New votes go to this machine's journal.

    Parameters
    ----------
    path : str or path
        What ``comparison.save`` or ``comparison.to_capsule`` wrote.

    Raises
    ------
    ConfigError
        If the file is missing, was cut or edited, or is newer than this program.

    Examples
    --------
    >>> import tempfile
    >>> import toolkit as tk
    >>> result = tk.compare(["scripted/echo"], ["Hello"], name="greeting")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result.save(f"{folder}/greeting.zip")
    ...     load_comparison(f"{folder}/greeting.zip")
    <Comparison 'greeting': 1 model x 1 prompt, 1 ok, 0 failed>
    """
    from .comparison import Comparison  # pandas comes with it

    content, streams = read(path)
    return Comparison._restore(content, streams or {}, own_journal())


def replay(
    path: str | os.PathLike[str],
    *,
    speed: Literal["instant", "recorded"] = "instant",
    progress: Progress = None,
    watch: Callable[[Moment], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Comparison:
    """Play a capsule back, offline, to the same frame.

    The rows are those of the recording, with their times and their provenance: what was ``live`` then is ``live`` in them, so that
    latencies, verdicts and plots come out as they did. Nothing is asked, and nothing written before you vote.

    Parameters
    ----------
    path : str or path
        What ``comparison.to_capsule`` wrote.
    speed : str
        ``"instant"``, or ``"recorded"``: each piece and each end of a call comes when it came then. An interrupt ends the waiting.
    progress : bool or callable, optional
        As for ``compare``: with ``"recorded"`` the bar or table moves as it did.
    watch : callable, optional
        Told of each ``Moment``: ``at_s label prompt_id repeat text ended``.
    sleep : callable
        Waits; a test can count instead.

    Returns
    -------
    Comparison

    Raises
    ------
    ConfigError
        If the file is missing, was cut or edited, is newer than this program, or is a saved comparison without times.

    Examples
    --------
    >>> import tempfile
    >>> import toolkit as tk
    >>> result = tk.compare(["scripted/echo"], ["Hello, World"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result.to_capsule(f"{folder}/hello.zip")
    ...     again = replay(f"{folder}/hello.zip", watch=lambda moment: print(moment.label, repr(moment.text)))
    scripted/echo 'Hello'
    scripted/echo ','
    scripted/echo ' World'
    scripted/echo ''
    >>> again.frame.equals(result.frame)
    True
    """
    from .comparison import Comparison  # pandas comes with it

    if speed not in ("instant", "recorded"):
        raise ConfigError(f"speed={speed!r}: it is 'instant' or 'recorded'")
    content, streams = read(path)
    if streams is None:
        raise ConfigError(f"{path} is a saved comparison without the times to replay; tk.load_comparison(path) reads it")
    state = Run(plan=content.plan, run_id=content.run_id)
    with watcher_for(progress if speed == "recorded" else False, state) as look:
        now = 0.0
        for moment, index in moments(content.records, streams):
            if speed == "recorded" and moment.at_s > now and not state.stopped:
                try:
                    sleep(moment.at_s - now)
                except KeyboardInterrupt:
                    state.stop()
            now = max(now, moment.at_s)
            if moment.ended:
                state.done[index] = content.records[index]
                state.rows.append(content.records[index])
            if watch is not None:
                watch(moment)
            look(state)
    return Comparison._restore(content._replace(records=state.done), streams, own_journal())


def own_journal() -> Journal | None:
    """Where votes on a comparison from a file go: this machine's journal, if there can be one."""
    try:
        return open_journal()
    except ToolkitError:
        return None


def moments(records: Mapping[int, CallRecord], streams: Mapping[int, Stream]) -> list[tuple[Moment, int]]:
    """Everything that happened in the order in which it did, with the index of its call."""
    began = min((row.at for row in records.values()), default=0.0)
    found = [(moment, index) for index, row in records.items() for moment in moments_of(row, row.at - began, streams.get(index, ()))]
    return sorted(found, key=lambda pair: (pair[0].at_s, pair[0].ended))


def moments_of(row: CallRecord, start_s: float, stream: Stream) -> Iterator[Moment]:
    total_s = row.total_s or 0.0
    sent_s = start_s + max(0.0, total_s - (row.latency_s or 0.0) - (row.consumer_s or 0.0))
    live, text, taken = row.provenance == "live" and row.status == "ok", row.text or "", 0
    for at, kind, size in stream if live else ():
        if kind == "text" and size:
            yield Moment(min(sent_s + at, start_s + total_s), row.label, row.prompt_id, row.repeat, text[taken : taken + size], False)
            taken += size
    yield Moment(start_s + total_s, row.label, row.prompt_id, row.repeat, text[taken:], True)


# --- when the pieces came ----------------------------------------------------------------------------------------------------


def streams_of(
    records: Mapping[int, CallRecord], arrivals: Mapping[int, Sequence[float]], cache: ResponseCache | None
) -> dict[int, Stream]:
    """When the pieces of each answer came: as the cache knows, or else as noted in the call, the text shared out evenly."""
    found: dict[int, Stream] = {}
    for index, row in records.items():
        kept = cache.get(row.key) if cache is not None and row.key is not None and row.status == "ok" else MISS
        if kept is not MISS and kept.kept.pieces and kept.kept.reply.text == row.text:
            found[index] = kept.kept.pieces
        elif arrivals.get(index):
            found[index] = shared_out(arrivals[index], len(row.text or ""))
    return found


def shared_out(times: Sequence[float], characters: int) -> Stream:
    ends = [round(characters * (i + 1) / len(times)) for i in range(len(times))]
    return [(at, "text", end - start) for at, start, end in zip(times, [0, *ends], ends)]


# --- leaving secrets out -----------------------------------------------------------------------------------------------------


def scrubbed(content: Content) -> Content:
    """The same without what has the shape of a secret, wherever it stands."""
    plan = scrubbed_plan(content.plan)
    records = {index: CallRecord(*map(clean, row)) for index, row in content.records.items()}
    before, after = pairings(content.plan, content.records, None, content.pictures), pairings(plan, records, None, content.pictures)
    renamed = {old.answers: new.answers for old, new in zip(before, after)}  # a digest tells of the texts it was made of
    return content._replace(
        name=clean(content.name),
        plan=plan,
        records=records,
        votes=tuple(VoteRecord(*map(clean, vote))._replace(answers=renamed.get(vote.answers, vote.answers)) for vote in content.votes),
        judgements=tuple(
            Judgement(*map(clean, said))._replace(answers=renamed.get(said.answers, said.answers)) for said in content.judgements
        ),
    )


def scrubbed_plan(plan: Plan) -> Plan:
    return replace(
        plan,
        variants=tuple(Variant(one.label, one.name, scrubbed_options(one.options)) for one in plan.variants),
        questions=tuple(
            Question(question.prompt_id, scrubbed_prompt(question.prompt), clean(question.reference)) for question in plan.questions
        ),
    )


def scrubbed_options(options: Options | ImageOptions) -> Options | ImageOptions:
    if isinstance(options, ImageOptions):  # nothing that is free text
        return options
    return replace(options, system=clean(options.system), stop=clean(options.stop), schema=clean(options.schema))


def scrubbed_prompt(prompt: str | tuple[Message, ...]) -> Any:  # the same kind as it was
    if isinstance(prompt, str):
        return clean(prompt)
    return tuple(replace(message, content=scrubbed_message(message.content)) for message in prompt)


def scrubbed_message(content: str | tuple[TextPart | ImagePart, ...]) -> Any:  # the same kind as it was
    if isinstance(content, str):
        return clean(content)
    return tuple(TextPart(text=clean(part.text)) if isinstance(part, TextPart) else scrubbed_image(part) for part in content)


def scrubbed_image(image: ImagePart) -> ImagePart:
    return image if image.url is None else ImagePart(url=clean(image.url), mime=image.mime)


def clean(value: Any) -> Any:  # JSON, and whatever a reference is
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {clean(name): clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner) for inner in value]
    return value
