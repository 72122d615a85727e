"""What the forecasts are worth on any span: coverage by quarter, CRPS beside volatility's, direction, break-even cost.

Two forms are in use. `btcai decide`, the registered model and a request that brings its own bars say the static one:
the bundle's offsets and nothing after them. A market that `btcai serve` watches says the adaptive one, which starts
from the static one and follows outcomes a horizon late, from the first decision that is asked for on; on the test span
it is computed just so, with every decision asked for. On the validation span the static calibration was fitted, and the
weights were chosen there: static figures are in-sample, and the adaptive form starts from the quantiles as learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from btcai.calibration import MIN_INDEPENDENT, StaticCalibration
from btcai.config import BucketConfig
from btcai.evaluation import daily_scores as scores
from btcai.evaluation.backtest import decisions_with_history, encode_decisions
from btcai.evaluation.crps import quantile_crps, student_t_crps
from btcai.evaluation.daily_scores import FORMS
from btcai.evaluation.direction_skill import Called, called, directions
from btcai.evaluation.metrics import utc_days
from btcai.evaluation.reliability import INTERVAL_FRAC, expected_shares, forms_of, outcomes, sigma_of
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.statistics import UNKNOWN, Interval
from btcai.evaluation.volatility_forecast import VolatilityForecast, fit_volatility_forecasts
from btcai.features.splits import Splits
from btcai.inference.bundle import Encoded, Policy
from btcai.reasoning.lessons import holm
from btcai.schema import BARS_PER_DAY, BoolArray, FloatArray, IntArray, MarketData, Span

COVERAGE_LIMITS = (0.885, 0.915)
"""Between which the 90 % interval is to hold outcomes of horizons up to a day."""

QUARTER_LEAST = 0.87
"""Of them in every calendar quarter."""

Adapts = Literal["raw", "static"]
"""Which form the adaptive offsets start from."""


@dataclass(frozen=True, kw_only=True)
class Quarter:
    """Coverage of the 90 % interval in one calendar quarter, or the part of it that the span holds."""

    name: str
    """2024Q1, by the day of the decision"""
    outcomes: int
    apart: int
    """Of them, that do not overlap."""
    low: float
    high: float
    """Where the coverage of right intervals falls in 95 % of cases, were the outcomes apart all that tells."""
    coverage_frac: tuple[float, ...]
    """Of FORMS."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What one form of the quantiles held and said; undefined figures nan."""

    coverage_frac: float
    worst_quarter_frac: float
    """Of the quarters with MIN_INDEPENDENT outcomes apart; nan where there is none."""
    crps_bps: float
    skill: float
    """1 - CRPS / that of the EWMA Student-t."""
    skill_interval: Interval


@dataclass(frozen=True, kw_only=True)
class ForecastSkill:
    """One bucket's forecasts of one horizon on one span."""

    span: str
    bucket: str
    horizon_bars: int
    outcomes: int
    apart: int
    coverage_low: float
    coverage_high: float
    """Where the coverage of right intervals falls in 95 % of cases, of so many outcomes apart."""
    rival: VolatilityForecast
    rival_crps_bps: float
    raw: Form
    static: Form
    adaptive: Form
    quarters: tuple[Quarter, ...]
    called: Called

    @property
    def is_judged(self) -> bool:
        """Whether there are enough outcomes to call the forecasts right or wrong."""
        return self.apart >= MIN_INDEPENDENT

    @property
    def is_limited(self) -> bool:
        """Whether COVERAGE_LIMITS and QUARTER_LEAST are asked of this horizon."""
        return self.is_judged and self.horizon_bars <= BARS_PER_DAY


def forecast_skills(
    policies: Mapping[str, Policy],
    statics: Mapping[str, StaticCalibration],
    walked: Mapping[str, BacktestResult],
    data: MarketData,
    splits: Splits,
    buckets: Mapping[str, BucketConfig],
    *,
    seed: int,
) -> tuple[ForecastSkill, ...]:
    """On the validation span, then on the test span of which `walked` holds the forecasts; by bucket and horizon.

    `statics`: the calibration inside each policy's forecasts.
    """
    horizons = tuple(h for bucket in policies for h in buckets[bucket].horizons_bars)
    rivals = fit_volatility_forecasts(data, splits.train, horizons)

    def of(
        span: str, where: Span, bucket: str, bars: IntArray, encoded: Encoded, adapts: Adapts
    ) -> list[ForecastSkill]:
        chosen = buckets[bucket]
        return [
            replace(found, span=span, bucket=bucket)
            for found in bucket_skills(encoded, bars, data, where, chosen, statics[bucket], rivals, adapts, seed=seed)
        ]

    known, chosen_on = [], []
    for bucket, policy in policies.items():
        bars = decisions_with_history(policy, data, splits.valid)
        encoded = encode_decisions(policy, data, bars)
        chosen_on += of("validation", splits.valid, bucket, bars, encoded, "raw")
        walk = walked[bucket]
        if walk.encoded is not None:
            known += of("test", walk.span, bucket, walk.decisions, walk.encoded, "static")
    return (*corrected(chosen_on), *corrected(known))


