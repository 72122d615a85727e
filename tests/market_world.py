"""Small markets and rules for tests whose numbers are worked by hand."""

from collections.abc import Iterable, Sequence

import numpy as np

from btcai.market.account import new_accounts
from btcai.market.kernel import BarArrays, Rules, bar_arrays, decision_step, observe
from btcai.market.reward import TERMS
from btcai.schema import ACCOUNT_FEATURES, BAR_NS, Bars, MarketData

MIDNIGHT_NS = 1_700_006_400_000_000_000  # 2023-11-15 00:00 UTC
PLENTY_BTC = 1e12

FREE = Rules(
    fee_frac=0.0,
    half_spread_frac=0.0,
    impact_coef=0.0,
    max_volume_share=1.0,
    max_lots=3,
    stop_loss_frac=0.0,
    max_exposure_frac=1.0,
    daily_loss_halt_frac=1.0,
    drawdown_halt_frac=1.0,
    cool_down_bars=5,
    goal_frac=0.5,
    patch_bars=1,
    w_net_profit=1.0,
    w_cost=0.0,
    w_drawdown=0.0,
    w_win=0.0,
    w_goal=0.0,
    compound=False,
)
"""No cost, no limit: a test names what it adds."""


def make_market(
    opens: Sequence[float],
    *,
    lows: dict[int, float] | None = None,
    volume: float | Sequence[float] = PLENTY_BTC,
    sigma: float | Sequence[float] = 0.01,
    missing: Iterable[int] = (),
    first_open_ns: int = MIDNIGHT_NS,
) -> MarketData:
    """Bars that open where given and close at the next open (the last at its own open); lows override."""
    open_ = np.asarray(opens, dtype=float)
    close = np.append(open_[1:], open_[-1])
    present = np.ones(len(open_), bool)
    present[list(missing)] = False
    low = np.minimum(open_, close)
    for bar, price in (lows or {}).items():
        low[bar] = price
    mark = close.copy()
    for bar in np.flatnonzero(~present):
        mark[bar] = mark[bar - 1]
    blank = np.where(present, 1.0, np.nan)
    bars = Bars(
        close_ts_ns=first_open_ns + BAR_NS * np.arange(1, len(open_) + 1, dtype=np.int64),
        open=open_ * blank,
        high=np.maximum(open_, close) * blank,
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
    )


class Trader:
    """One account on a market from the close of bar 0 on."""

    def __init__(self, data: MarketData, rules: Rules, equity_usdt: float = 10_000.0) -> None:
        self.bars: BarArrays = bar_arrays(data)
        self.rules = rules
        accounts, lots = new_accounts(1, rules.max_lots, equity_usdt)
        self.account, self.lots = accounts[0], lots[0]
        self.t = 0

    def decide(self, action: int, size_frac: float = 0.1, entry_allowed: bool = True) -> tuple[float, bool]:
        self.terms = np.zeros(len(TERMS))
        outcome = decision_step(
            self.account, self.lots, self.bars, self.t, int(action), size_frac, entry_allowed, self.rules, self.terms
        )
        self.t += self.rules.patch_bars
        return outcome

    def __getitem__(self, column: int) -> float:
        return float(self.account[column])

    def seen(self) -> dict[str, float]:
        out = np.full(len(ACCOUNT_FEATURES), np.nan, np.float32)
        observe(self.account, self.lots, self.bars, self.t, self.rules, out)
        return dict(zip(ACCOUNT_FEATURES, out.tolist(), strict=True))
