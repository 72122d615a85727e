"""Do the forecasts mean what they say? Predicted quantiles beside the outcomes of the test span, per horizon."""

import math
from dataclasses import dataclass

import numpy as np

from btcai.calibration import (
    MIN_INDEPENDENT,
    StaticCalibration,
    coverage,
    fit_temperature,
    follow,
    new_adaptive,
    overlap_and_delay,
    rise_log_odds,
    temperature_interval,
)
from btcai.config import BucketConfig
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.statistics import LEVEL
from btcai.schema import QUANTILE_LEVELS, BoolArray, FloatArray, IntArray, MarketData, Span

INTERVAL_FRAC = QUANTILE_LEVELS[-1] - QUANTILE_LEVELS[0]
"""Share of outcomes that the outer pair of quantiles promises to hold."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What one form of a horizon's quantiles held; shares are 0 .. 1, undefined figures nan."""

    observed: tuple[float, ...]
    """(Q,) share of outcomes at or below each quantile."""
    coverage_frac: float
    """Share of outcomes inside the 90 % interval."""
    pinball_ratio: float
    """Mean pinball loss / that of a forecast which knows sigma alone: below 1 the model knows more."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """One horizon's forecasts beside their outcomes.

    low, high (Q,): where the share of outcomes at or below each quantile falls in 95 % of cases when the forecasts are
    right and only `apart` outcomes tell; coverage_low and coverage_high: the same of the 90 % interval.
    """

    horizon_bars: int
    outcomes: int
    """Decisions whose horizon ends inside the span."""
    apart: int
    """Outcomes that do not overlap: decisions come more often than a horizon ends."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    coverage_low: float
    coverage_high: float
    raw: Held
    """As the network learned to predict; undefined where the static calibration is not at hand."""
    static: Held
    """As the bundle says it: offsets of the validation span."""
    adaptive: Held
    """As issued with the offsets that followed the outcomes, from the span's first decision on."""
    information_coefficient: float
    """Correlation of predicted mean and outcome, both in units of sigma * sqrt(horizon)."""
    information_noise: float
    """95 % of the correlations of a forecast that knows nothing lie within +- this."""
    rise_temperature: float
    """What the log odds of a rise should have been divided by: above 1 they were too sure."""
    rise_temperature_low: float
    rise_temperature_high: float
    """Ends of its 95 % interval; the high one is infinite where the odds may as well say nothing."""

    @property
    def is_judged(self) -> bool:
        """Whether there are enough outcomes to call the forecasts right or wrong."""
        return self.apart >= MIN_INDEPENDENT


def reliability(
    result: BacktestResult,
    data: MarketData,
    bucket: BucketConfig,
    history: Span,
    static: StaticCalibration | None = None,
) -> tuple[Reliability, ...]:
    """One record per horizon, shortest first, from the forecasts that a backtest's decisions rested on.

    `history` is where the reference gets its quantiles: the training span's outcomes in units of sigma * sqrt(horizon).
    `static` is the calibration inside those forecasts; without it they are not shown as they were before it.
    ValueError for a result without forecasts.
    """
    if result.encoded is None:
        raise ValueError("a reliability needs the forecasts of a bucket's backtest, was a baseline's result")
    horizons = np.asarray(bucket.horizons_bars)
    unit = sigma_of(data, result.decisions, horizons)
    outcome, known = outcomes(data, result.span, result.decisions, horizons)
    past, seen = outcomes(data, history, np.arange(history.first, history.stop), horizons)
    forms = forms_of(result.encoded.quantiles / unit[..., None], outcome, known, bucket, static)
    mean, std = result.encoded.mean / unit, result.encoded.std / unit
    return tuple(
        _horizon(
            int(horizon),
            bucket.patch_bars,
            outcome[rows, h],
            mean[rows, h],
            std[rows, h],
            {name: quantiles[rows, h] for name, quantiles in forms.items()},
            past[seen[:, h], h],
        )
        for h, (horizon, rows) in enumerate(zip(horizons, known.T, strict=True))
    )


def forms_of(
    quantiles: FloatArray,
    outcome: FloatArray,
    known: BoolArray,
    bucket: BucketConfig,
    static: StaticCalibration | None,
    *,
    adapts: str = "static",
) -> dict[str, FloatArray]:
    """Quantiles (D, H, Q) before the static calibration, after it, and after the adaptive one of which `adapts`."""
    # The bundle sorts after its offsets: taken off again they give what it began with where it had not to.
    raw = np.full_like(quantiles, np.nan) if static is None else np.sort(quantiles - static.offset, axis=-1)
    forms = {"raw": raw, "static": quantiles}
    overlap, delay = overlap_and_delay(bucket.horizons_bars, bucket.patch_bars)
    state = new_adaptive(np.asarray(QUANTILE_LEVELS), overlap)
    issued, _ = follow(state, forms[adapts], outcome, known, delay)
    return {**forms, "adaptive": issued}


