"""A target position held over a span, traded as a taker through the same fills and costs as a bucket, compiled.

Targets (n,): the share of equity to hold from the next bar on, decided at each close from the past alone; nan = leave
the holding as it is. Orders too large for a bar's volume go on in the next bars. Fee tiers, the smallest order and
resting orders are a bucket's alone: who follows targets pays the taker's fee without them.
"""

import math
from typing import NamedTuple

import numpy as np

from btcai.compiled import inlined, stepping
from btcai.evaluation.result import BacktestResult, trades_table
from btcai.evaluation.walk import CLOSED_COLUMNS
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.execution import NOT_QUITE, affordable_btc, taker_price, whole_steps
from btcai.market.risk import MIN_LOT_FRAC
from btcai.market.rules import Rules
from btcai.schema import FloatArray, IntArray, MarketData, Span

BAND_FRAC = 0.05
"""A position this close to its target is left alone: small corrections cost more than they mend."""

_CRUMB = 1.0 - NOT_QUITE
"""Of a sale: less than this share of it is its rounding, and no trade."""

_CASH, _BTC, _COSTS, _TRADED = range(4)
_OLDEST, _NEXT, _CLOSED = range(3)


class _Account(NamedTuple):
    """Money and lots, sold first in first out.

    totals (4,): USDT in cash, BTC held, costs and notional so far in USDT. lots (n, 4): entry bar, BTC left, entry
    price, cost of what is left. closed (n, 7): rows of trades_table. counts (3,): row of the oldest open lot, of the
    next one, rows of `closed`. A bar buys or sells, so n bars bound the lots and what closes of them.
    """

    totals: FloatArray
    lots: FloatArray
    closed: FloatArray
    counts: IntArray


def run_targets(
    targets: FloatArray,
    data: MarketData,
    span: Span,
    rules: Rules,
    equity_usdt: float,
    *,
    band_frac: float = BAND_FRAC,
    note: str = "",
    bars: BarArrays | None = None,
) -> BacktestResult:
    """Hold targets (n,): decided at the close of bar k, traded from the open of a later present bar on.

    bars: bar_arrays(data), where the caller has them. ValueError for targets that are no shares, or not n of them.
    """
    if len(targets) != len(span) or np.any((targets < 0.0) | (targets > 1.0)):
        raise ValueError(f"targets must be {len(span)} shares of equity, 0 .. 1 or nan, was {len(targets)} of them")
    columns = bar_arrays(data) if bars is None else bars
    account, cash, btc = _new_account(len(span), equity_usdt), np.full(len(span), equity_usdt), np.zeros(len(span))
    _walk(np.ascontiguousarray(targets, np.float64), columns, span.first, rules, band_frac, account, cash, btc)
    value = btc * data.mark[span.first : span.stop]
    value[btc == 0.0] = 0.0  # a mark may be unknown before the first bar
    equity = cash + value
    return BacktestResult(
        span=span,
        start_equity_usdt=equity_usdt,
        close_ts_ns=np.asarray(data.bars.close_ts_ns[span.first : span.stop]),
        equity_usdt=equity,
        position_frac=value / equity,
        n_lots=(btc > 0.0).astype(np.int64),
        decisions=np.flatnonzero(~np.isnan(targets)) + span.first,
        actions=np.empty(0, np.int64),
        trades=trades_table(account.closed[: account.counts[_CLOSED]], data.bars.close_ts_ns),
        costs_usdt=float(account.totals[_COSTS]),
        traded_usdt=float(account.totals[_TRADED]),
        note=note,
    )


def _new_account(n_bars: int, equity_usdt: float) -> _Account:
    lots, closed = np.empty((n_bars, 4)), np.empty((n_bars, CLOSED_COLUMNS))
    return _Account(np.array([equity_usdt, 0.0, 0.0, 0.0]), lots, closed, np.zeros(3, np.int64))


@stepping
def _walk(
    targets: FloatArray,
    bars: BarArrays,
    first: int,
    rules: Rules,
    band_frac: float,
    account: _Account,
    cash: FloatArray,
    btc: FloatArray,
) -> None:
    """Bars first + 1 .. first + n - 1; what is held at the close of each goes to cash and btc (n,)."""
    totals, wanted, arrives = account.totals, math.nan, 1 + rules.latency_bars
    for k in range(1, len(targets)):
        t = first + k
        if k >= arrives and not math.isnan(targets[k - arrives]):
            wanted = _outside_band(targets[k - arrives], totals, bars.mark[t - 1], band_frac)
        if not math.isnan(wanted) and bars.present[t] and _trade(account, wanted, bars, t, rules):
            wanted = math.nan
        if rules.perpetual and bars.funding[t] != 0.0 and totals[_BTC] > 0.0:
            _pay_funding(totals, bars, t, rules)
        cash[k], btc[k] = totals[_CASH], totals[_BTC]


