"""How figures read, in the terminal and on the page alike: one set of columns, one way to print each number."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from btcai.config import CostConfig
from btcai.evaluation.result import label
from btcai.evaluation.rows import Row
from btcai.schema import BAR_SECONDS

UNDEFINED = "-"
DID_NOT_TRADE = "did not trade"


def percent(frac: float, digits: int = 1) -> str:
    """0.1234 -> "12.3 %"; undefined is a dash."""
    return f"{_no_minus_zero(100 * frac, digits)} %" if isfinite(frac) else UNDEFINED


def ratio(value: float, digits: int = 2) -> str:
    """1.234 -> "1.23"; undefined is a dash."""
    return _no_minus_zero(value, digits) if isfinite(value) else UNDEFINED


def between(low: float, high: float, digits: int = 2) -> str:
    """An interval: "-0.50 .. 1.20"; undefined is a dash."""
    return f"{ratio(low, digits)} .. {ratio(high, digits)}" if isfinite(low) and isfinite(high) else UNDEFINED


def percents(low: float, high: float) -> str:
    """An interval of shares: "-5.0 .. 12.0 %"; undefined is a dash."""
    found = between(100 * low, 100 * high, 1)
    return found if found == UNDEFINED else f"{found} %"


def sealed_words(looks: int) -> str:
    """Of how often a sealed span was looked at."""
    if looks == 0:
        return "the sealed span is unread"
    return f"the sealed span was looked at {'once' if looks == 1 else f'{looks} times'}: expect luck"


def duration(bars: float) -> str:
    """36 -> "3 h": the largest unit that fits, without needless decimals."""
    minutes = bars * BAR_SECONDS / 60
    for unit, size in (("d", 1440.0), ("h", 60.0)):
        if minutes >= size:
            return f"{minutes / size:.3g} {unit}"
    return f"{minutes:g} min"


def cost_text(cost: CostConfig) -> str:
    """What one side of a trade costs, in words, and how late orders are."""
    late = {0: "", 1: ", 1 bar late"}.get(cost.latency_bars, f", {cost.latency_bars} bars late")
    fee, spread = f"taker fee {cost.taker_fee_bps:g} bp", f"half spread {cost.half_spread_bps:g} bp"
    return f"{fee}, {spread}, impact {cost.impact_coef:g}{late}"


def _no_minus_zero(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table of strategies; `head` breaks where a narrow column's heading should."""

    head: str
    text: Callable[[Row], str]
    sign: Callable[[Row], float] = lambda _: 0.0
    """Coloured by its sign where not 0."""
    essential: bool = True
    """Shown in a narrow terminal too."""


COLUMNS = (
    Column(head="strategy", text=lambda row: label(row.strategy)),
    Column(head="net\nreturn", text=lambda row: percent(row.net_return), sign=lambda row: row.net_return),
    Column(head="Sharpe", text=lambda row: ratio(row.sharpe), sign=lambda row: row.sharpe),
    Column(head="95 %\ninterval", text=lambda row: between(row.sharpe_low, row.sharpe_high)),
    Column(head="max\ndrawdown", text=lambda row: percent(row.max_drawdown_frac)),
    Column(head="win\nrate", text=lambda row: percent(row.win_rate, 0)),
    Column(head="trades", text=lambda row: f"{row.trades:,}"),
    Column(head="exposure", text=lambda row: percent(row.exposure_frac, 0), essential=False),
    Column(head="turnover\na year", text=lambda row: f"{ratio(row.turnover_per_year, 1)} x", essential=False),
    Column(head="costs", text=lambda row: percent(row.cost_frac), essential=False),
    Column(head="folds\nup", text=lambda row: folds_up(row), essential=False),
    Column(
        head="walk-\nforward",
        text=lambda row: ratio(row.walk_forward_score),
        sign=lambda row: row.walk_forward_score,
        essential=False,
    ),
)


FURTHER = (
    Column(head="strategy", text=lambda row: label(row.strategy)),
    Column(head="gross\nreturn", text=lambda row: percent(row.gross_return), sign=lambda row: row.gross_return),
    Column(head="a year", text=lambda row: percent(row.cagr), sign=lambda row: row.cagr),
    Column(head="95 %\ninterval", text=lambda row: percents(row.cagr_low, row.cagr_high)),
    Column(head="Sortino", text=lambda row: ratio(row.sortino), sign=lambda row: row.sortino),
    Column(head="Calmar", text=lambda row: ratio(row.calmar), sign=lambda row: row.calmar),
    Column(
        head="drawdown of\ndaily closes, 95 %", text=lambda row: percents(row.max_drawdown_low, row.max_drawdown_high)
    ),
    Column(
        head="longest\nbelow a peak",
        text=lambda row: duration(row.underwater_bars) if row.underwater_bars else UNDEFINED,
    ),
    Column(head="days needed\nto show it", text=lambda row: ratio(row.needed_days, 0)),
)
"""Those of the second table."""

OF_TRADES = (
    Column(head="strategy", text=lambda row: label(row.strategy)),
    Column(head="closed\nlots", text=lambda row: f"{row.trades:,}"),
    Column(head="held", text=lambda row: duration(row.holding_bars) if isfinite(row.holding_bars) else UNDEFINED),
    Column(head="profit\nfactor", text=lambda row: ratio(row.profit_factor)),
    Column(
        head="mean\nof lots", text=lambda row: percent(row.expectancy_frac, 2), sign=lambda row: row.expectancy_frac
    ),
    Column(head="break-even\ncost, bp", text=lambda row: ratio(row.break_even_bps, 1)),
    Column(head="of its\ngoal", text=lambda row: percent(row.captured_frac), sign=lambda row: row.captured_frac),
)
"""Those of the third table: what the trades earned."""


def folds_up(row: Row) -> str:
    """Folds with a gain, of all: "3 of 4"."""
    return f"{sum(gain > 0 for gain in row.fold_returns)} of {len(row.fold_returns)}"


def flag(row: Row) -> str:
    """What a reader must know before reading the row's numbers; empty when nothing."""
    marks = [DID_NOT_TRADE] if row.did_not_trade and row.is_bucket else []
    return "; ".join(marks + ([row.note] if row.note else []))
