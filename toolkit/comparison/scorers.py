"""Scores: how good an answer is, as a number. The built-in scorers, and how a user's own are read."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..types import Completion, ImageResult

__all__ = ["SCORERS", "Scorer", "read_scorers", "score"]

Scorer = Callable[[Any, Any], float | bool | None]  # Any: a Completion, an ImageResult where pictures are compared
"""Takes the completion and the prompt's reference; gives a number, or ``None`` where it can't tell."""

WORDS = re.compile(r"\w+")


def exact_match(completion: Completion, reference: Any) -> bool:  # what a user put into the frame
    """Whether the answer is the reference, spaces around it aside."""
    return completion.text.strip() == str(reference).strip()


def contains(completion: Completion, reference: Any) -> bool:
    """Whether the reference stands in the answer, in upper or lower case."""
    return str(reference).strip().casefold() in completion.text.casefold()


def regex(completion: Completion, reference: Any) -> bool:
    """Whether the reference, a regular expression, is found in the answer."""
    return re.search(str(reference), completion.text) is not None


def json_valid(completion: Completion, reference: Any) -> bool:  # noqa: ARG001 - any JSON will do
    """Whether the answer is JSON."""
    try:
        json.loads(completion.text)
    except ValueError:
        return False
    return True


def json_schema(completion: Completion, reference: Any) -> bool:
    """Whether the answer is JSON that obeys the reference, a JSON Schema (a dict, or its text)."""
    try:
        import jsonschema
    except ImportError as exc:
        raise ConfigError("the scorer json_schema needs jsonschema: pip install 'model-comparison-toolkit[notebook]'") from exc
    schema = json.loads(reference) if isinstance(reference, str) else reference
    return json_valid(completion, None) and jsonschema.validators.validator_for(schema)(schema).is_valid(json.loads(completion.text))


def similarity(completion: Completion, reference: Any) -> float:
    """How much of the words agrees, from 0 to 1: Ratcliff and Obershelp's matching, Dr. Dobb's Journal 46 (1988)."""
    return difflib.SequenceMatcher(None, words(completion.text), words(str(reference)), autojunk=False).ratio()


def rouge_l(completion: Completion, reference: Any) -> float:
    """ROUGE-L F1 of the words, from 0 to 1: C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004)."""
    answer, wanted = words(completion.text), words(str(reference))
    common = longest_common(answer, wanted)
    return 2 * common / (len(answer) + len(wanted)) if common else 0.0


def words(text: str) -> list[str]:
    return WORDS.findall(text.casefold())


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        above_left = 0
        for i, other in enumerate(second, 1):
            above = row[i]
            row[i] = above_left + 1 if word == other else max(above, row[i - 1])
            above_left = above
    return row[-1]


SCORERS: dict[str, Scorer] = {
    scorer.__name__: scorer for scorer in (exact_match, contains, regex, json_valid, json_schema, similarity, rouge_l)
}
WITHOUT_REFERENCE = frozenset({"json_valid"})


def read_scorers(scorers: Sequence[str | Scorer] | Mapping[str, Scorer]) -> dict[str, Scorer]:
    """Turn names and callables into scorers with a name each.

    Raises
    ------
    ConfigError
        For an unknown name (the message lists the known ones), a callable without a name, or a name that is there twice.
    """
    if isinstance(scorers, Mapping):
        return dict(scorers)
    if isinstance(scorers, str) or callable(scorers):
        raise ConfigError("scorers= takes a list, or a dict of name and callable; put this one into a list")
    read: dict[str, Scorer] = {}
    for scorer in scorers:
        name = scorer if isinstance(scorer, str) else getattr(scorer, "__name__", "")
        if isinstance(scorer, str) and scorer not in SCORERS:
            raise ConfigError(f"no scorer is called {scorer!r}; there are {', '.join(sorted(SCORERS))}, and any callable of yours")
        if not name.isidentifier():
            raise ConfigError(f"a scorer needs a name for its column: scorers={{'name': ...}} instead of {name or type(scorer).__name__}")
        if name in read:
            raise ConfigError(f"the scorer {name!r} is there twice; give one another name: scorers={{'name': ...}}")
        read[name] = SCORERS[scorer] if isinstance(scorer, str) else scorer
    return read


def score(name: str, scorer: Scorer, completion: Completion | ImageResult, reference: Any) -> float:  # what a user put into the frame
    """Return a score as a number; NaN where there is nothing to compare with.

    Raises
    ------
    ConfigError
        If the scorer gives something that is no number.
    """
    if reference is None and scorer is SCORERS.get(name) and name not in WITHOUT_REFERENCE:
        return math.nan
    value = scorer(completion, reference)
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"the scorer {name!r} gave {type(value).__name__}; it has to give a number, True, False or None") from exc
