"""The rule by which an edge is called proven: figures in, named checks out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

MAX_P_VALUE = 0.05
"""Chance that luck among all trials shows as much. With it and all checks below, of 200 times 2,000 rules without skill
none was called an edge, and a true ratio of 2.5 over three years among them was found in 172."""
DEFLATED_SHARPE = 0.5
"""The ratio is above what the luckiest of all trials is expected to show. Not .95, which would count luck twice: the
best of 2,000 independent trials without skill is past that once in 2,800 times, and that true ratio in 73 of 100."""
MAX_OVERFITTING = 0.2
"""Noise has .5 on average and is below this in 1 to 4 of 100 sets of rules, with that true ratio among them 98 are."""
UP_FOLDS = 0.6
"""A gain that comes from a few folds is luck in these."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is known of one bucket after costs; nan where the data are insufficient, which never passes."""

    deflated_sharpe: float
    """Probability of a true Sharpe ratio above the luck of every trial so far (significance.deflated_sharpe)."""
    overfitting: float
    """Probability of backtest overfitting of choosing among it and the baselines (overfitting.overfitting)."""
    p_value: float
    """StepM's, among all candidates whose returns are known, the largest over the baselines (superiority)."""
    luck_p_value: float
    """Among itself and the trials of which but the ratios are known (significance.luck_p_value); 0 without these."""
    difference_lows: Mapping[str, float]
    """Lower end of the interval of the Sharpe ratio minus each baseline's."""
    random_chance: float | None = None
    """Chance that its trades at random times do as well (twins.Ranks); None: it has no twins, and is not asked."""
    up_folds_frac: float
    """Share of the folds with a gain."""
    net_at_higher_costs: float
    """Net return at 1.5 times the costs."""
    net_with_delay: float
    """Net return with orders one more bar late."""
    net_at_harshest_costs: float
    """Net return under the harshest severity."""


class Check(NamedTuple):
    """One condition; nan does not pass."""

    name: str
    value: float
    side: Literal["over", "at least", "under"]
    """Where of the threshold the value must be."""
    threshold: float
    passed: bool


class Outcome(NamedTuple):
    """Proven only where every check passed."""

    edge: Literal["proven", "none"]
    checks: tuple[Check, ...]


def decide(figures: Figures) -> Outcome:
    """All checks, whether passed or not, in the order in which a verdict names them."""
    joined = 1.0 - (1.0 - figures.p_value) * (1.0 - figures.luck_p_value)
    checks = (
        _above("deflated Sharpe ratio", figures.deflated_sharpe, DEFLATED_SHARPE),
        _below("chance of being no better than baselines and luck", joined, MAX_P_VALUE),
        _below("probability of overfitting", figures.overfitting, MAX_OVERFITTING),
        *_differences(figures.difference_lows),
        *_random(figures.random_chance),
        _at_least("share of folds up", figures.up_folds_frac, UP_FOLDS),
        _above("net return at 1.5 times the costs", figures.net_at_higher_costs, 0.0),
        _above("net return one bar later", figures.net_with_delay, 0.0),
        _above("net return under the harshest costs", figures.net_at_harshest_costs, 0.0),
    )
    return Outcome("proven" if all(check.passed for check in checks) else "none", checks)


def _differences(lows: Mapping[str, float]) -> tuple[Check, ...]:
    """Without a baseline nothing was compared, which does not pass."""
    if not lows:
        return (_above("Sharpe ratio over a baseline", float("nan"), 0.0),)
    return tuple(_above(f"Sharpe ratio over {name}, lower end", low, 0.0) for name, low in lows.items())


def _random(chance: float | None) -> tuple[Check, ...]:
    return () if chance is None else (_below("chance that random times do as well", chance, MAX_P_VALUE),)


def _above(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, "over", threshold, value > threshold)


def _at_least(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, "at least", threshold, value >= threshold)


def _below(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, "under", threshold, value < threshold)