def bucket_skills(
    encoded: Encoded,
    bars: IntArray,
    data: MarketData,
    span: Span,
    bucket: BucketConfig,
    static: StaticCalibration,
    rivals: Mapping[int, VolatilityForecast],
    adapts: Adapts,
    *,
    seed: int,
) -> tuple[ForecastSkill, ...]:
    """A record per horizon, shortest first, of what was forecast (D rows) at bars (D,) of a span; p_holm as p_value."""
    horizons = np.asarray(bucket.horizons_bars)
    unit = sigma_of(data, bars, horizons)
    outcome, known = outcomes(data, span, bars, horizons)
    forms = forms_of(encoded.quantiles / unit[..., None], outcome, known, bucket, static, adapts=adapts)
    seen = data.until(span.stop)
    return tuple(
        _horizon(
            bars[rows],
            outcome[rows, h] * unit[rows, h],
            {name: forms[name][rows, h] * unit[rows, h, None] for name in FORMS},
            directions(seen, bars[rows], horizon, encoded.mean[rows, h].astype(np.float64), encoded.std[rows, h]),
            seen,
            bucket.patch_bars,
            rivals[horizon],
            seed,
        )
        for h, (horizon, rows) in enumerate(zip(horizons.tolist(), known.T, strict=True))
    )


def _horizon(
    bars: IntArray,
    outcome: FloatArray,
    forms: dict[str, FloatArray],
    direction: scores.Direction,
    data: MarketData,
    patch_bars: int,
    rival: VolatilityForecast,
    seed: int,
) -> ForecastSkill:
    """n decisions with known outcomes (n,) and forms of quantiles (n, Q), all as log returns over one horizon."""
    overlap = max(1.0, rival.horizon_bars / patch_bars)
    apart = int(len(bars) // overlap)
    stamps = np.asarray(data.bars.close_ts_ns)[bars]
    inside = {name: (q[:, 0] <= outcome) & (outcome <= q[:, -1]) for name, q in forms.items()}
    crps = [quantile_crps(outcome, quantiles) for quantiles in forms.values()]
    crps.append(student_t_crps(outcome, rival.scales(data, bars), rival.degrees))
    days = utc_days(stamps)
    sums = scores.daily_sums(days - (days[0] if len(days) else 0), np.stack(crps, axis=1), direction)
    draws = scores.resampled_sums(sums, rival.horizon_bars, seed=seed) if apart >= MIN_INDEPENDENT else None
    total = sums.sum(axis=0)
    quarters = _quarters(stamps, inside, overlap)
    (low,), (high,) = expected_shares(np.array([INTERVAL_FRAC]), apart)
    return ForecastSkill(
        span="",
        bucket="",
        horizon_bars=rival.horizon_bars,
        outcomes=len(bars),
        apart=apart,
        coverage_low=float(low),
        coverage_high=float(high),
        rival=rival,
        rival_crps_bps=scores.BPS * float(scores.mean_of(total, "rival", "outcomes")),
        **{name: _form(place, name, inside[name], quarters, total, draws) for place, name in enumerate(FORMS)},
        quarters=quarters,
        called=called(total, draws),
    )


def _form(
    place: int,
    name: str,
    inside: BoolArray,
    quarters: tuple[Quarter, ...],
    total: FloatArray,
    draws: FloatArray | None,
) -> Form:
    judged = [quarter.coverage_frac[place] for quarter in quarters if quarter.apart >= MIN_INDEPENDENT]
    return Form(
        coverage_frac=float(inside.mean()) if len(inside) else float("nan"),
        worst_quarter_frac=min(judged, default=float("nan")),
        crps_bps=scores.BPS * float(scores.mean_of(total, name, "outcomes")),
        skill=float(scores.skill(total, name)),
        skill_interval=UNKNOWN if draws is None else scores.percentiles(scores.skill(draws, name)),
    )


def _quarters(stamps: IntArray, inside: Mapping[str, BoolArray], overlap: float) -> tuple[Quarter, ...]:
    """Of n decisions at stamps (n,), oldest first, and whether each outcome was inside (n,) in every form."""
    months = utc_days(stamps).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    found = []
    for number in np.unique(months // 3):
        rows = months // 3 == number
        apart = int(rows.sum() // overlap)
        (low,), (high,) = expected_shares(np.array([INTERVAL_FRAC]), apart)
        found.append(
            Quarter(
                name=f"{1970 + number // 4}Q{number % 4 + 1}",
                outcomes=int(rows.sum()),
                apart=apart,
                low=float(low),
                high=float(high),
                coverage_frac=tuple(float(inside[name][rows].mean()) for name in FORMS),
            )
        )
    return tuple(found)


def corrected(found: Sequence[ForecastSkill]) -> tuple[ForecastSkill, ...]:
    """With p_holm over all that have a p-value."""
    chances = np.array([one.called.p_value for one in found], np.float64)
    tested = np.isfinite(chances)
    chances[tested] = holm(chances[tested])
    return tuple(
        replace(one, called=replace(one.called, p_holm=float(chance)))
        for one, chance in zip(found, chances, strict=True)
    )


def skill_table(found: Sequence[ForecastSkill]) -> pd.DataFrame:
    """A row per span, bucket, horizon and calendar quarter, and one of the whole span (quarter "all")."""
    rows = []
    for one in found:
        record = asdict(one)
        quarters, head = record.pop("quarters"), {name: record.pop(name) for name in ("span", "bucket", "horizon_bars")}
        rows.append({**head, "quarter": "all", **_flat(record)})
        for quarter in quarters:
            held = {f"{name}_coverage_frac": share for name, share in zip(FORMS, quarter["coverage_frac"], strict=True)}
            counts = {"outcomes": quarter["outcomes"], "apart": quarter["apart"]}
            band = {"coverage_low": quarter["low"], "coverage_high": quarter["high"]}
            rows.append({**head, "quarter": quarter["name"], **counts, **band, **held})
    return pd.DataFrame(rows)


def _flat(record: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested names joined by _; an interval as its two ends."""
    flat: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}_")
        elif isinstance(value, tuple):
            low, high = value
            flat |= {
                f"{prefix}{name.replace('interval', 'low')}": low,
                f"{prefix}{name.replace('interval', 'high')}": high,
            }
        else:
            flat[f"{prefix}{name}"] = value
    return flat
