"""Markets whose best policy is known, so that a learner gets a mark out of 100 and not an impression.

r[t+1] = drift[t] + sigma * noise; drift is AR(1) with coefficient phi and stationary standard deviation s. A position
a[t] of 0 or 1, decided when bar t closes, earns a[t] * r[t+1] - cost * |a[t] - a[t-1]|. The best average reward is
found by dynamic programming over (position, drift): `shown` where the drift is among the features, `hidden` where it
must be filtered from past returns (a Kalman filter, whose estimate is itself AR(1) with phi). Drifts and returns are
simple returns as fractions; whatever is named _bps is in hundredths of a percent, per bar.

Policies are scored by the true drift that their positions earned, not by realised returns: over 100,000 bars the
realised result of the best policy itself swings by 4 to 13 %.
"""

import math
from dataclasses import dataclass

import numpy as np

from btcai.market.compiled import compiled
from btcai.market.kernel import Rules
from btcai.schema import BAR_NS, Bars, Float32Array, FloatArray, MarketData

RETURN_SCALE = 0.01
"""Returns, sigma and cost of the traded market over those of the formulas. Nothing but their ratios can be learned, and
at this size prices hardly move, so that profits add up instead of compounding and an account stays in its range."""

LOT_FRAC = 0.5
"""size_frac to trade it with, one lot of half the start's equity: the kernel's reward = LOT_FRAC * RETURN_SCALE *
the formula's."""

_FIRST_OPEN_NS = 1_577_836_800_000_000_000  # 2020-01-01 00:00 UTC
_START_PRICE = 10_000.0
_ENDLESS_BTC = 1e30  # volume that no order notices, whatever the price wandered to
_GRID_POINTS, _GRID_SDS, _QUADRATURE = 2001, 6.0, 16
_FEATURE_CLIP = 10.0


@dataclass(frozen=True, kw_only=True)
class Level:
    """One market: phi per bar, s and sigma standard deviations of drift and noise, cost a side."""

    phi: float
    s_bps: float
    sigma_bps: float
    cost_bps: float


LEVELS = {
    "easy": Level(phi=0.98, s_bps=15, sigma_bps=30, cost_bps=5),
    "medium": Level(phi=0.99, s_bps=8, sigma_bps=30, cost_bps=5),
    "hard": Level(phi=0.995, s_bps=5, sigma_bps=30, cost_bps=5),
    "very_hard": Level(phi=0.995, s_bps=3, sigma_bps=30, cost_bps=5),
}


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Best average reward per bar, and the (true or filtered) drift above which to buy and below which to sell."""

    value_bps: float
    buy_above_bps: float
    sell_below_bps: float


def shown_optimum(level: Level) -> Optimum:
    """The best of those who see the drift."""
    return _optimum(level.phi, level.s_bps, level.cost_bps)


def hidden_optimum(level: Level) -> Optimum:
    """The best of those who see returns only: the filtered drift is AR(1) with phi and a smaller spread."""
    variance, _ = _steady_filter(level)
    return _optimum(level.phi, math.sqrt(level.s_bps**2 - variance), level.cost_bps)


def _steady_filter(level: Level) -> tuple[float, float]:
    """Variance (bps squared) of drift[t] around its estimate from returns up to t, in the long run, and Kalman gain."""
    variance, noise = level.s_bps**2, level.sigma_bps**2
    for _ in range(10_000):
        variance = level.phi**2 * variance * noise / (variance + noise) + level.s_bps**2 * (1 - level.phi**2)
    return variance, variance / (variance + noise)


def _optimum(phi: float, sd: float, cost: float) -> Optimum:
    """Relative value iteration for an AR(1) drift of stationary spread sd; all in bps.

    With h(position, drift) the relative values, D = h(1, .) - h(0, .) solves D = clip(Q, -cost, cost),
    Q(x) = x + E[D(phi x + innovation)]: buy where Q > cost, sell where Q < -cost. From flat, h(0, x) + g =
    E h(0, next) + max(0, Q(x) - cost); its mean under the stationary law leaves the average reward
    g = E max(0, Q - cost).
    """
    drift = np.linspace(-_GRID_SDS * sd, _GRID_SDS * sd, _GRID_POINTS)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE)
    weights = weights / weights.sum()
    following = phi * drift[:, None] + sd * math.sqrt(1 - phi**2) * nodes
    advantage = np.clip(drift, -cost, cost)
    for _ in range(10_000):
        worth = drift + np.interp(following, drift, advantage) @ weights
        updated = np.clip(worth, -cost, cost)
        change = float(np.abs(updated - advantage).max())
        advantage = updated
        if change < 1e-9 * cost:
            break
    density = np.exp(-0.5 * (drift / sd) ** 2)
    value = float((np.maximum(worth - cost, 0.0) * density).sum() / density.sum())
    buy, sell = (float(np.interp(level, worth, drift)) for level in (cost, -cost))
    return Optimum(value_bps=value, buy_above_bps=buy, sell_below_bps=sell)


def simulate_paths(level: Level, n_bars: int, n_paths: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """returns (n_paths, n_bars) and drift (n_paths, n_bars): drift[:, t] is what moves returns[:, t + 1]."""
    rng = np.random.default_rng(seed)
    drift = _autoregression(rng.standard_normal((n_paths, n_bars + 1)), level.phi) * (level.s_bps / 1e4)
    returns = drift[:, :-1] + level.sigma_bps / 1e4 * rng.standard_normal((n_paths, n_bars))
    return returns, drift[:, 1:].copy()


@compiled
def _autoregression(noise: FloatArray, phi: float) -> FloatArray:
    """Stationary AR(1) of unit spread from standard normal noise (P, T)."""
    out = noise.copy()
    innovation = math.sqrt(1.0 - phi * phi)
    for path in range(noise.shape[0]):
        for t in range(1, noise.shape[1]):
            out[path, t] = phi * out[path, t - 1] + innovation * noise[path, t]
    return out


def filtered_drift(returns: FloatArray, level: Level) -> FloatArray:
    """returns (P, T) -> the best estimate (P, T) of drift[:, t] from returns up to t, steady gain throughout."""
    _, gain = _steady_filter(level)
    return _filter(returns, level.phi, gain)


@compiled
def _filter(returns: FloatArray, phi: float, gain: float) -> FloatArray:
    out = np.empty_like(returns)
    for path in range(returns.shape[0]):
        estimate = 0.0
        for t in range(returns.shape[1]):
            estimate = phi * (estimate + gain * (returns[path, t] - estimate))
            out[path, t] = estimate
    return out


@compiled
def _thresholds(drift: FloatArray, buy_above: float, sell_below: float) -> FloatArray:
    out = np.empty_like(drift)
    for path in range(drift.shape[0]):
        position = 0.0
        for t in range(drift.shape[1]):
            if drift[path, t] > buy_above:
                position = 1.0
            elif drift[path, t] < sell_below:
                position = 0.0
            out[path, t] = position
    return out


def shown_positions(drift: FloatArray, level: Level) -> FloatArray:
    """drift (P, T) -> the best positions (P, T) of those who see it."""
    best = shown_optimum(level)
    return _thresholds(drift, best.buy_above_bps / 1e4, best.sell_below_bps / 1e4)


def hidden_positions(returns: FloatArray, level: Level) -> FloatArray:
    """returns (P, T) -> the best positions (P, T) of those who see them only."""
    best = hidden_optimum(level)
    return _thresholds(filtered_drift(returns, level), best.buy_above_bps / 1e4, best.sell_below_bps / 1e4)


def policy_value_bps(positions: FloatArray, drift: FloatArray, cost_bps: float) -> FloatArray:
    """positions and drift (..., T) -> expected reward per bar (...): drift earned less costs, from flat."""
    turnover = np.abs(np.diff(positions, axis=-1, prepend=0.0))
    return np.asarray((positions * drift).mean(-1) * 1e4 - cost_bps * turnover.mean(-1))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Share of the optimum, 1 = as good, with its 95 % interval over paths (nan for one path)."""

    mean: float
    low: float
    high: float
    n_paths: int


