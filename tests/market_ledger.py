"""What the oracle of the market's rules keeps and computes with: lots, an order, a ledger; prices and quantities."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import ceil, floor, sqrt
from typing import NamedTuple

from btcai.market.bars import BarArrays
from btcai.market.rules import Rules


class Bar(NamedTuple):
    """One present bar, with the sigma known before it."""

    open: float
    high: float
    low: float
    volume: float
    sigma: float


def present_bar(bars: BarArrays, t: int) -> Bar:
    return Bar(*(float(x) for x in (bars.open[t], bars.high[t], bars.low[t], bars.volume[t], bars.sigma[t - 1])))


@dataclass(eq=False)
class Lot:
    btc: float  # signed: negative when short
    whole: float  # btc at entry
    entry: float
    bar: int
    reference: float  # the price without costs at entry
    cost: float
    proceeds: float = 0.0
    exits: float = 0.0  # notional

    @property
    def side(self) -> int:
        return 1 if self.whole > 0 else -1

    @property
    def net_return(self) -> float:
        return self.proceeds / self.cost - 1


@dataclass
class Order:
    kind: str
    size: float
    delay: int
    rest: int


@dataclass
class Ledger:
    """USDT by cause: equity = start + moves of closed and open quantities - costs + transfers."""

    moves: float = 0.0
    fees: float = 0.0
    slippage: float = 0.0
    funding: float = 0.0
    transfers: float = 0.0

    @property
    def costs(self) -> float:
        return self.fees + self.slippage + self.funding


def fee_frac(rules: Rules, traded_usdt: float, maker: bool) -> float:
    """Base fee times the factor of the highest tier that the traded volume reaches."""
    factor = 1.0
    for threshold, tier in zip(
        rules.tier_usdt, rules.tier_maker_factor if maker else rules.tier_taker_factor, strict=True
    ):
        factor = tier if traded_usdt >= threshold else factor
    return factor * (rules.maker_fee_frac if maker else rules.taker_fee_frac)


def to_tick(rules: Rules, price: float, up: bool) -> float:
    """A price on the grid up to rounding is on the grid."""
    tick = rules.tick_usdt
    if tick <= 0:
        return price
    return (ceil(price / tick * (1 - 1e-12)) if up else floor(price / tick * (1 + 1e-12))) * tick


def to_step(rules: Rules, btc: float) -> float:
    step = rules.lot_step_btc
    return floor(btc / step * (1 + 1e-12)) * step if step > 0 else btc


def taker_price(rules: Rules, bar: Bar, reference: float, side: int, btc: float) -> float:
    """Side 1 buys, -1 sells."""
    share = 1.0 if bar.volume <= btc else btc / bar.volume
    worse = rules.half_spread_frac + rules.impact_coef * bar.sigma * sqrt(share)
    return to_tick(rules, reference * max(0.0, 1 + side * worse), up=side > 0)


def limit_price(rules: Rules, bar: Bar, side: int) -> float:
    """Where a resting order waits: below the open to buy, above it to sell."""
    return to_tick(rules, bar.open * (1 - side * rules.half_spread_frac), up=side < 0)


def stop_price(rules: Rules, lot: Lot) -> float:
    return lot.entry * (1 - lot.side * rules.stop_loss_frac)


def target_price(rules: Rules, lot: Lot) -> float:
    return to_tick(rules, lot.entry * (1 + lot.side * rules.take_profit_frac), up=lot.side > 0)


@dataclass
class Book:
    """Cash, lots and what was traded; every fill goes through `trade`."""

    rules: Rules
    start: float
    lots: list[Lot] = field(default_factory=list)
    closed: list[tuple[Lot, float]] = field(default_factory=list)  # with the sigma of a patch at their end
    ledger: Ledger = field(default_factory=Ledger)
    notional: dict[int, float] = field(default_factory=lambda: defaultdict(float))  # of fills, by UTC day
    events: Counter[str] = field(default_factory=Counter)  # how often each rule spoke
    day: int = -1
    since_trade: int = 0
    bar: Bar = field(init=False)  # the last present one

    def __post_init__(self) -> None:
        self.cash = self.start

    @property
    def held(self) -> float:
        return sum(lot.btc for lot in self.lots)

    @property
    def side(self) -> int:
        return self.lots[0].side if self.lots else 0

    def open_moves(self, mark: float) -> float:
        """What prices earned on the lots still open, against the reference of their entry."""
        return sum(lot.btc * (mark - lot.reference) for lot in self.lots)

    def fee(self, maker: bool) -> float:
        """By what was traded before this fill."""
        traded = sum(usdt for day, usdt in self.notional.items() if self.day - 29 <= day <= self.day)
        return fee_frac(self.rules, traded, maker)

    def trade(self, side: int, btc: float, price: float, reference: float, fee: float) -> float:
        """Pay (side 1) or receive (side -1) for btc; returns the USDT, net of the fee."""
        usdt = btc * price * (1 + side * fee)
        self.cash -= side * usdt
        self.ledger.fees += btc * price * fee
        self.ledger.slippage += side * btc * (price - reference)
        self.notional[self.day] += btc * price
        self.since_trade = 0
        return usdt

    def take(self, lot: Lot, btc: float, price: float, reference: float, fee: float) -> None:
        """Close btc of a lot."""
        if btc <= 0:
            return
        usdt = self.trade(-lot.side, btc, price, reference, fee)
        lot.proceeds += usdt if lot.side > 0 else 2 * lot.cost * btc / abs(lot.whole) - usdt
        lot.exits += btc * price
        self.ledger.moves += lot.side * btc * (reference - lot.reference)
        self.events["whole" if btc >= abs(lot.btc) else "partial"] += 1
        lot.btc = 0.0 if btc >= abs(lot.btc) else lot.btc - lot.side * btc
        if lot.btc == 0:
            self.lots.remove(lot)
            self.closed.append((lot, self.bar.sigma * sqrt(self.rules.patch_bars)))