def _horizon(
    horizon: int,
    patch_bars: int,
    outcome: FloatArray,
    mean: FloatArray,
    std: FloatArray,
    forms: dict[str, FloatArray],
    past: FloatArray,
) -> Reliability:
    """n outcomes, means, stds (n,) and forms of quantiles (n, Q) of one horizon, outcomes before them: of one unit."""
    overlap = max(1.0, horizon / patch_bars)
    apart = int(len(outcome) // overlap)
    low, high = expected_shares(np.asarray(QUANTILE_LEVELS), apart)
    (inside_low,), (inside_high,) = expected_shares(np.array([INTERVAL_FRAC]), apart)
    temperature, *ends = _rise_temperature(rise_log_odds(mean, std), outcome > 0, overlap)
    return Reliability(
        horizon_bars=horizon,
        outcomes=len(outcome),
        apart=apart,
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        coverage_low=float(inside_low),
        coverage_high=float(inside_high),
        **{name: _held(outcome, quantiles, past) for name, quantiles in forms.items()},
        information_coefficient=_correlation(mean, outcome),
        information_noise=1.96 / math.sqrt(apart) if apart else float("nan"),
        rise_temperature=temperature,
        rise_temperature_low=ends[0],
        rise_temperature_high=ends[1],
    )


def _held(outcome: FloatArray, quantiles: FloatArray, past: FloatArray) -> Held:
    """Outcomes (n,), quantiles (n, Q) and the outcomes before them; all undefined without outcomes or quantiles."""
    if not len(outcome) or np.isnan(quantiles).any():
        nan = float("nan")
        return Held(observed=(nan,) * len(QUANTILE_LEVELS), coverage_frac=nan, pinball_ratio=nan)
    certain = np.ones((len(outcome), 1), np.bool_)
    (inside,) = coverage(outcome[:, None], certain, quantiles[:, :1], quantiles[:, -1:])
    return Held(
        observed=tuple((outcome[:, None] <= quantiles).mean(axis=0).tolist()),
        coverage_frac=float(inside),
        pinball_ratio=_pinball_ratio(outcome, quantiles, past),
    )


def _rise_temperature(log_odds: FloatArray, rose: BoolArray, overlap: float) -> tuple[float, float, float]:
    """Temperature and its interval; nan where there are too few outcomes to fit one, or nothing was said."""
    if len(rose) / overlap < MIN_INDEPENDENT or not log_odds.any():
        return float("nan"), float("nan"), float("nan")
    temperature = fit_temperature(log_odds, rose, overlap)
    return temperature, *temperature_interval(log_odds, temperature, overlap)


def outcomes(data: MarketData, span: Span, bars: IntArray, horizons_bars: IntArray) -> tuple[FloatArray, BoolArray]:
    """Log returns of the mark after each bar in units of sigma * sqrt(horizon), and whether they are known: (D, H).

    The targets that training learns (agent.task.forecast_targets): known where the horizon ends inside the span and
    neither end is a missing bar.
    """
    ends = bars[:, None] + horizons_bars
    present = data.bars.present
    known = (ends < span.stop) & present[bars][:, None]
    ends = np.minimum(ends, span.stop - 1)
    known &= present[ends]
    return np.log(data.mark[ends] / data.mark[bars][:, None]) / sigma_of(data, bars, horizons_bars), known


def sigma_of(data: MarketData, bars: IntArray, horizons_bars: IntArray) -> FloatArray:
    """Standard deviation (D, H) of the log return over each horizon, were bars independent."""
    return np.asarray(data.sigma)[bars][:, None] * np.sqrt(horizons_bars)


def expected_shares(levels: FloatArray, apart: int) -> tuple[FloatArray, FloatArray]:
    """Low and high end (Q,) of the share that `apart` independent outcomes show with chance LEVEL at true levels."""
    if apart == 0:
        return np.zeros(len(levels)), np.ones(len(levels))
    from scipy.stats import binom  # slow to import, and only reports need it

    tail = (1.0 - LEVEL) / 2
    return binom.ppf(tail, apart, levels) / apart, binom.ppf(1.0 - tail, apart, levels) / apart


def _pinball_ratio(outcome: FloatArray, quantiles: FloatArray, past: FloatArray) -> float:
    if not len(past):
        return float("nan")
    return pinball(outcome, quantiles) / pinball(outcome, np.quantile(past, QUANTILE_LEVELS))


def pinball(outcome: FloatArray, quantiles: FloatArray) -> float:
    """Mean pinball loss of quantiles (n, Q) or (Q,) at QUANTILE_LEVELS for outcomes (n,)."""
    return float(pinball_losses(outcome, quantiles).mean())


def pinball_losses(outcome: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Mean over QUANTILE_LEVELS of the pinball loss of quantiles (..., Q) for each of outcomes (...)."""
    error, level = outcome[..., None] - quantiles, np.asarray(QUANTILE_LEVELS)
    return np.asarray(np.maximum(level * error, (level - 1.0) * error).mean(axis=-1))


def _correlation(forecast: FloatArray, outcome: FloatArray) -> float:
    if len(outcome) < 3 or np.ptp(forecast) == 0.0 or np.ptp(outcome) == 0.0:
        return float("nan")
    return float(np.corrcoef(forecast, outcome)[0, 1])
