"""Rivals that learn: a ridge and boosted trees (scikit-learn) forecast the next day's return from a bar's features.

Fitted on labels that lie inside the training span. How much of a fit is kept, and how sure a forecast must be to trade
on, is chosen on the validation span, the latter by what it earns there after the costs at hand; staying in cash is one
of the choices. The test span is read by nothing but the trades in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from btcai.evaluation.metrics import DAYS_PER_YEAR, daily_returns, sharpe
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.targets import run_targets
from btcai.features.scaling import CLIP, Scaler, fit_scaler
from btcai.features.splits import Splits
from btcai.market.bars import BarArrays
from btcai.market.rules import Rules
from btcai.schema import BAR_NS, BARS_PER_DAY, FloatArray, IntArray, MarketData, Span

EVERY_BARS = 12
"""Rows learned from and decided at: one an hour, since labels of neighbouring bars are almost the same."""
RIDGE_LAMBDAS = (0.003, 0.03, 0.3, 3.0, 30.0)
"""Penalties, in multiples of the variance that a standardised feature has."""
TREES = 150
LOUDEST_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""A threshold is the size of forecast that this share of the validation span's stays below."""

Predict = Callable[[FloatArray], FloatArray]
"""Scaled features (N, F) -> forecasts (N,) of the return in sigmas."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Rows (N,) of a span, their scaled features (N, F), and the log return (N,) from each close over the horizon, in
    sigma * sqrt(horizon), held to +-CLIP. All of it lies inside the span."""

    rows: IntArray
    features: FloatArray
    returns: FloatArray


def run_forecasters(
    data: MarketData,
    splits: Splits,
    rules: Mapping[str, Rules],
    equity_usdt: float,
    bars: BarArrays,
    *,
    seed: int,
    horizon_bars: int = BARS_PER_DAY,
) -> dict[str, dict[str, BacktestResult]]:
    """Each forecaster under each of the rules on the test span: name -> rules' name -> result.

    bars: bar_arrays(data).
    """
    scaler = fit_scaler(data.features, splits.train)
    train, valid = (labelled(data, span, scaler, horizon_bars) for span in (splits.train, splits.valid))
    results: dict[str, dict[str, BacktestResult]] = {}
    for name, predict in (("ridge_1d", fit_ridge(train, valid)), ("boosted_1d", fit_trees(train, valid, seed))):
        past, now = (hourly_forecasts(predict, data, span, scaler) for span in (splits.valid, splits.test))
        results[name] = {}
        for severity, rule in rules.items():
            threshold = choose_threshold(past, data, splits.valid, rule, equity_usdt, bars)
            targets = threshold_targets(now, threshold)
            results[name][severity] = run_targets(
                targets, data, splits.test, rule, equity_usdt, bars=bars, note=_note(threshold)
            )
    return results


def labelled(data: MarketData, span: Span, scaler: Scaler, horizon_bars: int) -> Labelled:
    """The span's present rows on the clock whose horizon ends inside it."""
    rows = _clock_rows(data, Span(span.first, span.stop - horizon_bars))
    moves = np.log(data.mark[rows + horizon_bars] / data.mark[rows])
    returns = np.clip(moves / (data.sigma[rows] * horizon_bars**0.5), -CLIP, CLIP)
    return Labelled(rows=rows, features=_scaled(data, rows, scaler), returns=returns)


def fit_ridge(train: Labelled, valid: Labelled) -> Predict:
    """Least squares with the one of RIDGE_LAMBDAS whose squared error on the validation span is least."""
    from sklearn.linear_model import Ridge

    fits = [Ridge(alpha=scale * len(train.rows)).fit(train.features, train.returns) for scale in RIDGE_LAMBDAS]
    best = min(fits, key=lambda fit: _error(fit.predict(valid.features), valid))
    return best.predict  # type: ignore[no-any-return]


def fit_trees(train: Labelled, valid: Labelled, seed: int) -> Predict:
    """Gradient boosting (Friedman 2001) by small trees, as many as make the least error on the validation span."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    trees = HistGradientBoostingRegressor(
        max_iter=TREES,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=max(20, len(train.rows) // 100),
        early_stopping=False,  # it would judge by rows drawn from among those it is fitted on
        random_state=seed,
    ).fit(train.features, train.returns)
    errors = [_error(predicted, valid) for predicted in trees.staged_predict(valid.features)]
    kept = int(np.argmin(errors))

    def predict(features: FloatArray) -> FloatArray:
        return next(islice(trees.staged_predict(features), kept, None))

    return predict


def hourly_forecasts(predict: Predict, data: MarketData, span: Span, scaler: Scaler) -> FloatArray:
    """Forecasts (n,) at the closes of the span's present bars on the clock, else nan."""
    forecasts = np.full(len(span), np.nan)
    rows = _clock_rows(data, span)
    forecasts[rows - span.first] = predict(_scaled(data, rows, scaler))
    return forecasts


def threshold_targets(forecasts: FloatArray, threshold: float) -> FloatArray:
    """Targets (n,): all in above the threshold, out below its negative, else (and where nan) as it is."""
    return np.where(forecasts > threshold, 1.0, np.where(forecasts < -threshold, 0.0, np.nan))


def choose_threshold(
    forecasts: FloatArray, data: MarketData, span: Span, rules: Rules, equity_usdt: float, bars: BarArrays
) -> float:
    """The threshold with the highest Sharpe ratio on the (validation) span; infinite where none is above cash's 0."""

    def earned(threshold: float) -> float:
        result = run_targets(threshold_targets(forecasts, threshold), data, span, rules, equity_usdt, bars=bars)
        return sharpe(daily_returns(result.equity_usdt, result.close_ts_ns, equity_usdt), DAYS_PER_YEAR)

    sizes = np.abs(forecasts[~np.isnan(forecasts)])
    tried = [(earned(threshold), threshold) for threshold in np.quantile(sizes, LOUDEST_SHARES).tolist()]
    return max((pair for pair in tried if pair[0] > 0.0), default=(0.0, np.inf))[1]


def _note(threshold: float) -> str:
    if np.isinf(threshold):
        return "in cash: no threshold earned anything on the validation span"
    return f"trades on forecasts beyond {threshold:.3f} sigma, chosen on the validation span"


def _error(predicted: FloatArray, valid: Labelled) -> float:
    return float(np.mean((predicted - valid.returns) ** 2))


def _clock_rows(data: MarketData, span: Span) -> IntArray:
    """The span's present bars that close on the clock of EVERY_BARS."""
    on_clock = data.bars.close_ts_ns[span.first : span.stop] % (EVERY_BARS * BAR_NS) == 0
    return (np.flatnonzero(on_clock & data.bars.present[span.first : span.stop]) + span.first).astype(np.int64)


def _scaled(data: MarketData, rows: IntArray, scaler: Scaler) -> FloatArray:
    """Features (N, F) as the networks read them: standardised on the training span and clipped."""
    scaled: FloatArray = np.clip((data.features[rows] - scaler.mean) / scaler.std, -CLIP, CLIP).astype(np.float64)
    return scaled
