"""The grid of a comparison: which question goes to which model, and in which order. Plain data, so any worker can carry a cell."""

from __future__ import annotations

import hashlib
import json
import math
import random
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any

from ..client import ImageOptions, Options, Prompt, Size, read_messages
from ..errors import ConfigError
from ..monitor.redaction import redact, redact_text
from ..providers.registry import provider_class, split_model
from ..render import Shown
from ..schemas import SchemaChoice, read_schema, schema_name
from ..types import ImagePart, Message

__all__ = ["Cell", "Model", "Plan", "Question", "build_plan", "read_models", "read_prompts"]


@dataclass(frozen=True, slots=True)
class Model(Shown):
    """A model with options of its own, for a comparison.

    Parameters
    ----------
    name : str
        ``"provider/name"``.
    label : str, optional
        What to call this variant in tables; by default the name, with the options behind it where they are needed to tell two apart.
    system, temperature, max_tokens, top_p, stop, seed, schema, timeout_s, extra
        As for ``generate_text``; they go before the comparison's own.
    size, n
        As for ``generate_image``, in a comparison of pictures; so are ``seed``, ``timeout_s`` and ``extra`` there.

    Examples
    --------
    >>> Model("embedded/ngram-3", temperature=0.2).name
    'embedded/ngram-3'
    """

    name: str
    _: KW_ONLY
    label: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: str | Sequence[str] | None = None
    seed: int | None = None
    schema: SchemaChoice | None = None
    timeout_s: float | None = None
    extra: Mapping[str, Any] | None = field(default=None, repr=False)  # any JSON, a service's token too
    size: Size | None = None
    n: int | None = None

    def own_options(self) -> dict[str, Any]:  # each option has its own type
        """The options that were given, by name."""
        names = (field.name for field in fields(self) if field.name not in ("name", "label"))
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt of a comparison, its name, and the answer it is compared to."""

    prompt_id: str
    prompt: str | tuple[Message, ...]
    reference: Any = None  # whatever the scorers understand

    @property
    def text(self) -> str:
        """The words of the prompt, as tables show them."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(message.text for message in self.prompt)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The pictures of the prompt."""
        contents = () if isinstance(self.prompt, str) else (message.content for message in self.prompt)
        return tuple(part for content in contents for part in content if isinstance(part, ImagePart))


@dataclass(frozen=True, slots=True)
class Variant:
    """A model as it is asked in this comparison."""

    label: str
    name: str
    options: Any  # Options; ImageOptions where pictures are compared


