"""The market's rules again, in plain Python with a ledger of every fill: what the compiled kernel must agree with."""

from dataclasses import dataclass, field
from math import inf, sqrt

from btcai.market.kernel import BarArrays, Rules


@dataclass
class Lot:
    btc: float
    entry: float
    reference: float


@dataclass
class Oracle:
    rules: Rules
    start: float
    cash: float = 0.0
    lots: list[Lot] = field(default_factory=list)
    order: str = ""
    size: float = 0.0
    halt: str = ""
    halted_bars: int = 0
    moves: float = 0.0  # USDT earned by prices alone on closed quantities, against the references
    costs: float = 0.0
    day: int = -1

    def __post_init__(self) -> None:
        self.cash = self.equity = self.peak = self.day_start = self.start

    def slippage(self, quantity: float, volume: float, sigma: float) -> float:
        share = min(1.0, quantity / volume if volume > 0 else inf)
        return self.rules.half_spread_frac + self.rules.impact_coef * sigma * sqrt(share)

    def held(self) -> float:
        return sum(lot.btc for lot in self.lots)

    def decide(self, action: int, size: float, allowed: bool) -> None:
        if self.order:
            return
        least = 1e-4 * self.start
        room = self.rules.max_exposure_frac * self.equity - (self.equity - self.cash)
        free = len(self.lots) < self.rules.max_lots and self.cash > least * (1 + self.rules.fee_frac) and room > least
        if action == 1 and allowed and size > 0 and free and not self.halt:
            self.order, self.size = "buy", size
        elif action in (2, 3) and self.lots:
            self.order = "sell" if action == 2 else "close"

    def bar(self, bars: BarArrays, t: int) -> None:
        if bars.day[t] != self.day:
            self.day, self.day_start = int(bars.day[t]), self.equity
        if bars.present[t]:
            order, self.order = self.order, ""
            sigma, volume, price = float(bars.sigma[t - 1]), float(bars.volume[t]), float(bars.open[t])
            if order == "buy":
                self.buy(price, volume, sigma)
            elif order:
                self.sell(price, volume, sigma, self.lots[:1] if order == "sell" else list(self.lots))
            self.stops(float(bars.low[t]), price, volume, sigma)
        self.equity = self.cash + self.held() * float(bars.mark[t])
        self.peak = max(self.peak, self.equity)
        self.halts()

    def buy(self, price: float, volume: float, sigma: float) -> None:
        rules = self.rules
        base = self.equity if rules.compound else self.start
        quantity = min(self.size * base / price, rules.max_volume_share * volume)
        worst = price * (1 + self.slippage(quantity, volume, sigma)) * (1 + rules.fee_frac)
        value = self.held() * price
        room = rules.max_exposure_frac * (self.cash + value) - value
        quantity = min(quantity, self.cash / worst, room / (price + rules.max_exposure_frac * (worst - price)))
        if quantity * price < 1e-4 * self.start:
            return
        fill = price * (1 + self.slippage(quantity, volume, sigma))
        self.cash -= quantity * fill * (1 + rules.fee_frac)
        self.costs += quantity * (fill * (1 + rules.fee_frac) - price)
        self.lots.append(Lot(quantity, fill, price))

    def take(self, lot: Lot, quantity: float, reference: float, fill: float) -> None:
        received = quantity * fill * (1 - self.rules.fee_frac)
        self.cash += received
        self.costs += quantity * reference - received
        self.moves += quantity * (reference - lot.reference)
        lot.btc -= quantity

    def sell(self, price: float, volume: float, sigma: float, chosen: list[Lot]) -> None:
        wanted = sum(lot.btc for lot in chosen)
        left = min(wanted, self.rules.max_volume_share * volume)
        fill = price * max(0.0, 1 - self.slippage(left, volume, sigma))
        everything = left == wanted
        for lot in chosen:
            quantity = lot.btc if everything else min(left, lot.btc)
            left -= quantity
            self.take(lot, quantity, price, fill)
        self.lots = [lot for lot in self.lots if lot.btc > 0]

    def stops(self, low: float, price: float, volume: float, sigma: float) -> None:
        if not self.rules.stop_loss_frac:
            return
        keep = 1 - self.rules.stop_loss_frac
        hit = [lot for lot in self.lots if low <= lot.entry * keep]
        slippage = self.slippage(sum(lot.btc for lot in hit), volume, sigma)
        for lot in hit:
            reference = min(price, lot.entry * keep)
            self.take(lot, lot.btc, reference, reference * max(0.0, 1 - slippage))
        self.lots = [lot for lot in self.lots if lot.btc > 0]

    def halts(self) -> None:
        if self.halt:
            self.halted_bars += 1
            if self.halted_bars >= max(1, self.rules.cool_down_bars):
                self.peak = self.equity if self.halt == "drawdown" else self.peak
                self.day_start, self.halt = self.equity, ""
        if self.halt != "drawdown" and 1 - self.equity / self.peak >= self.rules.drawdown_halt_frac:
            self.halt, self.halted_bars = "drawdown", 0
        elif not self.halt and self.equity <= self.day_start * (1 - self.rules.daily_loss_halt_frac):
            self.halt, self.halted_bars = "day", 0
        if self.halt == "drawdown" and self.lots:
            self.order = "close"

    def open_moves(self, mark: float) -> float:
        return sum(lot.btc * (mark - lot.reference) for lot in self.lots)
