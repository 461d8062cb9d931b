"""Pairings: two models' answers to the same prompt and repeat, as a person or a judge is shown them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from ..errors import ConfigError
from ..keys import canonical, digest
from ..monitor.events import CallRecord
from ..types import Image, ImagePart
from .grid import Plan

__all__ = ["Pairing", "chosen_labels", "pairings"]

NO_PICTURES: Mapping[int, Sequence[Image]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Two answers to one prompt; ``a`` is shown first."""

    prompt_id: str
    repeat: int
    prompt: str
    reference: Any  # whatever the scorers understand
    model_a: str
    model_b: str
    text_a: str
    text_b: str
    images_a: tuple[Image, ...] = ()
    images_b: tuple[Image, ...] = ()
    prompt_images: tuple[ImagePart, ...] = ()

    @property
    def pictured(self) -> bool:
        """Whether there are pictures in the prompt or the answers."""
        return bool(self.prompt_images or self.images_a or self.images_b)

    @property
    def alike(self) -> bool:
        """Whether there is nothing to choose between."""
        return self.text_a.strip() == self.text_b.strip() and self.images_a == self.images_b

    @property
    def answers(self) -> str:
        """What identifies prompt and answers, in whichever order and run they are shown."""
        question = identity(self.prompt, self.prompt_images)
        return digest(canonical([question, sorted([identity(self.text_a, self.images_a), identity(self.text_b, self.images_b)])]))

    @property
    def reference_text(self) -> str | None:
        """The reference as a judge reads it."""
        return None if self.reference is None else str(self.reference)

    @property
    def models(self) -> frozenset[str]:
        return frozenset((self.model_a, self.model_b))

    def turned(self) -> Pairing:
        """The same answers with the other one first."""
        return replace(
            self, model_a=self.model_b, model_b=self.model_a, text_a=self.text_b, text_b=self.text_a, images_a=self.images_b, images_b=self.images_a
        )  # fmt: skip


def identity(text: str, images: Sequence[Image | ImagePart]) -> str:
    """A prompt or an answer in a few words: its text, and the digests of its pictures (of one on the web, its address)."""
    return "\0".join([text, *(image.url or "" if image.data is None else hashlib.sha256(image.data).hexdigest() for image in images)])


def pairings(
    plan: Plan,
    records: Mapping[int, CallRecord],
    labels: Sequence[str] | None = None,
    pictures: Mapping[int, Sequence[Image]] = NO_PICTURES,
) -> Iterator[Pairing]:
    """Give every two answers to the same prompt and repeat; a call that failed or was not made has none."""
    width = len(plan.variants)
    wanted = [i for i, label in enumerate(plan.labels) if labels is None or label in labels]
    for start in range(0, len(plan), width):
        answered = [i for i in wanted if start + i in records and records[start + i].status == "ok"]
        cell = plan.cell(start)
        for first, second in combinations(answered, 2):
            yield Pairing(
                prompt_id=cell.question.prompt_id,
                repeat=cell.repeat,
                prompt=cell.question.text,
                reference=cell.question.reference,
                model_a=plan.labels[first],
                model_b=plan.labels[second],
                text_a=records[start + first].text or "",
                text_b=records[start + second].text or "",
                images_a=tuple(pictures.get(start + first, ())),
                images_b=tuple(pictures.get(start + second, ())),
                prompt_images=cell.question.images,
            )


def chosen_labels(there: Sequence[str], chosen: Sequence[str] | None, purpose: str) -> list[str]:
    """Return the models to compare, all by default.

    Raises
    ------
    ConfigError
        If one is not there, or there are fewer than two.
    """
    labels = list(there if chosen is None else chosen)
    if unknown := [label for label in labels if label not in there]:
        raise ConfigError(f"this comparison has no model {unknown[0]!r}; it has {', '.join(there)}")
    if len(set(labels)) < 2:
        raise ConfigError(f"{purpose} needs at least two models; compare this one with another")
    return labels
