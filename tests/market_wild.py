"""Markets and rules drawn at random, wilder than any real ones: what the proofs of the market walk over."""

import numpy as np
from hypothesis import strategies as st
from market_world import MIDNIGHT_NS, make_market

from btcai.market.rules import NEVER_USDT, Rules
from btcai.schema import BAR_NS, FloatArray, MarketData

BARS_PER_DAY = (288, 8, 1)
"""Of a wild market: as ours, or so long that days, transfers and the 30 days of a fee tier pass in few bars."""


def wild_market(rng: np.random.Generator, n_bars: int = 80) -> MarketData:
    """Jumps, gaps, flash crashes and squeezes, missing stretches, no volume; funding of both signs and unknown."""
    volatility = rng.choice([0.002, 0.03])
    prices = 100 * np.exp(np.cumsum(rng.normal(0, volatility, n_bars)))
    data = make_market(
        prices,
        volume=rng.choice([0.0, 5.0, 200.0, 1e6], n_bars).tolist(),
        sigma=rng.uniform(0.001, 0.05, n_bars).tolist(),
        missing=_missing(rng, n_bars),
        funding=dict(enumerate(rng.choice([0.0, 0.001, -0.002, np.nan], n_bars, p=[0.7, 0.1, 0.1, 0.1]).tolist())),
        first_open_ns=MIDNIGHT_NS - 40 * BAR_NS,
    )
    bars = data.bars
    bars.open[:] *= np.exp(rng.normal(0, volatility / 2, n_bars)) * rng.choice(
        [1.0, 0.8, 1.25], n_bars, p=[0.96, 0.02, 0.02]
    )
    bars.low[:] = np.minimum(bars.low, bars.open) * _wick(rng, n_bars)
    bars.high[:] = np.maximum(bars.high, bars.open) / _wick(rng, n_bars)
    bars.close_ts_ns[:] = MIDNIGHT_NS + (np.arange(n_bars) - 40) * (86_400_000_000_000 // int(rng.choice(BARS_PER_DAY)))
    return data


def _missing(rng: np.random.Generator, n_bars: int) -> list[int]:
    single = rng.random(n_bars) < 0.05
    stretch = (np.arange(n_bars) - rng.integers(n_bars)) % n_bars < rng.choice([0, 12])
    return (1 + np.flatnonzero((single | stretch)[1:])).tolist()


def _wick(rng: np.random.Generator, n_bars: int) -> FloatArray:
    """How far a bar reaches past its body: mostly little, at times far."""
    return np.where(rng.random(n_bars) < 0.05, rng.uniform(0.3, 1.0, n_bars), rng.uniform(0.97, 1.0, n_bars))


def fractions(most: float) -> st.SearchStrategy[float]:
    """0 (off) as often as not, else up to most; nothing so small that it is lost in rounding."""
    return st.just(0.0) | st.floats(1e-5, most)


def tiers(strategy: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, float, float, float]]:
    return st.tuples(strategy, strategy, strategy, strategy)


FIELDS: dict[str, st.SearchStrategy[object]] = {
    "taker_fee_frac": fractions(0.02),
    "maker_fee_frac": st.floats(-0.001, 0.02),
    "tier_usdt": tiers(st.floats(100.0, 1e5) | st.just(NEVER_USDT)).map(lambda values: tuple(sorted(values))),
    "tier_maker_factor": tiers(st.floats(0.0, 1.0)),
    "tier_taker_factor": tiers(st.floats(0.0, 1.0)),
    "half_spread_frac": fractions(0.01),
    "impact_coef": fractions(3.0),
    "max_volume_share": st.floats(0.01, 1.0),
    "lot_step_btc": st.sampled_from([0.0, 1e-5, 0.001, 0.7]),
    "tick_usdt": st.sampled_from([0.0, 0.01, 0.1, 3.0]),
    "min_notional_usdt": st.sampled_from([0.0, 5.0, 500.0]),
    "latency_bars": st.sampled_from([0, 0, 1, 3]),
    "maker_bars": st.sampled_from([0, 0, 1, 4]),
    "perpetual": st.sampled_from([True, True, False]),
    "allow_short": st.sampled_from([True, True, False]),
    "missing_funding_frac": fractions(0.01),
    "maintenance_frac": fractions(0.3),
    "transfer_every_days": st.sampled_from([0, 1, 3]),
    "transfer_usdt": st.sampled_from([0.0, 1_000.0, -1_500.0, -1e6]),
    "transfer_daily_probability": st.sampled_from([0.0, 0.3, 1.0]),
    "transfer_max_frac": st.floats(0.0, 1.0),
    "max_lots": st.integers(1, 25),
    "stop_loss_frac": fractions(0.1),
    "take_profit_frac": fractions(0.1),
    "max_exposure_frac": st.just(1.0) | st.floats(0.2, 1.0),
    "daily_loss_halt_frac": st.just(1.0) | st.floats(0.02, 0.3),
    "drawdown_halt_frac": st.just(1.0) | st.floats(0.05, 0.5),
    "cool_down_bars": st.integers(0, 8),
    "goal_frac": st.floats(0.01, 1.0),
    "patch_bars": st.integers(1, 3),
    "w_net_profit": st.floats(0.0, 2.0),
    "w_cost": st.floats(0.0, 2.0),
    "w_drawdown": st.floats(0.0, 2.0),
    "w_win_rate": st.floats(0.0, 2.0),
    "w_bonus": st.floats(0.0, 2.0),
    "w_goal": st.floats(0.0, 2.0),
    "compound": st.booleans(),
}


def _lawful(rules: Rules) -> Rules:
    return rules._replace(allow_short=rules.allow_short and rules.perpetual)


wild_rules = st.builds(Rules, **FIELDS).map(_lawful)
"""Every field of Rules from FIELDS; shorts only of a perpetual swap."""
