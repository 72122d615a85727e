"""btcai/evaluation/targets.py once more, a bar at a time in plain Python: slow, and the compiled walk's oracle."""

from dataclasses import dataclass, field

import numpy as np

from btcai.evaluation.result import BacktestResult, trades_table
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.execution import NOT_QUITE, affordable_btc, taker_price, whole_steps
from btcai.market.risk import MIN_LOT_FRAC
from btcai.market.rules import Rules
from btcai.schema import FloatArray, MarketData, Span


@dataclass(kw_only=True)
class Account:
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
        whole = btc >= self.btc
        self.btc = 0.0 if whole else self.btc - btc
        left = btc
        while self.lots and (whole or left > (1.0 - NOT_QUITE) * btc):
            entry, held, entry_price, cost = self.lots[0]
            part = held if whole or left >= held * NOT_QUITE else left
            cost_part = cost * part / held
            proceeds = part * price * (1.0 - fee_frac)
            self.closed.append((entry, bar, part, entry_price, price, cost_part, proceeds))
            left -= part
            if part >= held:
                self.lots.pop(0)
            else:
                self.lots[0] = [entry, held - part, entry_price, cost - cost_part]


def run_targets_slowly(
    targets: FloatArray, data: MarketData, span: Span, rules: Rules, equity_usdt: float, *, band_frac: float
) -> BacktestResult:
    """What run_targets returns."""
    account = Account(cash=equity_usdt)
    cash, btc = np.full(len(span), equity_usdt), np.zeros(len(span))
    bars, columns, arrives = data.bars, bar_arrays(data), 1 + rules.latency_bars
    decided = np.isfinite(targets)
    wanted = np.nan
    for k in range(1, len(span)):
        t = span.first + k
        if k >= arrives and decided[k - arrives]:
            wanted = _outside_band(float(targets[k - arrives]), account, float(data.mark[t - 1]), band_frac)
        if wanted == wanted and bars.present[t] and _trade(account, wanted, columns, t, rules):
            wanted = np.nan
        if rules.perpetual and columns.funding[t] != 0.0 and account.btc > 0.0:
            _pay_funding(account, columns, t, rules)
        cash[k], btc[k] = account.cash, account.btc
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
        trades=trades_table(np.array(account.closed, dtype=np.float64), bars.close_ts_ns),
        costs_usdt=account.costs_usdt,
        traded_usdt=account.traded_usdt,
    )


def _outside_band(target: float, account: Account, mark: float, band_frac: float) -> float:
    held = account.btc * mark / (account.cash + account.btc * mark) if account.btc > 0.0 else 0.0
    near = target == held or (abs(target - held) <= band_frac and not (target == 0.0 < held))
    return np.nan if near else target


def _trade(account: Account, target: float, bars: BarArrays, t: int, rules: Rules) -> bool:
    reference, fee_frac = float(bars.open[t]), rules.taker_fee_frac
    gap_btc = target * (account.cash + account.btc * reference) / reference - account.btc
    if target > 0.0 and abs(gap_btc) * reference < MIN_LOT_FRAC * (account.cash + account.btc * reference):
        return True
    wanted = float(whole_steps(abs(gap_btc), rules.lot_step_btc)) if target > 0.0 else account.btc
    filled = float(whole_steps(min(wanted, rules.max_volume_share * float(bars.volume[t])), rules.lot_step_btc))
    filled = wanted if filled >= wanted * NOT_QUITE else filled
    if filled <= 0.0:
        return wanted <= 0.0
    if gap_btc < 0.0:
        price = float(taker_price(False, reference, filled, bars, t, rules))
        account.sell(t, filled, price, reference, fee_frac)
        return filled >= wanted
    cost = float(taker_price(True, reference, filled, bars, t, rules)) * (1.0 + fee_frac) - reference
    affordable = float(affordable_btc(filled, account.cash, np.inf, 1.0, reference, cost))
    bought = float(whole_steps(affordable, rules.lot_step_btc))
    if bought <= 0.0:
        return True
    account.buy(t, bought, float(taker_price(True, reference, bought, bars, t, rules)), reference, fee_frac)
    return filled >= wanted or bought < filled


def _pay_funding(account: Account, bars: BarArrays, t: int, rules: Rules) -> None:
    rate = float(bars.funding[t])
    paid = account.btc * float(bars.mark[t]) * (rules.missing_funding_frac if np.isnan(rate) else rate)
    account.cash -= paid
    account.costs_usdt += paid
