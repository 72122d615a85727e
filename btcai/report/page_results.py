"""The page's first part: verdicts, every bucket beside every baseline, folds, other costs, trades."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from math import isfinite

from btcai.config import CostConfig
from btcai.evaluation.gate import MAX_P_VALUE, Check
from btcai.evaluation.judge import Verdict
from btcai.evaluation.result import label
from btcai.evaluation.rows import Row, daily_returns
from btcai.evaluation.twins import Rank
from btcai.report.drawing import Picture
from btcai.report.evidence import Evidence
from btcai.report.formats import (
    COLUMNS,
    FURTHER,
    OF_TRADES,
    UNDEFINED,
    Column,
    between,
    cost_text,
    flag,
    percent,
    ratio,
)
from btcai.report.markup import Section, aside, cell, paragraph, picture, row, section, table

ENOUGH_LOTS = 240
"""Below it not even the surest contrast of twelve variables can be significant (review, lessons)."""


def result_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[Section]:
    """The verdict and what it rests on."""
    judgement = evidence.judgement
    rows = judgement.judged_rows()
    return [
        section(
            "Verdicts",
            _verdicts(judgement.verdicts),
            "<h3>The gate: every check of every bucket</h3>",
            _gate(judgement.verdicts),
            "<h3>Sharpe ratio minus each baseline's</h3>",
            aside("Each end is sure at 95 % for all buckets together, for each baseline by itself."),
            _differences(judgement.verdicts),
            *_random(judgement.verdicts),
        ),
        section(
            "Every bucket beside every baseline",
            _strategies(rows, COLUMNS),
            *(picture(pictures.get(name)) for name in ("equity.png", "drawdown.png", "sharpe.png")),
            "<h3>Further figures</h3>",
            aside(
                "Days needed: how long a record with this Sharpe ratio and these tails must be before it is above 0 "
                f"with 95 % confidence; this one has {_days(evidence)}."
            ),
            _strategies(rows, FURTHER),
            "<h3>What the trades earned</h3>",
            _strategies([one for one in rows if not one.did_not_trade], OF_TRADES),
        ),
        section("Walk-forward folds", picture(pictures.get("figures/folds.png")), _folds(rows)),
        section("The same under other costs", _severities(judgement.rows, evidence.severities)),
        section("All four as one portfolio", *_portfolio(evidence)),
        section("By regime and hour", *_slices(evidence, pictures)),
        section("Trades on candles", *_trades(evidence, pictures)),
        section("Trades looked back on", *_reviews(evidence)),
        section("The same decisions at other sizes", *_sizings(evidence)),
    ]


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    items = (f"<dt>{escape(verdict.bucket)}</dt><dd>{escape(verdict.text)}.</dd>" for verdict in verdicts)
    return f"<dl>{''.join(items)}</dl>"


def _gate(verdicts: Sequence[Verdict]) -> str:
    """A row per check, a column per bucket: the figure, green where it passed; below, what the span could show."""
    found = [{check.name: check for check in verdict.checks} for verdict in verdicts]
    body = []
    for name in max(found, key=len, default={}):
        there = [checks.get(name) for checks in found]
        one = next(check for check in there if check is not None)
        cells = (cell(ratio(check.value, 3), _tone(check)) if check else cell(UNDEFINED) for check in there)
        body.append(row(name, [cell(f"{one.side} {one.threshold:g}"), *cells]))
    told = {
        "smallest Sharpe ratio that this span could have told from these baselines": [
            ratio(one.smallest_edge.sharpe) for one in verdicts
        ],
        "what asks for that much": [one.smallest_edge.against or UNDEFINED for one in verdicts],
        "best of half the days loses in the rest": [ratio(one.loss_probability, 3) for one in verdicts],
        "trials counted": [f"{one.n_trials:,}" for one in verdicts],
    }
    body += [row(name, map(cell, ["", *values])) for name, values in told.items()]
    return table(["check", "needed", *(verdict.bucket for verdict in verdicts)], body)


def _tone(check: Check) -> float:
    return 1.0 if check.passed else -1.0


def _differences(verdicts: Sequence[Verdict]) -> str:
    """A row per baseline, a column per bucket; below, over the champion that each bucket has, which no check asks."""
    body = []
    for place, (name, _, _) in enumerate(verdicts[0].differences if verdicts else ()):
        ends = [verdict.differences[place][1:] for verdict in verdicts]
        body.append(row(f"over {label(name)}", (cell(between(*pair), _sure_sign(*pair)) for pair in ends)))
    over = [verdict.over_champion for verdict in verdicts]
    if any(over):
        cells = (cell(between(*pair), _sure_sign(*pair)) if pair else cell(UNDEFINED) for pair in over)
        body.append(row("over its champion (no check)", cells))
    return table(["", *(verdict.bucket for verdict in verdicts)], body)


def _random(verdicts: Sequence[Verdict]) -> list[str]:
    """Each bucket that traded among its random twins."""
    ranked = {verdict.bucket: verdict.ranks for verdict in verdicts if verdict.ranks}
    if not ranked:
        return []
    body = [
        row(bucket, (cell(text, sign) for one, show in ((ranks.net_return, percent), (ranks.sharpe, ratio))
            for text, sign in _ranked(one, show)))
        for bucket, ranks in ranked.items()
    ]  # fmt: skip
    most = max(ranks.twins for ranks in ranked.values())
    told = f"Among {most} twins: the same trades, as long and as large, at times drawn by chance, at the same costs."
    twins = ("twins: 5 %", "median", "95 %", "chance of as much")
    heads = ["bucket", "net return", *twins, "Sharpe ratio", *twins]
    return ["<h3>The same trades at random times</h3>", aside(told), table(heads, body)]


def _ranked(one: Rank, show: Callable[[float], str]) -> list[tuple[str, float]]:
    """Cells: text, and whether it is green or red."""
    twins = [(show(value), 0.0) for value in (one.low, one.median, one.high)]
    return [(show(one.value), one.value), *twins, (ratio(one.chance, 3), 1.0 if one.chance < MAX_P_VALUE else -1.0)]


def _days(evidence: Evidence) -> int:
    """UTC days of the tested span."""
    return len(daily_returns(next(iter(evidence.judged().values()))))


def _sure_sign(low: float, high: float) -> float:
    """1 when the whole interval lies above 0, -1 when below, else 0."""
    return float(low > 0) - float(high < 0)


def _strategies(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A row per strategy, its flag under its name, baselines apart."""
    body = []
    for number, one in enumerate(rows):
        cells = [cell(column.text(one), column.sign(one)) for column in columns]
        note = f'<span class="flag">{escape(flag(one))}</span>' if flag(one) else ""
        cells[0] = f"<td>{escape(label(one.strategy))}{note}</td>"
        first = number > 0 and rows[number - 1].is_bucket and not one.is_bucket
        opening = '<tr class="first-baseline">' if first else "<tr>"
        body.append(f"{opening}{''.join(cells)}</tr>")
    return table([column.head.replace("-\n", "-").replace("\n", " ") for column in columns], body)