@inlined
def _outside_band(target: float, totals: FloatArray, mark: float, band_frac: float) -> float:
    """The target, or nan where the holding is close enough; leaving the market is always done in full."""
    value = totals[_BTC] * mark
    held = value / (totals[_CASH] + value) if totals[_BTC] > 0.0 else 0.0
    near = target == held or (abs(target - held) <= band_frac and not (target == 0.0 and held > 0.0))
    return math.nan if near else target


@inlined
def _trade(account: _Account, target: float, bars: BarArrays, t: int, rules: Rules) -> bool:
    """Trade towards the target at the open of bar t; False where volume left a rest for the next bar."""
    cash, held, reference, fee_frac = account.totals[_CASH], account.totals[_BTC], bars.open[t], rules.taker_fee_frac
    equity = cash + held * reference
    gap_btc = target * equity / reference - held
    if target > 0.0 and abs(gap_btc) * reference < MIN_LOT_FRAC * equity:
        return True
    wanted = whole_steps(abs(gap_btc), rules.lot_step_btc) if target > 0.0 else held
    filled = whole_steps(min(wanted, rules.max_volume_share * bars.volume[t]), rules.lot_step_btc)
    filled = wanted if filled >= wanted * NOT_QUITE else filled
    if filled <= 0.0:
        return wanted <= 0.0
    if gap_btc < 0.0:
        _sell(account, t, filled, taker_price(False, reference, filled, bars, t, rules), reference, fee_frac)
        return filled >= wanted
    cost = taker_price(True, reference, filled, bars, t, rules) * (1.0 + fee_frac) - reference
    affordable = affordable_btc(filled, cash, math.inf, 1.0, reference, cost)
    bought = whole_steps(affordable, rules.lot_step_btc)
    if bought <= 0.0:
        return True
    _buy(account, t, bought, taker_price(True, reference, bought, bars, t, rules), reference, fee_frac)
    return filled >= wanted or bought < filled


@inlined
def _buy(account: _Account, t: int, btc: float, price: float, reference: float, fee_frac: float) -> None:
    totals, lot = account.totals, account.lots[account.counts[_NEXT]]
    paid = btc * price * (1.0 + fee_frac)
    totals[_CASH] -= paid
    totals[_BTC] += btc
    totals[_COSTS] += paid - btc * reference
    totals[_TRADED] += btc * price
    lot[0], lot[1], lot[2], lot[3] = t, btc, price, paid
    account.counts[_NEXT] += 1


@inlined
def _sell(account: _Account, t: int, btc: float, price: float, reference: float, fee_frac: float) -> None:
    totals, counts = account.totals, account.counts
    whole = btc >= totals[_BTC]  # then every lot is emptied, whatever the sums' rounding
    received = btc * price * (1.0 - fee_frac)
    totals[_CASH] += received
    totals[_COSTS] += btc * reference - received
    totals[_TRADED] += btc * price
    totals[_BTC] = 0.0 if whole else totals[_BTC] - btc
    left = btc
    while counts[_OLDEST] < counts[_NEXT] and (whole or left > _CRUMB * btc):
        lot, row = account.lots[counts[_OLDEST]], account.closed[counts[_CLOSED]]
        held = lot[1]
        part = held if whole or left >= held * NOT_QUITE else left
        cost_part = lot[3] * part / held
        row[0], row[1], row[2], row[3], row[4] = lot[0], t, part, lot[2], price
        row[5], row[6] = cost_part, part * price * (1.0 - fee_frac)
        counts[_CLOSED] += 1
        left -= part
        if part >= held:
            counts[_OLDEST] += 1
        else:
            lot[1], lot[3] = held - part, lot[3] - cost_part


@inlined
def _pay_funding(totals: FloatArray, bars: BarArrays, t: int, rules: Rules) -> None:
    """Funding at the close of bar t of a perpetual swap, as market/account.pay_funding."""
    rate = bars.funding[t]
    paid = totals[_BTC] * bars.mark[t] * (rules.missing_funding_frac if math.isnan(rate) else rate)
    totals[_CASH] -= paid
    totals[_COSTS] += paid
