"""What follows from a drift: nothing, training again, or that a person looks first."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from btcai.config import DriftConfig
from btcai.watch.drift import Drift
from btcai.watch.fit import Fit

Verdict = Literal["steady", "retrain", "look_first"]

EXIT_CODES: dict[Verdict, int] = {"steady": 0, "retrain": 3, "look_first": 4}
"""Of `btcai drift --check`, for schedulers: 3 and 4 are neither success nor an error."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """All that is known of the newest bars, `days`; reasons: which limits they are beyond, those of the verdict."""

    drift: Drift
    fit: Fit
    days: str
    verdict: Verdict
    reasons: tuple[str, ...]


def judge(drift: Drift, fit: Fit, limits: DriftConfig, days: str) -> Finding:
    """A hard limit speaks before what is usual: bars beyond it are not to be trained on unseen."""
    stops, starts = _beyond_hard_limits(drift, limits), _beyond_what_is_usual(drift, fit, limits)
    verdict: Verdict = "look_first" if stops else "retrain" if starts else "steady"
    return Finding(drift=drift, fit=fit, days=days, verdict=verdict, reasons=tuple(stops or starts))


def _beyond_what_is_usual(drift: Drift, fit: Fit, limits: DriftConfig) -> list[str]:
    """With K windows and usual_quantile 1 a steady market is called drifted up to 3 times in K + 1 by its bars.

    More often where volatility comes in swings that are longer than a window.
    """
    usual = limits.usual_quantile  # compared so that a nan is beyond it
    low, high = np.quantile(drift.window_volatilities, [1.0 - usual, usual])
    reasons = []
    if not drift.score <= (largest := np.quantile(drift.window_scores, usual)):
        reasons.append(f"mean distance {drift.score:.3f} is above {largest:.3f}")
    if not low <= drift.volatility <= high:
        reasons.append(f"volatility {drift.volatility:.0%} is outside {low:.0%} to {high:.0%}")
    if fit.window_scores and not fit.score <= (largest := np.quantile(fit.window_scores, usual)):
        reasons.append(f"forecast misfit {fit.score:.2f} is above {largest:.2f}")
    return reasons


def _beyond_hard_limits(drift: Drift, limits: DriftConfig) -> list[str]:
    times = limits.stop_volatility
    low, high = min(drift.window_volatilities) / times, max(drift.window_volatilities) * times
    reasons = []
    if not drift.score <= limits.stop_ks:
        reasons.append(f"mean distance {drift.score:.3f} is above drift.stop_ks {limits.stop_ks:g}")
    if not drift.psi <= limits.stop_psi:
        reasons.append(f"mean stability index {drift.psi:.2f} is above drift.stop_psi {limits.stop_psi:g}")
    if not low <= drift.volatility <= high:
        reasons.append(f"volatility {drift.volatility:.0%} is over drift.stop_volatility {times:g} times out of range")
    return reasons
