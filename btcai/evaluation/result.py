"""What one strategy did on a span, whoever traded it: the record that backtests and baselines return."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from btcai.inference.bundle import Encoded
from btcai.schema import BUCKETS, FloatArray, IntArray, Span

LABELS = {
    "buy_and_hold": "buy and hold",
    "volatility_targeted": "volatility-targeted",
    "momentum_14d": "momentum 14 d",
    "momentum_28d": "momentum 28 d",
    "momentum_90d": "momentum 90 d",
    "momentum_ensemble": "momentum 14, 28, 90 d",
    "momentum_volatility_targeted": "momentum, volatility-targeted",
    "reversal_1h": "reversal 1 h",
    "bollinger_20d": "Bollinger reversal 20 d",
    "ridge_1d": "ridge forecast 1 d",
    "boosted_1d": "boosted forecast 1 d",
    **{f"random_{bucket}": f"random, trades of {bucket}" for bucket in BUCKETS},
    "portfolio": "portfolio of the buckets",
    **{f"champion_{bucket}": f"champion of {bucket}" for bucket in BUCKETS},
}

TRADE_COLUMNS = (
    "entry_ts_ns",  # close of the bar the lot was opened in
    "exit_ts_ns",  # close of the bar it was closed in
    "btc",
    "entry_price",  # USDT, as filled: spread and impact inside
    "exit_price",
    "profit_usdt",  # after every cost of both sides
    "net_return",  # profit / what the lot cost
)


def label(strategy: str) -> str:
    """A strategy's name for people."""
    return LABELS.get(strategy, strategy)


@dataclass(frozen=True, kw_only=True, eq=False)
class BacktestResult:
    """One account over the n bars of a span; a lot still open at the end is valued at the last mark, unsold.

    close_ts_ns, equity_usdt, position_frac, n_lots (n,): at each bar's close; decisions and actions (D,): bar index
    and Action; trades: one row per closed (part of a) lot, TRADE_COLUMNS.
    """

    span: Span
    start_equity_usdt: float
    close_ts_ns: IntArray
    equity_usdt: FloatArray
    position_frac: FloatArray
    n_lots: IntArray
    decisions: IntArray
    actions: IntArray
    trades: pd.DataFrame
    costs_usdt: float
    traded_usdt: float
    encoded: Encoded | None = None
    """What a policy saw and predicted at the decisions; None where no policy traded."""
    note: str = ""
    """What a reader must know before reading the numbers, for example history that was missing."""


def trades_table(rows: FloatArray, close_ts_ns: IntArray) -> pd.DataFrame:
    """Closed lots (k, 7): entry bar, exit bar, btc, entry price, exit price, cost, proceeds -> TRADE_COLUMNS."""
    entry, leave, btc, entry_price, exit_price, cost, proceeds = rows.reshape(-1, 7).T
    return pd.DataFrame(
        {
            "entry_ts_ns": close_ts_ns[entry.astype(np.int64)],
            "exit_ts_ns": close_ts_ns[leave.astype(np.int64)],
            "btc": btc,
            "entry_price": entry_price,
            "exit_price": exit_price,
            "profit_usdt": proceeds - cost,
            "net_return": proceeds / cost - 1.0,
        }
    )
