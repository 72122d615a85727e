"""The strategies every bucket is measured against, traded as a taker through the same fills and costs as a bucket.

Fee tiers, the smallest order and resting orders are a bucket's alone: a baseline pays the taker's fee without them.
A baseline is a target position (n,) of a span: the share of equity to hold from the next bar on, decided at each close
from the past alone; nan = leave the holding as it is. Orders too large for a bar's volume go on in the next bars.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from btcai.evaluation.metrics import DAY_NS, DAYS_PER_YEAR
from btcai.evaluation.result import BacktestResult, trades_table
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.execution import NOT_QUITE, affordable_btc, taker_price, whole_steps
from btcai.market.risk import MIN_LOT_FRAC
from btcai.market.rules import Rules
from btcai.schema import BARS_PER_DAY, FloatArray, IntArray, MarketData, Span

BASELINES = ("cash", "buy_and_hold", "volatility_targeted", "momentum_90d")

TARGET_VOLATILITY = 0.30
"""A year; the position is capped at 1, so calm markets are held whole."""
VOLATILITY_DAYS = 30
MOMENTUM_DAYS = 90
BAND_FRAC = 0.05
"""A position this close to its target is left alone: small corrections cost more than they mend."""


def run_baselines(
    data: MarketData, span: Span, rules: Mapping[str, Rules], equity_usdt: float
) -> dict[str, dict[str, BacktestResult]]:
    """Every baseline under every cost severity: name -> severity -> result."""
    makers: dict[str, Callable[[MarketData, Span], tuple[FloatArray, str]]] = {
        "cash": cash_targets,
        "buy_and_hold": buy_and_hold_targets,
        "volatility_targeted": volatility_targets,
        "momentum_90d": momentum_targets,
    }
    results = {}
    for name in BASELINES:
        targets, note = makers[name](data, span)
        results[name] = {
            severity: run_targets(targets, data, span, rule, equity_usdt, note=note) for severity, rule in rules.items()
        }
    return results


def cash_targets(data: MarketData, span: Span) -> tuple[FloatArray, str]:
    """Never buy: (targets (n,), note)."""
    return np.full(len(span), np.nan), ""


def buy_and_hold_targets(data: MarketData, span: Span) -> tuple[FloatArray, str]:
    """Buy with everything at the first chance and never sell."""
    targets = np.full(len(span), np.nan)
    targets[0] = 1.0
    return targets, ""


def volatility_targets(data: MarketData, span: Span) -> tuple[FloatArray, str]:
    """TARGET_VOLATILITY / the volatility of the last VOLATILITY_DAYS daily returns, at most 1, once a day."""
    marks = _daily_marks(data, span, VOLATILITY_DAYS)
    volatility = np.std(np.diff(np.log(marks), axis=1), axis=1, ddof=1) * DAYS_PER_YEAR**0.5
    daily = np.minimum(1.0, TARGET_VOLATILITY / np.maximum(volatility, 1e-9))
    return _on_daily_bars(data, span, daily, VOLATILITY_DAYS)


def momentum_targets(data: MarketData, span: Span) -> tuple[FloatArray, str]:
    """All in while the price is above where it was MOMENTUM_DAYS ago, else out, decided once a day."""
    marks = _daily_marks(data, span, MOMENTUM_DAYS)
    above = np.where(np.isnan(marks[:, 0]), np.nan, (marks[:, -1] > marks[:, 0]).astype(np.float64))
    return _on_daily_bars(data, span, above, MOMENTUM_DAYS)


def _daily_bars(data: MarketData, span: Span) -> IntArray:
    """Bars (m,) of daily decisions: the span's first bar, so that no baseline idles, then every midnight UTC."""
    midnights = np.flatnonzero(data.bars.close_ts_ns[span.first : span.stop] % DAY_NS == 0) + span.first
    return np.union1d([span.first], midnights).astype(np.int64)


def _daily_marks(data: MarketData, span: Span, days: int) -> FloatArray:
    """Marks (m, days + 1) at each daily decision and each of the `days` days before it; nan before the history."""
    rows = _daily_bars(data, span)[:, None] - BARS_PER_DAY * np.arange(days, -1, -1)
    marks: FloatArray = np.where(rows >= 0, data.mark[np.maximum(rows, 0)], np.nan)
    return marks


def _on_daily_bars(data: MarketData, span: Span, daily: FloatArray, days: int) -> tuple[FloatArray, str]:
    """Daily targets (m,) on their bars of the span (n,), and a note when the history was too short at the start."""
    targets = np.full(len(span), np.nan)
    targets[_daily_bars(data, span) - span.first] = daily
    missing = int(np.isnan(daily).sum())
    if missing == 0:
        return targets, ""
    return targets, f"in cash for the first {missing} of {len(daily)} daily decisions: needs {days} days of history"


