"""A comparison in one file: a zip of JSON, written whole, read with care. A capsule is the same with the times of every piece.

Never a pickle: a pickle is code. A digest of everything is in the file, so that one that was cut or edited says so; it does not prove
who wrote it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import platform
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from .. import __version__
from ..client import ImageOptions, Options
from ..errors import ConfigError
from ..files import written_whole
from ..keys import canonical
from ..monitor.events import CALL_COLUMNS, CallRecord, VoteRecord
from ..monitor.redaction import redact
from ..types import Image, ImagePart, Message, TextPart, ToolCall
from .grid import Plan, Question, Variant
from .judge import Judgement

__all__ = ["Content", "Stream", "read", "write"]

FORMAT = "toolkit-comparison"
VERSION = 1
"""Raised when an older toolkit would misread the file; a new field does not need that."""

MANIFEST, PLAN, CALLS, OPINIONS, STREAMS = "manifest.json", "plan.json", "calls.json", "opinions.json", "streams.json"
PICTURES = "pictures.json"
BORN = (1980, 1, 1, 0, 0, 0)  # no clock in the file: the same comparison gives the same bytes

Json = Any  # whatever json.loads gives
Stream = Sequence[tuple[float, str, int]]
"""Of an answer: seconds since the request, channel, characters."""


class Content(NamedTuple):
    """Everything a comparison shows."""

    name: str
    run_id: str
    elapsed_s: float
    plan: Plan
    records: Mapping[int, CallRecord]
    scorers: tuple[str, ...]
    scores: Mapping[int, Mapping[str, float]]
    votes: tuple[VoteRecord, ...]
    judgements: tuple[Judgement, ...]
    pictures: Mapping[int, Sequence[Image]]
    until_metric: str | None = None


# --- writing ---------------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], content: Content, streams: Mapping[int, Stream] | None = None) -> None:
    """Write a comparison, whole or not at all."""
    parts = (
        {
            PLAN: plan_row(content.plan)
            | {"name": content.name, "run_id": content.run_id, "elapsed_s": content.elapsed_s}
            | ({"until_metric": content.until_metric} if content.until_metric else {}),
            CALLS: {"columns": CALL_COLUMNS, "rows": sorted((index, *row) for index, row in content.records.items())},
            OPINIONS: {
                "scorers": content.scorers,
                "scores": {index: {name: told(value) for name, value in scores.items()} for index, scores in content.scores.items()},
                "votes": [vote._asdict() for vote in content.votes],
                "judgements": [said._asdict() for said in content.judgements],
            },
        }
        | ({PICTURES: pictures_rows(content.pictures)} if content.pictures else {})
        | ({} if streams is None else {STREAMS: {index: list(stream) for index, stream in sorted(streams.items())}})
    )
    members = {name: json.dumps(part, separators=(",", ":"), default=plain_value, allow_nan=False).encode() for name, part in parts.items()}
    with written_whole(path) as file, zipfile.ZipFile(file, "w") as zipped:
        for name, data in {MANIFEST: manifest(members), **members}.items():
            zipped.writestr(zipfile.ZipInfo(name, BORN), data, compress_type=zipfile.ZIP_DEFLATED)


def manifest(members: Mapping[str, bytes]) -> bytes:
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "versions": {"toolkit": __version__, "python": platform.python_version(), "httpx": httpx.__version__},
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    return json.dumps(facts | {"digest": manifest_digest(facts)}, indent=1).encode()


def manifest_digest(facts: Mapping[str, Json]) -> str:
    return hashlib.sha256(canonical({name: fact for name, fact in facts.items() if name != "digest"}).encode()).hexdigest()


def plan_row(plan: Plan) -> dict[str, Json]:
    return {
        "variants": [{"label": variant.label, "name": variant.name, "options": options_row(variant.options)} for variant in plan.variants],
        "questions": [[question.prompt_id, prompt_row(question.prompt), question.reference] for question in plan.questions],
        "repeats": plan.repeats,
        "order_seed": plan.order_seed,
    } | ({"kind": "image"} if isinstance(plan.variants[0].options, ImageOptions) else {})


def pictures_rows(pictures: Mapping[int, Sequence[Image]]) -> dict[int, Json]:
    return {
        index: [{"mime": image.mime, "data": base64.b64encode(image.data).decode("ascii")} for image in images]
        for index, images in sorted(pictures.items())
    }


def options_row(options: Options | ImageOptions) -> dict[str, Json]:
    """The options that were given; what services take in ``extra`` can be a token, so it is looked through."""
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: redact(value) if name == "extra" else value for name, value in given.items() if value is not None}


def prompt_row(prompt: str | tuple[Message, ...]) -> Json:
    return prompt if isinstance(prompt, str) else [message_row(message) for message in prompt]


def message_row(message: Message) -> dict[str, Json]:
    content = message.content if isinstance(message.content, str) else [part_row(part) for part in message.content]
    calls = [{"id": call.id, "name": call.name, "arguments": call.arguments, "signature": call.signature} for call in message.tool_calls]
    row = {"role": message.role, "content": content, "tool_calls": calls, "tool_call_id": message.tool_call_id, "name": message.name}
    return {name: value for name, value in row.items() if value}


def part_row(part: TextPart | ImagePart) -> dict[str, Json]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    data = None if part.data is None else base64.b64encode(part.data).decode("ascii")
    return {"image": data, "url": part.url, "mime": part.mime}


def told(value: float) -> float | None:
    return None if math.isnan(value) else value


def plain_value(value: Any) -> Json:  # a reference: whatever a user's scorers understand
    """A number of numpy's as the number, anything else that JSON has no word for as its text."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else str(value)


