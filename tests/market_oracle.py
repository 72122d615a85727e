"""The market's rules again, in plain Python with a ledger: what the compiled kernel must agree with.

Written from the rules' text and not from the kernel, to be read beside it: a list of lots, one method a rule, and every
USDT that moves is an entry of the ledger under its cause.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan, log, sqrt

from market_ledger import (
    Book,
    Lot,
    Order,
    limit_price,
    present_bar,
    stop_price,
    taker_price,
    target_price,
    to_step,
)

from btcai.market.bars import BarArrays
from btcai.schema import Action

OPEN_LONG, OPEN_SHORT, REDUCE, CLOSE = "open long", "open short", "reduce", "close all"


def never(day: int) -> tuple[float, float]:
    """A draw of no random transfer, whatever its probability."""
    return 1.0, 0.0


@dataclass
class Oracle(Book):
    """One account. `draw(day)` gives (u_event, u_size) of the random transfer of a UTC day."""

    draw: Callable[[int], tuple[float, float]] = never
    order: Order | None = None
    halt: str = ""
    cool_down: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.equity = self.peak = self.day_start = self.start

    @property
    def value(self) -> float:
        """Of the lots at the last mark, never negative."""
        return abs(self.equity - self.cash)

    @property
    def free(self) -> float:
        return self.equity - self.value if self.side < 0 else self.cash

    @property
    def drawdown(self) -> float:
        return 1 - self.equity / self.peak if self.peak > 0 else 1.0

    @property
    def goal(self) -> float:
        return min((self.equity / self.start - 1) / self.rules.goal_frac, 1.0)

    # One decision

    def step(self, bars: BarArrays, t: int, action: int, size: float, allowed: bool) -> tuple[dict[str, float], bool]:
        """Decide at the close of t and walk one patch: (terms by name, terminated)."""
        rules, n_closed, costs = self.rules, len(self.closed), self.ledger.costs
        equity, start, drawdown, goal = self.equity, self.start, self.drawdown, self.goal
        self.decide(action, size, allowed)
        for bar in range(t + 1, t + 1 + rules.patch_bars):
            self.walk(bars, bar)
        base = equity if rules.compound else start
        before, after = equity / start, self.equity / self.start
        win_rate = bonus = 0.0
        for lot, sigma_patch in self.closed[n_closed:]:
            gain = max(lot.net_return, 0.0)
            win_rate += lot.cost / base * lot.net_return / sqrt(1 + (lot.net_return / sigma_patch) ** 2)
            bonus += lot.cost / base * gain * min(1.0, gain / rules.goal_frac)
        terms = {
            "net_profit": log(max(after / before, 1e-9)) if rules.compound else after - before,
            "cost": -(self.ledger.costs - costs) / base,
            "drawdown": -max(0.0, self.drawdown - drawdown),
            "win_rate": win_rate,
            "bonus": bonus,
            "goal": self.goal - goal,
        }
        return terms, self.equity <= 0.1 * self.start

    @property
    def least(self) -> float:
        return max(self.rules.min_notional_usdt, 1e-4 * self.start)

    @property
    def can_open(self) -> bool:
        room = self.rules.max_exposure_frac * self.equity - self.value
        paid = self.least * (1 + self.rules.taker_fee_frac)
        unhindered = self.order is None and not self.halt and len(self.lots) < self.rules.max_lots
        return unhindered and self.free > paid and room > self.least

    @property
    def can_buy(self) -> bool:
        return self.order is None if self.side < 0 else self.can_open

    @property
    def can_sell(self) -> bool:
        return self.order is None and bool(self.lots or (self.rules.allow_short and self.can_open))

    def decide(self, action: int, size: float, allowed: bool) -> None:
        self.since_trade += 1
        if self.order is not None:
            return
        may_open = self.can_open and allowed and size > 0
        kind = ""
        if action == Action.BUY:
            kind = REDUCE if self.side < 0 else OPEN_LONG if may_open else ""
        elif action == Action.SELL:
            kind = REDUCE if self.side > 0 else OPEN_SHORT if may_open and self.rules.allow_short else ""
        elif action == Action.CLOSE_ALL and self.lots:
            kind = CLOSE
        if kind:
            self.order = Order(kind, size, self.rules.latency_bars, 0 if kind == CLOSE else self.rules.maker_bars)

    # One bar

    def walk(self, bars: BarArrays, t: int) -> None:
        if bars.day[t] != self.day:
            self.new_day(int(bars.day[t]))
        if bars.present[t]:
            self.bar, self.t = present_bar(bars, t), t
            self.work_order()
            self.stop_lots()
            self.liquidate()
            self.reach_targets()
        mark = float(bars.mark[t])
        self.fund(float(bars.funding[t]), mark)
        self.equity = self.cash + self.held * mark
        self.peak = max(self.peak, self.equity)
        self.halts()

    def new_day(self, day: int) -> None:
        rules, first = self.rules, self.day < 0
        self.day, self.day_start = day, self.equity
        if first or self.equity <= 0:
            return
        if rules.transfer_every_days > 0 and day % rules.transfer_every_days == 0:
            self.transfer(rules.transfer_usdt)
        u_event, u_size = self.draw(day)
        if u_event < rules.transfer_daily_probability:
            self.transfer(u_size * rules.transfer_max_frac * self.equity)

    def transfer(self, amount: float) -> None:
        amount = max(amount, -max(0.0, min(self.free, self.equity / 2)))
        scale = (self.equity + amount) / self.equity
        self.events["deposit" if amount > 0 else "withdrawal"] += amount != 0
        self.ledger.transfers += amount
        self.cash += amount
        self.equity, self.start = self.equity + amount, self.start * scale
        self.peak, self.day_start = self.peak * scale, self.day_start * scale

    def fund(self, rate: float, mark: float) -> None:
        if not self.rules.perpetual or rate == 0:
            return
        paid = self.rules.missing_funding_frac * abs(self.held) if isnan(rate) else rate * self.held
        self.events["funding unknown" if isnan(rate) else "funding"] += paid != 0
        self.cash -= paid * mark
        self.ledger.funding += paid * mark

    def halts(self) -> None:
        rules = self.rules
        if self.halt:
            self.cool_down -= 1
            if self.halt == "drawdown" and self.lots and self.cool_down <= 0:
                self.cool_down = 1
                self.events["drawdown halt prolonged"] += 1
            if self.cool_down <= 0:
                self.peak = self.equity if self.halt == "drawdown" else self.peak
                self.day_start, self.halt = self.equity, ""
        if self.halt != "drawdown" and self.equity <= self.peak * (1 - rules.drawdown_halt_frac):
            self.halt, self.cool_down = "drawdown", rules.cool_down_bars
            self.events["drawdown halt"] += 1
        elif not self.halt and self.equity <= self.day_start * (1 - rules.daily_loss_halt_frac):
            self.halt, self.cool_down = "day", rules.cool_down_bars
            self.events["daily halt"] += 1
        closing = self.order is not None and self.order.kind == CLOSE
        if self.halt == "drawdown" and self.lots and not closing:
            self.order = Order(CLOSE, 0.0, rules.latency_bars, 0)
        if self.halt and self.order is not None and self.order.kind in (OPEN_LONG, OPEN_SHORT):
            self.order = None
            self.events["entry dropped by a halt"] += 1

    # The order that waits

    def work_order(self) -> None:
        order = self.order
        if order is None:
            return
        if order.delay > 0:
            order.delay -= 1
            return
        if order.kind in (REDUCE, CLOSE) and not self.lots:
            self.order = None
            return
        side = 1 if order.kind == OPEN_LONG or (order.kind != OPEN_SHORT and self.side < 0) else -1
        limit = limit_price(self.rules, self.bar, side) if order.rest > 0 else None
        if limit is not None:
            reached = self.bar.low < limit if side > 0 else self.bar.high > limit
            if not reached or (order.kind == REDUCE and self.stopped(self.lots[0])):
                order.rest -= 1
                return
        self.order = None
        self.events[order.kind + (", taken" if limit is None else ", rested")] += 1
        if order.kind in (OPEN_LONG, OPEN_SHORT):
            self.open_lot(side, order.size, limit)
        else:
            self.close_lots(self.lots[:1] if order.kind == REDUCE else list(self.lots), order.kind, limit)

    def order_price(self, side: int, btc: float, limit: float | None) -> float:
        return taker_price(self.rules, self.bar, self.bar.open, side, btc) if limit is None else limit

    def open_lot(self, side: int, size: float, limit: float | None) -> None:
        rules, reference, fee = self.rules, self.bar.open, self.fee(maker=limit is not None)
        base = self.equity if rules.compound else self.start
        btc = min(size * base / reference, rules.max_volume_share * self.bar.volume)
        if btc <= 0:
            return
        lost = self.most_lost(side, fee, limit)
        room = rules.max_exposure_frac * (self.cash + self.held * reference) - abs(self.held) * reference
        most = room / (reference + rules.max_exposure_frac * lost)
        if side > 0:
            most = min(most, self.cash / (reference + lost))
        btc = to_step(rules, min(btc, max(0.0, most * (1 - 1e-11))))
        if btc * reference < self.least:
            return
        price = self.order_price(side, btc, limit)
        self.events["opened"] += 1
        cost = self.trade(side, btc, price, reference, fee)
        self.lots.append(Lot(side * btc, side * btc, price, self.t, reference, cost))

    def most_lost(self, side: int, fee: float, limit: float | None) -> float:
        """USDT of the equity that opening one BTC costs at most: at the limit, or with the largest order's slippage."""
        rules, reference = self.rules, self.bar.open
        if limit is not None:
            return side * (limit * (1 + side * fee) - reference)
        share = rules.half_spread_frac + rules.impact_coef * self.bar.sigma * sqrt(rules.max_volume_share)
        slippage = reference * share + rules.tick_usdt
        return slippage + fee * (reference + slippage if side > 0 else reference)

    def close_lots(self, lots: list[Lot], kind: str, limit: float | None) -> None:
        wanted = sum(abs(lot.btc) for lot in lots)
        if kind == REDUCE and wanted * self.bar.open < self.rules.min_notional_usdt:
            return
        most = self.rules.max_volume_share * self.bar.volume
        whole = most >= wanted
        left = wanted if whole else to_step(self.rules, most)
        price, fee = self.order_price(-self.side, left, limit), self.fee(maker=limit is not None)
        for lot in lots:
            btc = abs(lot.btc) if whole or left >= abs(lot.btc) * (1 - 1e-11) else left
            left = max(0.0, left - btc)
            self.take(lot, btc, price, self.bar.open, fee)

    # Lots that the bar closes

    def stopped(self, lot: Lot) -> bool:
        if self.rules.stop_loss_frac <= 0:
            return False
        stop = stop_price(self.rules, lot)
        return self.bar.low <= stop if lot.side > 0 else self.bar.high >= stop

    def stop_lots(self) -> None:
        self.force("stop", {lot: stop_price(self.rules, lot) for lot in self.lots if self.stopped(lot)})

    def liquidate(self) -> None:
        if self.rules.perpetual and self.side < 0:
            trigger = self.cash / (abs(self.held) * (1 + self.rules.maintenance_frac))
            if self.bar.high >= trigger:
                self.force("liquidation", dict.fromkeys(self.lots, trigger))

    def force(self, cause: str, triggers: dict[Lot, float]) -> None:
        """Close lots whole, each a fill of its own, at their trigger or at the open of a bar that gapped through it."""
        self.events[cause] += len(triggers)
        joint = sum(abs(lot.btc) for lot in triggers)
        for lot, trigger in triggers.items():
            reference = min(self.bar.open, trigger) if lot.side > 0 else max(self.bar.open, trigger)
            price = taker_price(self.rules, self.bar, reference, -lot.side, joint)
            self.take(lot, abs(lot.btc), price, reference, self.fee(maker=False))

    def reach_targets(self) -> None:
        if self.rules.take_profit_frac <= 0:
            return
        left = self.rules.max_volume_share * self.bar.volume
        for lot in list(self.lots):
            target = target_price(self.rules, lot)
            if lot.bar == self.t:
                continue
            if self.bar.high > target if lot.side > 0 else self.bar.low < target:
                btc = abs(lot.btc) if left >= abs(lot.btc) else to_step(self.rules, left)
                left -= btc
                self.events["target"] += btc > 0
                self.take(lot, btc, target, target, self.fee(maker=True))
