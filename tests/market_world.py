"""Small markets and rules for tests whose numbers are worked by hand."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from btcai.market.account import new_accounts, open_lots
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.kernel import decision_step, observe
from btcai.market.reward import TERMS
from btcai.market.rules import FREE_RULES, Rules
from btcai.schema import ACCOUNT_FEATURES, BAR_NS, Bars, FloatArray, MarketData

MIDNIGHT_NS = 1_700_006_400_000_000_000  # 2023-11-15 00:00 UTC
PLENTY_BTC = 1e12

FREE = FREE_RULES
"""No cost, no limit, three lots: a test names what it adds."""


def make_market(
    opens: Sequence[float],
    *,
    lows: Mapping[int, float] = MappingProxyType({}),
    highs: Mapping[int, float] = MappingProxyType({}),
    volume: float | Sequence[float] = PLENTY_BTC,
    sigma: float | Sequence[float] = 0.01,
    missing: Iterable[int] = (),
    funding: Mapping[int, float] = MappingProxyType({}),
    first_open_ns: int = MIDNIGHT_NS,
) -> MarketData:
    """Bars that open where given and close at the next open (the last at its own open); lows and highs override.

    funding: rates by bar, nothing is due elsewhere.
    """
    open_ = np.asarray(opens, dtype=float)
    close = np.append(open_[1:], open_[-1])
    present = np.ones(len(open_), bool)
    present[list(missing)] = False
    low, high = np.minimum(open_, close), np.maximum(open_, close)
    for column, prices in ((low, lows), (high, highs)):
        column[list(prices)] = list(prices.values())
    mark = close.copy()
    for bar in np.flatnonzero(~present):
        mark[bar] = mark[bar - 1]
    rates = np.zeros(len(open_))
    rates[list(funding)] = list(funding.values())
    blank = np.where(present, 1.0, np.nan)
    bars = Bars(
        close_ts_ns=first_open_ns + BAR_NS * np.arange(1, len(open_) + 1, dtype=np.int64),
        open=open_ * blank,
        high=high * blank,
        low=low * blank,
        close=close * blank,
        volume=np.where(present, volume, 0.0),
        present=present,
    )
    features = np.stack([np.zeros(len(open_)), present], axis=1).astype(np.float32)
    return MarketData(
        bars=bars,
        mark=mark,
        sigma=np.broadcast_to(np.asarray(sigma, float), len(open_)).copy(),
        features=features,
        feature_names=("zero", "mask"),
        warmup_bars=0,
        funding=rates,
    )


class Trader:
    """One account on a market from the close of bar 0 on."""

    def __init__(self, data: MarketData, rules: Rules, equity_usdt: float = 10_000.0, seed: int = 0) -> None:
        self.bars: BarArrays = bar_arrays(data)
        self.rules = rules
        accounts, lots = new_accounts(1, rules.max_lots, equity_usdt, np.array([seed], float))
        self.account, self.lots = accounts[0], lots[0]
        self.t = 0

    def decide(self, action: int, size_frac: float = 0.1, entry_allowed: bool = True) -> tuple[float, bool]:
        self.terms = np.zeros(len(TERMS))
        outcome = decision_step(
            self.account, self.lots, self.bars, self.t, int(action), size_frac, entry_allowed, self.rules, self.terms
        )
        self.t += self.rules.patch_bars
        return outcome

    def walk(self, *actions: int, size_frac: float = 0.1) -> "Trader":
        """Take these actions one after another."""
        for action in actions:
            self.decide(action, size_frac)
        return self

    def term(self, name: str) -> float:
        """A term of the last decision's reward."""
        return float(self.terms[TERMS.index(name)])

    def __getitem__(self, column: int) -> float:
        return float(self.account[column])

    @property
    def open(self) -> FloatArray:
        """The open lots, oldest first, (n, N_LOT)."""
        return open_lots(self.account, self.lots)

    def seen(self) -> dict[str, float]:
        out = np.full(len(ACCOUNT_FEATURES), np.nan, np.float32)
        observe(self.account, self.lots, self.bars, self.t, self.rules, out)
        return dict(zip(ACCOUNT_FEATURES, out.tolist(), strict=True))