def score(agent_values: FloatArray, optimal_values: FloatArray) -> Score:
    """Values (n_paths,) of an agent and of the best policy on the same paths -> ratio of their sums.

    Interval: delta method for a ratio of means, Student's t with n_paths - 1 degrees of freedom.
    """
    agent, optimal = np.atleast_1d(agent_values), np.atleast_1d(optimal_values)
    n, ratio = len(agent), float(np.sum(agent_values) / np.sum(optimal_values))
    if n < 2:
        return Score(mean=ratio, low=math.nan, high=math.nan, n_paths=n)
    error = float(np.std(agent - ratio * optimal, ddof=1)) / math.sqrt(n) / abs(float(optimal.mean()))
    half = _student_t_975(n - 1) * error
    return Score(mean=ratio, low=ratio - half, high=ratio + half, n_paths=n)


def _student_t_975(dof: int) -> float:
    """The 97.5 % quantile of Student's t; exact for 1 and 2, else Abramowitz and Stegun 26.7.5, within 1 %."""
    if dof <= 2:
        return (12.706205, 4.302653)[dof - 1]
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / dof**power for power, term in enumerate(terms)))


def market_from_returns(
    returns: FloatArray, features: Float32Array, feature_names: tuple[str, ...], sigma: float
) -> MarketData:
    """Simple returns (T,) and features (T, F), mask last -> a market without gaps, open[t+1] = close[t].

    A lot decided at the close of t fills at that very price, so with known_answer_rules a bar earns what the formula
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


def known_answer_market(
    level: Level, n_bars: int, seed: int, shown: bool, n_noise_features: int = 16
) -> tuple[MarketData, FloatArray]:
    """A market of n_bars and its drift (T,). Features: the bar's return / sigma, drift / s where shown, noise, mask."""
    returns, drift = simulate_paths(level, n_bars, 1, seed)
    columns = {"return_sigmas": np.clip(returns[0] / (level.sigma_bps / 1e4), -_FEATURE_CLIP, _FEATURE_CLIP)}
    if shown:
        columns["drift_sds"] = drift[0] / (level.s_bps / 1e4)
    noise = np.random.default_rng((seed, 1)).standard_normal((n_noise_features, n_bars))
    columns |= {f"noise_{i:02d}": row for i, row in enumerate(noise)}
    columns["mask"] = np.ones(n_bars)
    features = np.stack(list(columns.values()), axis=1).astype(np.float32)
    traded = RETURN_SCALE * returns[0]
    return market_from_returns(traded, features, tuple(columns), RETURN_SCALE * level.sigma_bps / 1e4), drift[0]


def known_answer_rules(level: Level) -> Rules:
    """One lot, the level's cost as the only one, no limits, nothing compounding; reward = profit / start's equity."""
    return Rules(
        fee_frac=RETURN_SCALE * level.cost_bps / 1e4,
        half_spread_frac=0.0,
        impact_coef=0.0,
        max_volume_share=1.0,
        max_lots=1,
        stop_loss_frac=0.0,
        max_exposure_frac=1.0,
        daily_loss_halt_frac=1.0,
        drawdown_halt_frac=1.0,
        cool_down_bars=0,
        goal_frac=1.0,
        patch_bars=1,
        w_net_profit=1.0,
        w_cost=0.0,
        w_drawdown=0.0,
        w_win=0.0,
        w_goal=0.0,
        compound=False,
    )
