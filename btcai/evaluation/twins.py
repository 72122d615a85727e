"""Where a bucket stands among random twins: its own trades, many times over, at times drawn by chance.

The chance is that of a randomisation test (Phipson and Smyth 2010, "Permutation p-values should never be zero"): exact
where timing says nothing, whatever the tails of the returns and however few the trades.
"""

from typing import NamedTuple

import numpy as np

from btcai.schema import FloatArray


class Rank(NamedTuple):
    """One figure among those of N twins."""

    value: float
    """The bucket's own."""
    low: float
    """5 % of the twins have less."""
    median: float
    high: float
    """5 % of the twins have more."""
    chance: float
    """(1 + twins that did as well or better) / (1 + N)."""


class Ranks(NamedTuple):
    """Of one bucket under the costs that are judged."""

    net_return: Rank
    sharpe: Rank
    twins: int

    @property
    def chance(self) -> float:
        """The larger one of both: it must be seldom that luck earns as much, and as much for its risk."""
        return max(self.net_return.chance, self.sharpe.chance)


def rank(value: float, twins: FloatArray) -> Rank:
    """Of a figure among the twins' (N,); where one has none, as a Sharpe ratio without variance, it counts as cash."""
    known = np.nan_to_num(twins, nan=0.0)
    own = float(np.nan_to_num(value, nan=0.0))
    low, median, high = (float(one) for one in np.percentile(known, (5.0, 50.0, 95.0)))
    chance = (1.0 + float(np.sum(known >= own))) / (1.0 + len(known))
    return Rank(own, low, median, high, chance)


def middle(values: FloatArray) -> int:
    """Which of values (N,) is in the middle; of an even number the lower one, of equals the first."""
    order = np.argsort(values, kind="stable")
    return int(order[(len(values) - 1) // 2])
