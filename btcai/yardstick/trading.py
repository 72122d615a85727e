"""A market of the yardstick as bars, features and rules: what a learner and the execution model take."""

import numpy as np

from btcai.market.rules import FREE_RULES, Rules
from btcai.schema import BAR_NS, Bars, Float32Array, FloatArray, MarketData
from btcai.yardstick.paths import Paths, YardstickMarket

RETURN_SCALE = 0.01
"""Returns, sigma and cost of the traded market over those of the formulas. Nothing but their ratios can be learned, and
at this size prices hardly move, so that profits add up instead of compounding and an account stays in its range."""

LOT_FRAC = 0.5
"""size_frac to trade it with, one lot of half the start's equity: the kernel's reward = LOT_FRAC * RETURN_SCALE *
the formula's."""

HORIZONS_PATCHES = (4, 16, 64)
"""Over which a learner predicts, beside the next decision."""

_FIRST_OPEN_NS = 5_259_520 * BAR_NS  # 2020-01-01 05:20 UTC, where a patch of 1, 2, 10 and 28 bars begins
_START_PRICE = 10_000.0
_ENDLESS_BTC = 1e30  # volume that no order notices, whatever the price wandered to
_FEATURE_CLIP = 10.0


def yardstick_data(
    market: YardstickMarket, n_decisions: int, seed: int, n_noise_features: int = 16
) -> tuple[MarketData, Paths]:
    """One path as bars, and the path. Features: the bar's return in sigmas, the signals, noise, mask."""
    paths = market.simulate(n_decisions, 1, seed)
    returns, sigma = paths.bar_returns[0], market.bar_sigma_bps / 1e4
    columns = {"return_sigmas": np.clip(returns / sigma, -_FEATURE_CLIP, _FEATURE_CLIP)}
    columns |= {name: signal[0] for name, signal in paths.signals.items()}
    noise = np.random.default_rng((seed, 1)).standard_normal((n_noise_features, len(returns)))
    columns |= {f"noise_{i:02d}": row for i, row in enumerate(noise)}
    columns["mask"] = np.ones(len(returns))
    features = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return market_from_returns(RETURN_SCALE * returns, features, tuple(columns), RETURN_SCALE * sigma), paths


def market_from_returns(
    returns: FloatArray, features: Float32Array, feature_names: tuple[str, ...], sigma: float
) -> MarketData:
    """Simple returns (T,) and features (T, F), mask last -> a market without gaps, open[t+1] = close[t].

    A lot decided at the close of t fills at that very price, so with yardstick_rules a bar earns what the formula
    says times close[t] / entry, because a lot's BTC are fixed at entry: next to nothing at RETURN_SCALE, while at full
    size a long rising holding compounds (20,000 bars of the best policy on `hard`: 1.6 times the plain sum).
    """
    close: FloatArray = np.asarray(_START_PRICE * np.cumprod(1.0 + returns), dtype=np.float64)
    opened = np.concatenate(([_START_PRICE], close[:-1]))
    n = len(returns)
    bars = Bars(
        close_ts_ns=_FIRST_OPEN_NS + BAR_NS * np.arange(1, n + 1, dtype=np.int64),
        open=opened,
        high=np.maximum(opened, close),
        low=np.minimum(opened, close),
        close=close,
        volume=np.full(n, _ENDLESS_BTC),
        present=np.ones(n, dtype=np.bool_),
    )
    return MarketData(
        bars=bars,
        mark=close,
        sigma=np.full(n, sigma),
        features=features,
        feature_names=feature_names,
        warmup_bars=0,
    )


def yardstick_rules(cost_bps: float, patch_bars: int = 1) -> Rules:
    """One lot, the cost of a side as the only one, no limits, nothing compounding; reward = profit / start's equity."""
    return FREE_RULES._replace(
        taker_fee_frac=RETURN_SCALE * cost_bps / 1e4, max_lots=1, goal_frac=1.0, patch_bars=patch_bars
    )