def _folds(rows: Sequence[Row]) -> str:
    heads = [f"fold {number}" for number in range(1, 1 + max((len(one.fold_returns) for one in rows), default=0))]
    body = []
    for one in rows:
        pairs = zip(one.fold_returns, one.fold_sharpes, strict=True)
        cells = (cell(f"{percent(gain)} ({ratio(sharpe)})", gain) for gain, sharpe in pairs)
        body.append(row(label(one.strategy), cells))
    return aside("Net return (Sharpe ratio).") + table(["strategy", *heads], body)


def _severities(rows: Sequence[Row], severities: Mapping[str, CostConfig]) -> str:
    """Net return and Sharpe ratio of every strategy under each cost severity."""
    found = {(one.strategy, one.severity): one for one in rows}
    heads = [f"{name.replace('_', ' ')}: {cost_text(cost)}" for name, cost in severities.items()]
    body = []
    for strategy in dict.fromkeys(one.strategy for one in rows):
        cells = []
        for name in severities:
            one = found.get((strategy, name))
            text = f"{percent(one.net_return)} ({ratio(one.sharpe)})" if one else UNDEFINED
            cells.append(cell(text, one.net_return if one else 0.0))
        body.append(row(label(strategy), cells))
    return aside("Net return (Sharpe ratio).") + table(["strategy", *heads], body)