@dataclass(frozen=True, slots=True)
class Cell:
    """One call to make."""

    index: int
    variant: Variant
    question: Question
    repeat: int

    def context(self, run_id: str) -> dict[str, str | int]:
        """Say which call of a run it is, in the columns of its row."""
        return {"label": self.variant.label, "run_id": run_id, "prompt_id": self.question.prompt_id, "repeat": self.repeat}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a comparison will ask. Cells are made when they are needed: a plan of a million costs the texts and no more."""

    variants: tuple[Variant, ...]
    questions: tuple[Question, ...]
    repeats: int
    order_seed: int

    def __len__(self) -> int:
        return len(self.variants) * len(self.questions) * self.repeats

    @property
    def labels(self) -> list[str]:
        return [variant.label for variant in self.variants]

    def cell(self, index: int) -> Cell:
        """Return a cell by its place in the table: question by question, repeat by repeat, variant by variant."""
        rest, variant = divmod(index, len(self.variants))
        question, repeat = divmod(rest, self.repeats)
        return Cell(index, self.variants[variant], self.questions[question], repeat)

    def indices(self) -> Callable[[str, str | None, int], int | None]:
        """Return what finds a cell's index by label, prompt_id and repeat."""
        variants = {label: i for i, label in enumerate(self.labels)}
        questions = {question.prompt_id: i for i, question in enumerate(self.questions)}

        def index_of(label: str, prompt_id: str | None, repeat: int) -> int | None:
            variant, question = variants.get(label), questions.get(prompt_id or "")
            if variant is None or question is None or not 0 <= repeat < self.repeats:
                return None
            return (question * self.repeats + repeat) * len(self.variants) + variant

        return index_of

    def digest(self) -> str:
        """Return what two plans have in common that ask exactly the same, in whichever order."""
        asked = hashlib.sha256()
        for part in (self.repeats, *self.variants):
            asked.update(repr(part).encode("utf-8", "surrogatepass") + b"\0")
        for question in self.questions:
            asked.update(repr((question.prompt_id, question.prompt)).encode("utf-8", "surrogatepass") + b"\0")
        return asked.hexdigest()

    def order(self) -> Iterator[int]:
        """Give the indices in the order of asking.

        Blocks of one question and repeat come in shuffled order, and within a block each variant is asked once, shuffled too: a
        server that slows down during the run slows all models alike.
        """
        shuffle = random.Random(self.order_seed)
        width = len(self.variants)
        blocks = list(range(len(self.questions) * self.repeats))
        shuffle.shuffle(blocks)
        inside = list(range(width))
        for block in blocks:
            shuffle.shuffle(inside)
            for variant in inside:
                yield block * width + variant

    def prompts_in_order(self) -> list[str]:
        """The prompts by when the last call of each is asked: known before anything is, so no answer's time has a say in it."""
        block = len(self.variants) * self.repeats
        backwards = dict.fromkeys(index // block for index in reversed(list(self.order())))
        return [self.questions[number].prompt_id for number in reversed(backwards)]

    def describe(self) -> str:
        """Return the plan as JSON for the journal, without the prompts (each call row has its own)."""
        return json.dumps(
            {
                "models": [{"label": v.label, "model": v.name, "options": shown_options(v.options)} for v in self.variants],
                "prompts": len(self.questions),
                "repeats": self.repeats,
                "order_seed": self.order_seed,
                "digest": self.digest(),
            }
        )


def shown_options(options: Options | ImageOptions) -> dict[str, Any]:  # each option has its own type
    """The options that were given, without ``extra``: what services take there can be anything, a token too."""
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    if isinstance(options, Options) and options.schema is not None:
        given["schema"] = read_schema(options.schema).json
    return {name: value for name, value in given.items() if value is not None and name != "extra"}


def build_plan(
    models: Sequence[str | Model],
    prompts: Any,
    *,
    repeats: int,
    options: Options | ImageOptions,
    template: str | None,
    order_seed: int | None,
) -> Plan:  # prompts: see read_prompts
    """Check what a comparison is asked to do and lay it out.

    Raises
    ------
    ConfigError
        For no models, no prompts, a model listed twice, a bad template, a duplicate prompt_id, fewer than one repeat.
    """
    if not isinstance(repeats, int) or repeats < 1:
        raise ConfigError(f"repeats={repeats!r}: ask each question at least once")
    return Plan(
        variants=read_models(models, options),
        questions=read_prompts(prompts, template),
        repeats=repeats,
        order_seed=random.SystemRandom().getrandbits(32) if order_seed is None else order_seed,
    )


def read_models(models: Sequence[str | Model], options: Options | ImageOptions) -> tuple[Variant, ...]:
    """Turn names and ``Model``s into variants with a label each."""
    if isinstance(models, str | Model):
        raise ConfigError(f"models= takes a list of models; write [{models!r}] for one")
    listed = [model if isinstance(model, Model) else Model(model) for model in models]
    if not listed:
        raise ConfigError("models= is empty; name at least one, for example 'embedded/ngram-3'")
    names = [model.name for model in listed]
    variants: list[Variant] = []
    for model in listed:
        provider_class(split_model(model.name)[0])
        own = model.own_options()
        if unfit := sorted(own.keys() - {each.name for each in fields(options)}):
            kind = "text" if isinstance(options, Options) else "image"
            raise ConfigError(f"{unfit[0]}= of {model.name} does not go with kind={kind!r}; leave it out")
        alone = names.count(model.name) == 1
        label = model.label or (model.name if alone or not own else f"{model.name} ({shown_label(own)})")
        if any(label == variant.label for variant in variants):
            raise ConfigError(
                f"{label} is listed twice; give each its own options or label, as in tk.Model({model.name!r}, label='second')"
            )
        variants.append(Variant(label, model.name, replace(options, **own)))
    return tuple(variants)


def shown_label(own: Mapping[str, Any]) -> str:  # each option has its own type
    """A variant's own options, as its label names them: without secrets, for it stands in tables, files and the journal."""
    shown: dict[str, Callable[[Any], Any]] = {"schema": schema_name, "extra": redact}
    return redact_text(", ".join(f"{name}={shown.get(name, str)(value)}" for name, value in own.items()))


def read_prompts(prompts: Any, template: str | None = None) -> tuple[Question, ...]:
    """Turn strings, message lists, or a pandas or polars frame into questions.

    Raises
    ------
    ConfigError
        If there are none, a column is missing, an id is there twice, or a prompt is no text.
    """
    if isinstance(prompts, str):
        raise ConfigError("prompts= takes a list of prompts; put this one into a list")
    columns = getattr(prompts, "columns", None)
    questions = read_frame(prompts, [str(c) for c in columns], template) if columns is not None else read_list(list(prompts), template)
    if not questions:
        raise ConfigError("prompts= is empty; give at least one prompt")
    seen: set[str] = set()
    for question in questions:
        if question.prompt_id in seen:
            raise ConfigError(f"prompt_id {question.prompt_id!r} is there twice; each prompt needs its own")
        seen.add(question.prompt_id)
    return tuple(questions)


def read_list(prompts: Sequence[Prompt], template: str | None) -> list[Question]:
    if template is not None:
        raise ConfigError("template= needs a frame with columns; with a list of prompts there is nothing to fill in")
    width = max(3, len(str(len(prompts))))
    return [Question(f"{i:0{width}}", checked_prompt(prompt, i)) for i, prompt in enumerate(prompts, 1)]


def read_frame(frame: Any, columns: list[str], template: str | None) -> list[Question]:  # pandas or polars
    filled_in = check_columns(columns, template)
    rows = list(frame.iter_rows(named=True)) if hasattr(frame, "iter_rows") else frame.to_dict("records")
    width = max(3, len(str(len(rows))))
    questions = []
    for i, row in enumerate(rows, 1):
        if lacking := [name for name in (*filled_in, "prompt_id") if name in row and missing(row[name])]:
            raise ConfigError(f"{lacking[0]} of prompt {i} is missing (None or NaN); drop the row or fill it")
        prompt_id = str(row["prompt_id"]) if "prompt_id" in row else f"{i:0{width}}"
        prompt = template.format_map(row) if template is not None else row["prompt"]
        reference = row.get("reference")
        questions.append(Question(prompt_id, checked_prompt(prompt, i), None if missing(reference) else reference))
    return questions


def check_columns(columns: list[str], template: str | None) -> list[str]:
    """Return the columns that a template fills in."""
    there = f"the frame has {', '.join(columns) or 'no columns'}"
    if template is None:
        if "prompt" not in columns:
            raise ConfigError(f"the frame needs a column 'prompt', or give template='... {{column}} ...'; {there}")
        return []
    try:
        named = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as exc:
        raise ConfigError(f"template= can't be read: {exc}; write braces that are meant as such twice") from exc
    for name in named:
        if name not in columns:
            raise ConfigError(f"template= wants the column {name!r}; {there}")
    if not named:
        raise ConfigError(f"template= names no column, so every prompt would be the same; write {{column}} in it; {there}")
    return named


def checked_prompt(prompt: Any, number: int) -> str | tuple[Message, ...]:  # what a user gave us
    if missing(prompt):
        raise ConfigError(f"prompt {number} is missing (None or NaN); drop the row or fill it")
    try:
        messages = read_messages(prompt)
    except (ConfigError, TypeError) as exc:
        raise ConfigError(f"prompt {number}: {exc}") from exc
    return prompt if isinstance(prompt, str) else messages


def missing(value: Any) -> bool:  # a cell of a frame
    return value is None or (isinstance(value, float) and math.isnan(value))
