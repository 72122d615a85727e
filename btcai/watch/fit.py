"""Do the agents' forecasts still fit? Their loss on the newest bars beside that on windows of the test span.

A loss is the mean pinball loss of the predicted quantiles over that of a forecast which knows sigma alone: quantiles of
the training span's outcomes in units of sigma * sqrt(horizon). Below 1 the agent knows more. On its own a pinball loss
mostly says how wild the market became after the forecast: on a steady market it called 6 of 10 months strange, the
ratio none. The windows are of the test span: no weight, calibration or setting was fitted to it, as none was to bars
after it. Windows begin a day apart, but a span of some five months holds only five of a month side by side: bars of the
same kind are called strange once in five or six.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from btcai.calibration import coverage
from btcai.evaluation.backtest import decision_bars, encode_decisions
from btcai.evaluation.reliability import outcomes, pinball_losses, sigma_of
from btcai.inference.bundle import Policy
from btcai.schema import BARS_PER_DAY, QUANTILE_LEVELS, FloatArray, IntArray, MarketData, Span

LEAST_APART = 4
"""Outcomes of a horizon that a window holds beside each other; a longer horizon is left out."""

LEAST_WINDOWS = 2
"""Windows beside each other that the test span must hold."""

LEAST_RANGE = 1e-6
"""Of the losses of windows, median to largest, so that windows that are all the same make no score infinite."""


@dataclass(frozen=True, kw_only=True)
class BucketFit:
    """One bucket's loss on the newest window, a mean over horizons_bars, beside that on the test span's windows.

    coverage_frac: share of the newest outcomes inside the 90 % interval, a mean over horizons_bars too.
    """

    bucket: str
    horizons_bars: tuple[int, ...]
    loss: float
    usual_loss: float
    largest_loss: float
    coverage_frac: float

    @property
    def is_unusual(self) -> bool:
        """Worse than every window of the test span."""
        return self.loss > self.largest_loss


@dataclass(frozen=True, kw_only=True)
class Fit:
    """All buckets together; `note` says why where nothing could be judged.

    score, and of windows window_scores: the mean over buckets of a loss on the bucket's own scale, on which the median
    of its windows is 0 and their largest 1. So a bucket with few outcomes apart, whose loss is mostly chance, counts no
    more than another.
    """

    buckets: tuple[BucketFit, ...] = ()
    score: float = float("nan")
    window_scores: tuple[float, ...] = ()
    note: str = ""


def measure_fit(policies: Sequence[Policy], data: MarketData, train: Span, test: Span, n_bars: int) -> Fit:
    """Forecasts of the last n_bars against windows as long of `test`, one from every day of it: few fit side by side.

    Outcomes count where their horizon ends inside the window.
    """
    if not policies:
        return Fit(note="no agent has been exported yet")
    if len(test) < LEAST_WINDOWS * n_bars:
        return Fit(note=f"the test span holds {len(test):,} bars, fewer than {LEAST_WINDOWS} windows")
    windows = [Span(first, first + n_bars) for first in range(test.first, test.stop - n_bars + 1, BARS_PER_DAY)]
    newest = Span(len(data) - n_bars, len(data))
    judged, scores, of_windows = [], [], []
    for policy in policies:
        horizons = np.array([h for h in policy.horizons_bars if LEAST_APART * h <= n_bars], np.int64)
        if not len(horizons):
            continue
        rival = _sigma_alone(data, train, horizons)
        seen, now = (_forecasts(policy, data, span, horizons, rival) for span in (test, newest))
        loss, usual = now.over(newest), np.array([seen.over(window) for window in windows])
        if not math.isfinite(loss) or not np.isfinite(usual).any():
            return Fit(note=f"a horizon of {policy.bucket} has no outcome in the newest window or in the span's")
        median, largest = float(np.nanmedian(usual)), float(np.nanmax(usual))
        judged.append(
            BucketFit(
                bucket=policy.bucket,
                horizons_bars=tuple(horizons.tolist()),
                loss=loss,
                usual_loss=median,
                largest_loss=largest,
                coverage_frac=now.coverage_frac,
            )
        )
        unit = max(largest - median, LEAST_RANGE)
        scores.append((loss - median) / unit)
        of_windows.append((usual - median) / unit)
    if not judged:
        return Fit(note=f"every horizon is longer than a {LEAST_APART}th of the window of {n_bars:,} bars")
    together = np.mean(of_windows, axis=0)
    return Fit(
        buckets=tuple(judged),
        score=float(np.mean(scores)),
        window_scores=tuple(together[np.isfinite(together)].tolist()),  # a window inside a gap holds no outcome
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Forecasts:
    """Losses of the policy and of its rival (D, H) at the decisions of bars (D,); 0 where the outcome is not known."""

    bars: IntArray
    horizons: IntArray
    loss: FloatArray
    rival_loss: FloatArray
    coverage_frac: float

    def over(self, window: Span) -> float:
        """The one over the other, of the outcomes inside the window, mean over horizons; nan without an outcome."""
        inside = (self.bars >= window.first)[:, None] & (self.bars[:, None] + self.horizons < window.stop)
        with np.errstate(invalid="ignore"):
            return float(((self.loss * inside).sum(axis=0) / (self.rival_loss * inside).sum(axis=0)).mean())


def _sigma_alone(data: MarketData, train: Span, horizons: IntArray) -> FloatArray:
    """(H, Q) in units of sigma * sqrt(horizon)."""
    outcome, known = outcomes(data, train, np.arange(train.first, train.stop), horizons)
    columns = zip(outcome.T, known.T, strict=True)
    return np.array([np.quantile(column[rows], QUANTILE_LEVELS) for column, rows in columns])


def _forecasts(policy: Policy, data: MarketData, span: Span, horizons: IntArray, rival: FloatArray) -> _Forecasts:
    """At every decision time of the span, with the outcomes that lie inside it."""
    bars = decision_bars(data.bars.close_ts_ns, span, policy.patch_bars)
    encoded = encode_decisions(policy, data, bars)
    outcome, known = outcomes(data, span, bars, horizons)
    quantiles = encoded.quantiles[:, : len(horizons)] / sigma_of(data, bars, horizons)[..., None]
    return _Forecasts(
        bars=bars,
        horizons=horizons,
        loss=np.where(known, pinball_losses(outcome, quantiles), 0.0),
        rival_loss=np.where(known, pinball_losses(outcome, rival), 0.0),
        coverage_frac=float(coverage(outcome, known, quantiles[..., 0], quantiles[..., -1]).mean()),
    )
