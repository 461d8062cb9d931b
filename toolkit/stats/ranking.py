"""Abilities from wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .checks import count_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["Abilities", "bradley_terry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Bradley-Terry abilities on the log-odds scale, relative to the first player (0), with standard errors."""

    abilities: tuple[float, ...]
    standard_errors: tuple[float, ...]


def bradley_terry(wins: ArrayLike) -> Abilities:
    """Fit abilities to pairwise wins: the odds of i beating j are ``exp(ability_i - ability_j)``.

    Parameters
    ----------
    wins : square array of float
        ``wins[i][j]`` is how often i beat j; a tie is half a win for each. The diagonal is not looked at.

    Raises
    ------
    ConfigError
        If the table is not square, holds NaN or negative counts, or falls into groups where one never lost to the other: then
        no finite abilities fit best.

    Notes
    -----
    Bradley and Terry, Biometrika 39 (1952); Newton's method on the likelihood; existence after Ford, American Mathematical
    Monthly 64 (1957).

    Examples
    --------
    >>> fit = bradley_terry([[0, 3], [1, 0]])
    >>> [round(ability, 4) for ability in fit.abilities]
    [0.0, -1.0986]
    """
    import numpy as np

    won = count_table(wins, "wins")
    players = len(won)
    if won.shape != (players, players) or players < 2:
        raise ConfigError(f"wins is a square table of two players or more, got shape {won.shape}")
    np.fill_diagonal(won, 0)
    _check_connected(won)
    games = won + won.T
    ability = np.zeros(players)
    while True:
        chance = 1 / (1 + np.exp(ability[None, :] - ability[:, None]))
        slope = (won - games * chance).sum(axis=1)[1:]
        weight = games * chance * (1 - chance)
        information = (np.diag(weight.sum(axis=1)) - weight)[1:, 1:]
        step = np.linalg.solve(information, slope)
        step /= max(1.0, float(np.abs(step).max()))  # one unit of log-odds at a time: Newton alone can overshoot
        ability[1:] += step
        if float(np.abs(step).max()) < 1e-10:
            break
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return Abilities(abilities=tuple(ability.tolist()), standard_errors=(0.0, *errors.tolist()))


def _check_connected(won: Floats) -> None:
    from scipy.sparse import csgraph

    groups, member = csgraph.connected_components(won > 0, directed=True, connection="strong")
    if groups > 1:
        apart = [index for index, group in enumerate(member) if group != member[0]]
        raise ConfigError(
            f"no finite abilities fit: players {apart} never won against, or never lost to, the rest; add comparisons or half a tie"
        )