@dataclass(kw_only=True)
class _Purse:
    """A baseline's money and its lots, sold first in first out."""

    cash: float
    btc: float = 0.0
    costs_usdt: float = 0.0
    traded_usdt: float = 0.0
    lots: list[list[float]] = field(default_factory=list)  # entry bar, btc left, entry price, cost of what is left
    closed: list[tuple[float, ...]] = field(default_factory=list)  # trades_table rows

    def buy(self, bar: int, btc: float, price: float, reference: float, fee_frac: float) -> None:
        paid = btc * price * (1.0 + fee_frac)
        self.cash -= paid
        self.btc += btc
        self.costs_usdt += paid - btc * reference
        self.traded_usdt += btc * price
        self.lots.append([bar, btc, price, paid])

    def sell(self, bar: int, btc: float, price: float, reference: float, fee_frac: float) -> None:
        received = btc * price * (1.0 - fee_frac)
        self.cash += received
        self.costs_usdt += btc * reference - received
        self.traded_usdt += btc * price
        self.btc = 0.0 if btc >= self.btc else self.btc - btc
        left = btc
        while self.lots and left > 0.0:
            entry, held, entry_price, cost = self.lots[0]
            part = min(left, held)
            cost_part = cost * part / held
            proceeds = part * price * (1.0 - fee_frac)
            self.closed.append((entry, bar, part, entry_price, price, cost_part, proceeds))
            left -= part
            if part >= held:
                self.lots.pop(0)
            else:
                self.lots[0] = [entry, held - part, entry_price, cost - cost_part]


def run_targets(
    targets: FloatArray,
    data: MarketData,
    span: Span,
    rules: Rules,
    equity_usdt: float,
    *,
    band_frac: float = BAND_FRAC,
    note: str = "",
) -> BacktestResult:
    """Hold targets (n,): decided at the close of bar k, traded from the open of a later present bar on."""
    if len(targets) != len(span) or np.any((targets < 0.0) | (targets > 1.0)):
        raise ValueError(f"targets must be {len(span)} shares of equity, 0 .. 1 or nan, was {len(targets)} of them")
    purse = _Purse(cash=equity_usdt)
    cash, btc = np.full(len(span), equity_usdt), np.zeros(len(span))
    bars, columns, arrives = data.bars, bar_arrays(data), 1 + rules.latency_bars
    decided = np.isfinite(targets)
    wanted = np.nan
    for k in range(1, len(span)):
        t = span.first + k
        if k >= arrives and decided[k - arrives]:
            wanted = _outside_band(float(targets[k - arrives]), purse, float(data.mark[t - 1]), band_frac)
        if wanted == wanted and bars.present[t] and _trade(purse, wanted, columns, t, rules):
            wanted = np.nan
        if rules.perpetual and columns.funding[t] != 0.0 and purse.btc > 0.0:
            _pay_funding(purse, columns, t, rules)
        cash[k], btc[k] = purse.cash, purse.btc
    value = btc * data.mark[span.first : span.stop]
    value[btc == 0.0] = 0.0  # a mark may be unknown before the first bar
    equity = cash + value
    return BacktestResult(
        span=span,
        start_equity_usdt=equity_usdt,
        close_ts_ns=np.asarray(bars.close_ts_ns[span.first : span.stop]),
        equity_usdt=equity,
        position_frac=value / equity,
        n_lots=(btc > 0.0).astype(np.int64),
        decisions=np.flatnonzero(decided) + span.first,
        actions=np.empty(0, np.int64),
        trades=trades_table(np.array(purse.closed, dtype=np.float64), bars.close_ts_ns),
        costs_usdt=purse.costs_usdt,
        traded_usdt=purse.traded_usdt,
        note=note,
    )


def _outside_band(target: float, purse: _Purse, mark: float, band_frac: float) -> float:
    """The target, or nan where the holding is close enough; leaving the market is always done in full."""
    held = purse.btc * mark / (purse.cash + purse.btc * mark) if purse.btc > 0.0 else 0.0
    near = target == held or (abs(target - held) <= band_frac and not (target == 0.0 < held))
    return np.nan if near else target


def _trade(purse: _Purse, target: float, bars: BarArrays, t: int, rules: Rules) -> bool:
    """Trade towards the target at the open of bar t; False where volume left a rest for the next bar."""
    reference, fee_frac = float(bars.open[t]), rules.taker_fee_frac
    gap_btc = target * (purse.cash + purse.btc * reference) / reference - purse.btc
    if target > 0.0 and abs(gap_btc) * reference < MIN_LOT_FRAC * (purse.cash + purse.btc * reference):
        return True
    wanted = float(whole_steps(abs(gap_btc), rules.lot_step_btc)) if target > 0.0 else purse.btc
    filled = float(whole_steps(min(wanted, rules.max_volume_share * float(bars.volume[t])), rules.lot_step_btc))
    filled = wanted if filled >= wanted * NOT_QUITE else filled
    if filled <= 0.0:
        return wanted <= 0.0
    if gap_btc < 0.0:
        price = float(taker_price(False, reference, filled, bars, t, rules))
        purse.sell(t, filled, price, reference, fee_frac)
        return filled >= wanted
    cost = float(taker_price(True, reference, filled, bars, t, rules)) * (1.0 + fee_frac) - reference
    affordable = float(affordable_btc(filled, purse.cash, np.inf, 1.0, reference, cost))
    bought = float(whole_steps(affordable, rules.lot_step_btc))
    if bought <= 0.0:
        return True
    purse.buy(t, bought, float(taker_price(True, reference, bought, bars, t, rules)), reference, fee_frac)
    return filled >= wanted or bought < filled


def _pay_funding(purse: _Purse, bars: BarArrays, t: int, rules: Rules) -> None:
    """Funding at the close of bar t of a perpetual swap, as market/account.pay_funding."""
    rate = float(bars.funding[t])
    paid = purse.btc * float(bars.mark[t]) * (rules.missing_funding_frac if np.isnan(rate) else rate)
    purse.cash -= paid
    purse.costs_usdt += paid
