"""The ranking: abilities from votes, with intervals that know when votes on one prompt hang together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from .. import stats
from ..errors import ConfigError
from .votes import CHOICES, JUDGE

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

__all__ = ["Raters", "ranking", "win_shares"]

Raters = Literal["people", "judges"]
COLUMNS = ["model", "ability", "low", "high", "wins", "ties", "losses", "n", "note"]
NEEDED = ("prompt_id", "model_a", "model_b", "choice", "rater")


def ranking(votes: pd.DataFrame, labels: Sequence[str], *, raters: str | None, confidence: float) -> pd.DataFrame:
    """See ``Comparison.ranking``."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence!r} is not between 0 and 1")
    if len(labels) < 2:
        raise ConfigError("a ranking needs at least two models; compare this one with another")
    counted = counted_votes(votes, labels, raters)
    if counted.empty:
        raise ConfigError("there are no votes to rank by yet: vote with comparison.vote(), or have comparison.judge(model) judge")
    by_prompt = tables_by_prompt(counted, labels)
    together = by_prompt.sum(axis=0)
    linked = largest_group(together)
    fitted = dict(
        zip(linked, fit(by_prompt[:, linked][:, :, linked], repeated=bool(counted["prompt_id"].duplicated().any()), confidence=confidence))
    )
    tallies = tally(counted, labels)
    rows = [
        [label, *fitted.get(i, (math.nan,) * 3), *tallies[label], "" if i in fitted else why_apart(together, i, linked)]
        for i, label in enumerate(labels)
    ]
    rows.sort(key=lambda row: placing(row, together, labels, linked), reverse=True)
    return pd.DataFrame(rows, columns=COLUMNS)


def counted_votes(votes: pd.DataFrame, labels: Sequence[str], raters: str | None) -> pd.DataFrame:
    """The votes that say something about these models."""
    if lacking := [name for name in NEEDED if name not in votes.columns]:
        raise ConfigError(f"votes= lacks the column {lacking[0]!r}; comparison.votes() has the right ones, and they can be concatenated")
    if strange := sorted(set(votes["choice"].astype(str)) - set(CHOICES)):
        raise ConfigError(f"a vote says {strange[0]!r}; the choices are {', '.join(CHOICES)}")
    judged = votes["rater"].astype(str).str.startswith(JUDGE)
    by = {None: judged | ~judged, "people": ~judged, "judges": judged}.get(raters, votes["rater"] == raters)
    known = votes["model_a"].isin(list(labels)) & votes["model_b"].isin(list(labels))
    return votes[by & known & (votes["choice"] != "skip")]


def tables_by_prompt(votes: pd.DataFrame, labels: Sequence[str]) -> Floats:
    """Wins as an array of prompt, winner, loser; a tie, and two bad answers, are half a win for each."""
    import numpy as np

    place = {label: i for i, label in enumerate(labels)}
    prompts, names = pd.factorize(votes["prompt_id"])
    first, second = votes["model_a"].map(place).to_numpy(dtype=int), votes["model_b"].map(place).to_numpy(dtype=int)
    share = votes["choice"].map({"a": 1.0, "b": 0.0}).fillna(0.5).to_numpy(dtype=float)
    won = np.zeros((len(names), len(labels), len(labels)))
    np.add.at(won, (prompts, first, second), share)
    np.add.at(won, (prompts, second, first), 1.0 - share)
    return won


def largest_group(won: Floats) -> list[int]:
    """The most models among which each won, if by detours, against each other: only those have finite abilities (Ford, 1957)."""
    import numpy as np
    from scipy.sparse import csgraph

    _, member = csgraph.connected_components(won > 0, directed=True, connection="strong")
    group = np.bincount(member).argmax()
    return [int(i) for i in np.flatnonzero(member == group)] if (member == group).sum() > 1 else []


def fit(won: Floats, *, repeated: bool, confidence: float) -> list[tuple[float, float, float]]:
    """Return ability, low and high for each model; abilities have the mean 0."""
    import numpy as np
    from scipy import special

    if not won.shape[1]:
        return []
    together = won.sum(axis=0)
    ability = np.array(stats.bradley_terry(together).abilities)
    ability -= ability.mean()
    chance = special.expit(ability[:, None] - ability[None, :])
    weight = (together + together.T) * chance * (1 - chance)
    covariance = np.linalg.pinv(np.diag(weight.sum(axis=1)) - weight)
    spread, reach = np.sqrt(np.diag(covariance)), float(special.ndtri(0.5 + confidence / 2))
    if repeated and len(won) > 1:
        # Votes on one prompt hang together: the sandwich of Liang and Zeger (1986), never narrower than independent votes.
        score = (won - (won + won.swapaxes(1, 2)) * chance).sum(axis=2)
        prompts = len(won)
        clustered = covariance @ (score.T @ score) @ covariance * prompts / (prompts - 1)
        reach = max(reach, float(special.stdtrit(prompts - 1, 0.5 + confidence / 2)))
        spread = np.maximum(spread, np.sqrt(np.diag(clustered)))
    return [(float(a), float(a - reach * s), float(a + reach * s)) for a, s in zip(ability, spread)]


def tally(votes: pd.DataFrame, labels: Sequence[str]) -> dict[str, list[int]]:
    """Wins, ties, losses and votes of each model."""
    table = {label: [0, 0, 0, 0] for label in labels}
    for a, b, choice in zip(votes["model_a"], votes["model_b"], votes["choice"]):
        ends = {"a": (0, 2), "b": (2, 0)}.get(choice, (1, 1))
        for label, end in zip((a, b), ends):
            table[label][end] += 1
            table[label][3] += 1
    return table


def why_apart(won: Floats, model: int, linked: Sequence[int]) -> str:
    """Why a model has no ability."""
    wins, losses = float(won[model].sum()), float(won[:, model].sum())
    if not wins and not losses:
        return "no votes on it yet"
    if not losses:
        return "never lost: how far it leads can't be told yet; more votes are needed"
    if not wins:
        return "never won: how far it lags can't be told yet; more votes are needed"
    others = "the ranked models" if linked else "the others"
    return f"votes do not link it with {others} in both directions; more votes between them are needed"


def placing(row: Sequence[Any], won: Floats, labels: Sequence[str], linked: Sequence[int]) -> tuple[float, float]:
    """Where a row stands: by ability; one that never lost above those, one that never won below, by the share it won."""
    model = list(labels).index(row[0])
    wins, losses = float(won[model].sum()), float(won[:, model].sum())
    share = wins / (wins + losses) if wins + losses else -1.0
    if model in linked:
        return 0.0, float(row[1])
    return (1.0 if wins and not losses else -1.0), share


def win_shares(votes: pd.DataFrame, labels: Sequence[str], *, raters: str | None = None) -> tuple[Floats, Floats]:
    """Return, row against column, the share won (NaN where two never met) and the number of votes."""
    import numpy as np

    counted = counted_votes(votes, labels, raters)
    won = tables_by_prompt(counted, labels).sum(axis=0) if len(counted) else np.zeros((len(labels), len(labels)))
    met = won + won.T
    return np.divide(won, met, out=np.full_like(won, np.nan), where=met > 0), met
