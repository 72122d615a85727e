"""What set the trades that succeeded apart from those that failed, as lessons with their evidence.

A variable of the context (known when the trade was entered) is contrasted by ranks, as Mann and Whitney (1947) do.
Trades near in time share their market, so significance does not come from their table: the outcomes are shifted
against the contexts around the sequence of trades, by every number of trades (a permutation test on the cyclic group:
both keep their order, only what connects them is broken). With n trades no chance below 1 / n can be shown. Chances are
corrected over all variables (Holm 1979); what is not significant then is no lesson.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from btcai.schema import BoolArray, FloatArray, IntArray

LEVEL = 0.05
LEAST_TRADES = 20
"""Of either kind, for a variable to be looked at."""
LEAST_IN_PART = 5
"""Of either kind, for a part of the time to be asked whether a lesson held in it."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One difference between trades that succeeded and trades that failed."""

    variable: str
    successes: int
    failures: int
    median_success: float
    median_failure: float
    effect: float
    """Rank-biserial correlation, -1 .. 1: how much more often of a pair the success has the larger value."""
    chance: float
    """Of an effect as large where there is none, corrected over all variables."""
    variables: int
    effects_in_parts: tuple[float, ...]
    """The effect in each part of the time, oldest first; nan where there were too few trades."""

    @property
    def sentence(self) -> str:
        more = "higher" if self.effect > 0 else "lower"
        held = sum(self.effect * part > 0.0 for part in self.effects_in_parts)
        return (
            f"trades that succeeded began with a {more} {self.variable}: median {self.median_success:.3g} in "
            f"{self.successes} of them, {self.median_failure:.3g} in {self.failures} that failed; effect "
            f"{self.effect:+.2f}, chance {self.chance:.2g} corrected over {self.variables} variables, held in {held} "
            f"of {len(self.effects_in_parts)} parts of the time"
        )


def lessons(context: pd.DataFrame, success: BoolArray, part: IntArray | None = None) -> tuple[Lesson, ...]:
    """Significant contrasts, surest first; none is what to expect where nothing distinguishes the trades.

    context: a row per trade in order of entry, a column per variable, nan where unknown; success (n,); part (n,): which
    part of the time each belongs to, 0 .. , for example its fold; by default the two halves.
    """
    if not len(context) == len(success):
        raise ValueError(f"each trade needs a context and an outcome, were {len(context)} and {len(success)}")
    part = np.arange(len(success)) * 2 // max(1, len(success)) if part is None else part
    found = []
    for name in context.columns:
        values = context[name].to_numpy(np.float64)
        known = np.isfinite(values)
        if _enough(success[known], LEAST_TRADES) and np.ptp(values[known]) > 0.0:
            found.append((str(name), values[known], success[known], part[known]))
    contrasts = [contrast(values, won) for _, values, won, _ in found]
    corrected = holm(np.array([chance for _, chance in contrasts]))
    n_parts = int(part.max(initial=0)) + 1
    made = [
        _lesson(*one, effect, float(chance), len(found), n_parts)
        for one, (effect, _), chance in zip(found, contrasts, corrected, strict=True)
        if chance <= LEVEL
    ]
    return tuple(sorted(made, key=lambda lesson: (lesson.chance, -abs(lesson.effect))))


def contrast(values: FloatArray, success: BoolArray) -> tuple[float, float]:
    """values and success (n,) in order of time -> rank-biserial correlation, and its chance among cyclic shifts.

    The sums of successes' ranks under all n shifts are one circular correlation.
    """
    n, won = len(values), int(success.sum())
    ranks = pd.Series(values).rank().to_numpy(np.float64)
    centred = ranks - ranks.mean()
    spectrum = np.fft.rfft(centred) * np.conj(np.fft.rfft(success.astype(np.float64)))
    effects = 2.0 * np.fft.irfft(spectrum, n) / (won * (n - won))
    effect = 2.0 * float(centred[success].sum()) / (won * (n - won))
    return effect, float(np.mean(np.abs(effects) >= abs(effect) - 1e-9))


def holm(chances: FloatArray) -> FloatArray:
    """Chances (n,) of n findings, raised so that below a level any of them is false as seldom as that (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    raised = np.maximum.accumulate(chances[order] * np.arange(len(chances), 0, -1))
    corrected = np.empty_like(raised)
    corrected[order] = np.minimum(1.0, raised)
    return corrected


def _lesson(
    name: str,
    values: FloatArray,
    success: BoolArray,
    part: IntArray,
    effect: float,
    chance: float,
    variables: int,
    n_parts: int,
) -> Lesson:
    of_parts = []
    for number in range(n_parts):
        values_in, won_in = values[part == number], success[part == number]
        of_parts.append(contrast(values_in, won_in)[0] if _enough(won_in, LEAST_IN_PART) else float("nan"))
    return Lesson(
        variable=name,
        successes=int(success.sum()),
        failures=int((~success).sum()),
        median_success=float(np.median(values[success])),
        median_failure=float(np.median(values[~success])),
        effect=effect,
        chance=chance,
        variables=variables,
        effects_in_parts=tuple(of_parts),
    )


def _enough(success: BoolArray, least: int) -> bool:
    return min(int(success.sum()), int((~success).sum())) >= least
