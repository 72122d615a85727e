"""Results of a backtest made by hand, for tests of what is computed from them."""

import numpy as np

from btcai.evaluation.result import BacktestResult, trades_table
from btcai.schema import BAR_NS, Span


def path_result(
    equity: np.ndarray,
    *,
    start: float = 100.0,
    position: np.ndarray | None = None,
    trades: list[tuple[float, ...]] | None = None,
    costs: float = 0.0,
    traded: float = 0.0,
    first: int = 0,
    first_close_bar: int = 1,
) -> BacktestResult:
    """An account with this equity (n,); trades: rows of trades_table, bars counted from the span's first."""
    n = len(equity)
    closes = (first_close_bar + np.arange(n, dtype=np.int64)) * BAR_NS
    held = np.zeros(n) if position is None else position
    return BacktestResult(
        span=Span(first, first + n),
        start_equity_usdt=start,
        close_ts_ns=closes,
        equity_usdt=np.asarray(equity, np.float64),
        position_frac=held,
        n_lots=(held != 0.0).astype(np.int64),
        decisions=np.arange(first, first + n, 2),
        actions=np.empty(0, np.int64),
        trades=trades_table(np.array(trades or [], np.float64), closes),
        costs_usdt=costs,
        traded_usdt=traded,
    )
