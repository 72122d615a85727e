"""The buckets as one portfolio: each trades its own share of the capital, and nothing moves between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from btcai.evaluation.metrics import MIN_PERIODS, NO_SPREAD, daily_returns
from btcai.evaluation.result import BacktestResult
from btcai.schema import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Portfolio:
    """One span's account of several buckets.

    result: equity, net exposure, costs and closed lots of all. correlation (B, B): of the buckets' daily returns, nan
    where one has no variance or there are fewer than MIN_PERIODS days. diversification_ratio: the mean volatility of
    the buckets by capital share / the volatility of the mix (Choueifaty and Coignard 2008); 1 where they move as one.
    """

    result: BacktestResult
    shares: Mapping[str, float]
    correlation: pd.DataFrame
    diversification_ratio: float


def combine(results: Mapping[str, BacktestResult], shares: Mapping[str, float] | None = None) -> Portfolio:
    """Buckets over the same span, each begun with its share of the capital (equal by default) and never rebalanced.

    The capital is what the first of them began with; the others' money is scaled to it. Orders of opposite buckets are
    not netted: each paid its own costs, at the size it was backtested with. ValueError where spans or buckets differ.
    """
    names = list(results)
    shares = {name: 1.0 / len(names) for name in names} if shares is None else shares
    if set(shares) != set(names) or not (abs(sum(shares.values()) - 1.0) <= 1e-9 and min(shares.values()) >= 0.0):
        raise ValueError(f"shares must be >= 0 of {names} and sum to 1, was {dict(shares)}; name each bucket once")
    if len({result.span for result in results.values()}) > 1:
        raise ValueError(f"buckets must cover the same span, were {[result.span for result in results.values()]}")
    capital = results[names[0]].start_equity_usdt
    parts = [_scaled(results[name], shares[name] * capital) for name in names]
    daily = _daily(results)
    return Portfolio(
        result=_summed(parts, capital),
        shares=dict(shares),
        correlation=daily.corr(min_periods=MIN_PERIODS),
        diversification_ratio=diversification_ratio(daily.to_numpy(), np.array([shares[name] for name in names])),
    )


def diversification_ratio(daily: FloatArray, weights: FloatArray) -> float:
    """daily (m, B) returns, weights (B,) -> mean volatility / volatility of the mix; nan below MIN_PERIODS days or
    without variance."""
    if len(daily) < MIN_PERIODS:
        return float("nan")
    mix = float(np.std(daily @ weights, ddof=1))
    return float(np.std(daily, axis=0, ddof=1) @ weights) / mix if mix > NO_SPREAD else float("nan")


def _daily(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Simple returns (m, B) per UTC day."""
    returns = {
        name: daily_returns(result.equity_usdt, result.close_ts_ns, result.start_equity_usdt)
        for name, result in results.items()
    }
    return pd.DataFrame(returns)


def _scaled(result: BacktestResult, start_usdt: float) -> BacktestResult:
    """The same trades begun with another sum."""
    scale = start_usdt / result.start_equity_usdt
    trades = result.trades.assign(btc=scale * result.trades["btc"], profit_usdt=scale * result.trades["profit_usdt"])
    return replace(
        result,
        start_equity_usdt=start_usdt,
        equity_usdt=scale * result.equity_usdt,
        trades=trades,
        costs_usdt=scale * result.costs_usdt,
        traded_usdt=scale * result.traded_usdt,
    )


def _summed(parts: list[BacktestResult], capital_usdt: float) -> BacktestResult:
    """One account: long and short positions cancel in position_frac; actions are the buckets' own and left out."""
    equity = np.sum([part.equity_usdt for part in parts], axis=0)
    value = np.sum([part.position_frac * part.equity_usdt for part in parts], axis=0)
    trades = pd.concat([part.trades for part in parts], ignore_index=True)
    return replace(
        parts[0],
        start_equity_usdt=capital_usdt,
        equity_usdt=equity,
        position_frac=value / equity,
        n_lots=np.sum([part.n_lots for part in parts], axis=0),
        decisions=np.unique(np.concatenate([part.decisions for part in parts])),
        actions=np.empty(0, np.int64),
        trades=trades.sort_values("exit_ts_ns", kind="stable", ignore_index=True),
        costs_usdt=sum(part.costs_usdt for part in parts),
        traded_usdt=sum(part.traded_usdt for part in parts),
        encoded=None,
        note="",
    )
