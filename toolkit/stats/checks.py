"""What every statistic asks of its numbers, and the quantiles that several need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["check_open_unit", "count_table", "numbers", "refuse_missing", "t_quantile", "z_quantile"]


def numbers(x: ArrayLike, name: str) -> Floats:
    import numpy as np

    try:
        values = np.array(x, dtype=float).ravel()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be numbers: {error}") from error
    refuse_missing(values, name)
    return values


def count_table(x: ArrayLike, name: str) -> Floats:
    import numpy as np

    values = np.atleast_2d(np.array(x, dtype=float))
    refuse_missing(values, name)
    if (values < 0).any():
        raise ConfigError(f"{name} holds counts, and counts are not negative")
    return values


def refuse_missing(values: Floats, name: str) -> None:
    import numpy as np

    if missing := int(np.isnan(values).sum()):
        raise ConfigError(
            f"{name} holds {missing} missing values (NaN) of {values.size}: leave those out first, and say how many they were"
        )


def check_open_unit(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} lies between 0 and 1, got {value}")


def z_quantile(confidence: float) -> float:
    from scipy import special

    return float(special.ndtri(0.5 + confidence / 2))


def t_quantile(confidence: float, df: int) -> float:
    from scipy import special

    return float(special.stdtrit(df, 0.5 + confidence / 2))