def _portfolio(evidence: Evidence) -> list[str]:
    """How the buckets moved together; the account itself is a row of the tables above."""
    found = evidence.correlation
    if found.empty:
        return []
    if not isfinite(evidence.diversification_ratio):
        return [paragraph("Too few buckets traded, or too few days, to say how they moved together.")]
    body = [
        row(str(one), (cell(ratio(float(found.loc[one, other]))) for other in found.columns)) for one in found.index
    ]
    told = f"Diversification ratio {ratio(evidence.diversification_ratio)}: 1 where the buckets move as one. "
    told += "Correlation of daily returns:"
    return [paragraph(told), table(["", *map(str, found.columns)], body)]


def _slices(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[str]:
    names = (f"figures/slices_{bucket}.png" for bucket in evidence.slices)
    return [shown for name in names if (shown := picture(pictures.get(name)))]


def _reviews(evidence: Evidence) -> list[str]:
    """What earned and what cost, per bucket, and the lessons that there are."""
    if not evidence.reviews:
        return []
    names = list(next(iter(evidence.reviews.values())).totals)
    body = [
        row(bucket, (cell(f"{one.totals[name]:,.0f}", one.totals[name]) for name in names))
        for bucket, one in evidence.reviews.items()
    ]
    learned = [f"{bucket}: {lesson.sentence}." for bucket, one in evidence.reviews.items() for lesson in one.lessons]
    most = max(len(one.trades) for one in evidence.reviews.values())
    nothing = (
        "No lesson: nothing known at entry told successes from failures by more than chance."
        if most >= ENOUGH_LOTS
        else f"No lesson can be told from {most} closed lots: corrected for all variables it takes {ENOUGH_LOTS}."
    )
    heads = ["bucket", *(name.removesuffix("_usdt") for name in names)]
    return [aside("Profit of closed lots, USDT."), table(heads, body), *map(paragraph, learned or [nothing])]


def _sizings(evidence: Evidence) -> list[str]:
    """Every strategy of sizing beside lots of its own mean size, per bucket that traded."""
    if not evidence.sizings:
        return []
    body = [
        row(
            f"{bucket}: {one.strategy.replace('_', ' ')}",
            [
                cell("yes" if one.has_thresholds else "no"),
                cell(percent(one.allowed_frac, 0)),
                cell(percent(one.lot_frac)),
                cell(percent(one.sized.net_return), one.sized.net_return),
                cell(percent(one.sized.max_drawdown_frac)),
                cell(percent(one.fixed.net_return), one.fixed.net_return),
                cell(percent(one.fixed.max_drawdown_frac)),
                cell(between(*one.sharpe_difference), _sure_sign(*one.sharpe_difference)),
            ],
        )
        for bucket, rows in evidence.sizings.items()
        for one in rows
    ]
    heads = ["strategy", "thresholds of doubt", "lots allowed", "mean lot", "net return", "max drawdown",
             "fixed size: net return", "max drawdown", "Sharpe ratio less fixed size's, 95 %"]  # fmt: skip
    return [table(heads, body)]


def _trades(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[str]:
    """Two pictures of each bucket that closed a lot; of the others, that they did not."""
    if evidence.unsealed() is None:
        return []
    judged = evidence.judged()
    idle = [bucket for bucket, result in judged.items() if result.trades.empty]
    names = (f"figures/{kind}_{bucket}.png" for bucket in judged for kind in ("trades", "trade"))
    told = f"No lot was closed by {', '.join(idle)}: there is nothing to draw." if idle else ""
    return [paragraph(told), *(picture(pictures.get(name)) for name in names)]