# --- reading ---------------------------------------------------------------------------------------------------------------


class DamageError(ValueError):
    """A file is not what was written; the message says in which way."""


def read(path: str | os.PathLike[str]) -> tuple[Content, dict[int, Stream] | None]:
    """Return what ``write`` wrote; the streams are ``None`` for a file without them.

    Raises
    ------
    ConfigError
        If the file is missing, was cut or edited, is of another kind, or newer than this program.
    """
    try:
        parts = read_parts(Path(path).expanduser())
        return read_content(parts), read_streams(parts.get(STREAMS))
    except OSError as exc:
        raise ConfigError(f"can't read the comparison {path}: {exc.strerror or exc}") from exc
    except DamageError as exc:
        raise ConfigError(f"{path} {exc}; get the file again from where it came from") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise ConfigError(f"{path} is no saved comparison, or was cut ({exc}); get the file again from where it came from") from exc
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as exc:
        raise ConfigError(f"{path} does not hold a comparison ({type(exc).__name__}: {exc}); get it again from where it came from") from exc


def read_parts(path: Path) -> dict[str, Json]:
    with zipfile.ZipFile(path) as zipped:
        if MANIFEST not in zipped.namelist():
            raise DamageError("is a zip file, but no saved comparison")
        facts = json.loads(zipped.read(MANIFEST))
        if facts.get("format") != FORMAT:
            raise DamageError("is a zip file, but no saved comparison")
        if facts["version"] > VERSION:
            raise ConfigError(
                f"{path} has version {facts['version']} of the format, this program knows {VERSION}: upgrade model-comparison-toolkit"
            )
        members = {name: zipped.read(name) for name in facts["members"]}
    if facts["digest"] != manifest_digest(facts):
        raise DamageError(f"was changed after it was written: {MANIFEST} does not match its digest")
    for name, data in members.items():
        if hashlib.sha256(data).hexdigest() != facts["members"][name]:
            raise DamageError(f"was changed after it was written: {name} does not match its digest")
    return {name: json.loads(data) for name, data in members.items()}


def read_content(parts: Mapping[str, Json]) -> Content:
    head, calls, opinions = parts[PLAN], parts[CALLS], parts[OPINIONS]
    return Content(
        name=str(head["name"]),
        run_id=str(head["run_id"]),
        elapsed_s=float(head["elapsed_s"]),
        plan=read_plan(head),
        records={int(index): CallRecord(**known(CallRecord, zip(calls["columns"], row))) for index, *row in calls["rows"]},
        scorers=tuple(map(str, opinions["scorers"])),
        scores={
            int(index): {name: math.nan if value is None else float(value) for name, value in scores.items()}
            for index, scores in opinions["scores"].items()
        },
        votes=tuple(VoteRecord(**known(VoteRecord, vote.items())) for vote in opinions["votes"]),
        judgements=tuple(Judgement(**known(Judgement, said.items())) for said in opinions["judgements"]),
        pictures={
            int(index): tuple(Image(data=base64.b64decode(one["data"], validate=True), mime=str(one["mime"])) for one in images)
            for index, images in parts.get(PICTURES, {}).items()
        },
        until_metric=head.get("until_metric"),
    )


def known(kind: Any, values: Iterable[tuple[str, Json]]) -> dict[str, Json]:  # one of our NamedTuples
    """The fields that this version knows; one that an older version did not write is None."""
    return dict.fromkeys(kind._fields) | {name: value for name, value in values if name in kind._fields}


def read_plan(row: Mapping[str, Json]) -> Plan:
    kind = ImageOptions if row.get("kind") == "image" else Options
    names = {field.name for field in fields(kind)}
    return Plan(
        variants=tuple(
            Variant(one["label"], one["name"], kind(**{name: value for name, value in one["options"].items() if name in names}))
            for one in row["variants"]
        ),
        questions=tuple(Question(prompt_id, read_prompt(prompt), reference) for prompt_id, prompt, reference in row["questions"]),
        repeats=int(row["repeats"]),
        order_seed=int(row["order_seed"]),
    )


def read_prompt(row: Json) -> str | tuple[Message, ...]:
    return row if isinstance(row, str) else tuple(read_message(message) for message in row)


def read_message(row: Mapping[str, Json]) -> Message:
    content = row.get("content", "")
    return Message(
        role=row["role"],
        content=content if isinstance(content, str) else tuple(read_part(part) for part in content),
        tool_calls=tuple(ToolCall(**call) for call in row.get("tool_calls", ())),
        tool_call_id=row.get("tool_call_id"),
        name=row.get("name"),
    )


def read_part(row: Mapping[str, Json]) -> TextPart | ImagePart:
    if "text" in row:
        return TextPart(text=row["text"])
    return ImagePart(data=None if row["image"] is None else base64.b64decode(row["image"], validate=True), url=row["url"], mime=row["mime"])


def read_streams(rows: Mapping[str, Json] | None) -> dict[int, Stream] | None:
    if rows is None:
        return None
    return {int(index): [(float(at), str(kind), int(size)) for at, kind, size in stream] for index, stream in rows.items()}
