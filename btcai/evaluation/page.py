"""The report's page: one self-contained HTML file (styles and pictures inside) that opens without a network."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite

from btcai.calibration import MIN_INDEPENDENT
from btcai.config import CostConfig
from btcai.evaluation.evidence import Evidence
from btcai.evaluation.formats import COLUMNS, UNDEFINED, between, cost_text, duration, flag, percent, ratio
from btcai.evaluation.judge import POSITIVE_FOLDS, RECOMMENDED, Row, Verdict
from btcai.evaluation.reliability import Held, Reliability
from btcai.evaluation.result import label

_STYLE = """
:root { color-scheme: light; --ink: #222; --soft: #666; --line: #ddd; --good: #00694c; --bad: #b3400a; --tint: #f6f6f3 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1120px; padding: 28px 22px 60px; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 25px; margin: 0 0 2px } h2 { font-size: 18px; margin: 36px 0 8px }
p { max-width: 78ch; margin: 6px 0 } .soft { color: var(--soft); overflow-wrap: anywhere }
.answer { margin: 18px 0 4px; padding: 13px 18px; background: var(--tint); border-left: 5px solid var(--bad) }
.answer.proven { border-left-color: var(--good) } .answer strong { font-size: 17px }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13.5px }
th, td { padding: 5px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal }
th:first-child, td:first-child { text-align: left }
tr.first-baseline td { border-top: 2px solid var(--soft) }
.up { color: var(--good) } .down { color: var(--bad) }
.bar { background: linear-gradient(90deg, #dbe7f0 var(--share), transparent 0) }
.flag { color: var(--bad); font-size: 12px; display: block; white-space: normal; max-width: 30ch }
img { width: 100%; min-width: 700px; height: auto; display: block; margin: 10px 0 }
dt { font-weight: 600; margin-top: 10px } dd { margin: 0; max-width: 84ch }
pre { background: var(--tint); padding: 12px 16px; overflow-x: auto; font-size: 12.5px; line-height: 1.45 }
@media print { body { padding: 0 } .scroll { overflow: visible } table { font-size: 10px }
  img { min-width: 0 } }
"""
_ALT = {
    "equity.png": "Equity of every strategy over the test span",
    "drawdown.png": "Drawdown of every strategy over the test span",
    "sharpe.png": "Sharpe ratio of every strategy with its 95 % interval",
    "calibration.png": "Share of outcomes below each predicted quantile, per bucket and horizon",
    "training.png": "Losses, validation score, entropy and KL of every bucket over its updates",
}


def render_page(evidence: Evidence, days: str, pictures: Mapping[str, bytes]) -> str:
    """The whole page; `days` is the tested span in words, `pictures` PNG bytes by file name."""
    judgement, market = evidence.judgement, escape(evidence.market)
    rows = judgement.judged_rows()
    shown = {name: _picture(name, content) for name, content in pictures.items()}
    body = [
        f"<h1>btcai: evaluation on {market}</h1>",
        f'<p class="soft">Test span {days}, not used to train. {escape(judgement.severity.capitalize())} costs unless '
        f"said otherwise. Data version {escape(evidence.data_version)}.</p>",
        _answer(judgement.verdicts),
        "<h2>Every bucket beside every baseline</h2>",
        _strategies(rows),
        shown["equity.png"],
        shown["drawdown.png"],
        shown["sharpe.png"],
        "<h2>Verdicts</h2>",
        _verdicts(judgement.verdicts),
        "<h2>Sharpe ratio minus each baseline's, joint 95 % interval</h2>",
        _differences(judgement.verdicts),
        "<h2>Walk-forward folds</h2>",
        _folds(rows),
        "<h2>The same under other costs</h2>",
        _severities(judgement.rows, evidence.severities),
        "<h2>Forecasts</h2>",
        _READ_CALIBRATION,
        shown["calibration.png"],
        _forecasts(evidence.forecasts),
        "<h2>Training</h2>",
        _READ_TRAINING,
        shown["training.png"],
        "<h2>Features</h2>",
        _READ_IMPORTANCE,
        _importance(evidence.importance),
        "<h2>Spans</h2>",
        f"<pre>{escape(evidence.splits_text)}</pre>",
        f"<p><strong>Sealed span, untouched:</strong> {escape(evidence.sealed_text)}. No figure here has read it.</p>",
        "<h2>How this was measured</h2>",
        _METHOD,
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    content = "\n".join(body)
    title = f"<title>btcai evaluation: {market}</title>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{title}</head>\n<body>\n{content}\n</body></html>\n'


_READ_CALIBRATION = f"""<p>What each bucket predicted at its decisions in the test span, beside what followed. Where
the line follows the diagonal, one outcome in twenty falls below the 5 % quantile, half below the median, and so on.
Outcomes of a long horizon overlap, so few of them are apart: the grey band is where forecasts that are right would
still fall. With fewer than {MIN_INDEPENDENT} apart nothing can be said either way. Three forms are drawn: as the
network learned to predict, with the offsets of the validation span, which are in the bundle, and with offsets that go
on to follow the outcomes as each becomes known, a horizon late.</p>"""

_READ_TRAINING = """<p>Every update of every phase, in order. Kept are the latest weights that score no worse on the
validation span than the best ones by a standard error, returns that no forecast knew left out; consolidation is kept
only where it scores better. The test span plays no part.</p>"""

_TOP = 8
"""Features that are shown of each bucket."""

_READ_IMPORTANCE = f"""<p>The {_TOP} features that each judged network lets in most, each with its share of the learned
selection; the shares of all features add up to 100 %. A share says how much of a feature the network reads, not what
it earns by it; features that tell the same share one place.</p>"""

_METHOD = f"""<p>A decision taken when a bar closes fills at the next bar's open, worse by half the spread and by market
impact, less the fee; nothing fills on a missing bar. Baselines trade through the same fills and costs. Lots still open
at the end are valued at the last close.</p>
<p>Sharpe ratios are annual (365 days), from daily UTC returns without a risk-free rate. Intervals come from the
stationary bootstrap, which keeps runs of similar days together; differences to a baseline resample the same days of
both. A dash is a figure that is not defined: too few days, no trade, or no variance. The walk-forward score is the mean
of the folds' Sharpe ratios; a fold without one counts as 0.</p>
<p>An edge is called proven only if the Sharpe ratio lies surely above every baseline's (the whole interval of the
difference above 0, 95 % for all buckets together), at least {POSITIVE_FOLDS:.0%} of the folds gained, and the net
return is positive under every cost severity.</p>
<p>Forecasts count where their horizon ends inside the test span at a bar that is not missing. Their pinball loss is
divided by that of the training span's quantiles scaled by the volatility of the moment: below 1 the model knows more
than volatility. The information coefficient is the correlation of the predicted mean with the outcome; 95 % of those
of a forecast that knows nothing lie within the noise beside it. The temperature is what the log odds of a rise (by mean
and standard deviation) should have been divided by, with its 95 % interval: above 1 they were too sure.</p>"""


def _answer(verdicts: Sequence[Verdict]) -> str:
    proven = [verdict.bucket for verdict in verdicts if verdict.edge == "proven"]
    if proven:
        text = f"<strong>Edge shown: {escape(', '.join(proven))}.</strong> Every other bucket stays on paper."
        return f'<div class="answer proven">{text}</div>'
    remedy = RECOMMENDED.removeprefix("recommended: ")
    return f'<div class="answer"><strong>No edge shown in any bucket.</strong> Recommended: {remedy}.</div>'


def _strategies(rows: Sequence[Row]) -> str:
    body = []
    for number, row in enumerate(rows):
        cells = [_cell(column.text(row), column.sign(row)) for column in COLUMNS]
        note = f'<span class="flag">{escape(flag(row))}</span>' if flag(row) else ""
        cells[0] = f"<td>{escape(label(row.strategy))}{note}</td>"
        first = number > 0 and rows[number - 1].is_bucket and not row.is_bucket
        opening = '<tr class="first-baseline">' if first else "<tr>"
        body.append(f"{opening}{''.join(cells)}</tr>")
    return _table([column.head.replace("-\n", "-").replace("\n", " ") for column in COLUMNS], body)


def _picture(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode("ascii")
    return f'<div class="scroll"><img alt="{_ALT[name]}" src="data:image/png;base64,{data}"></div>'


def _verdicts(verdicts: Iterable[Verdict]) -> str:
    items = (f"<dt>{escape(verdict.bucket)}</dt><dd>{escape(verdict.text)}.</dd>" for verdict in verdicts)
    return f"<dl>{''.join(items)}</dl>"


def _differences(verdicts: Sequence[Verdict]) -> str:
    names = [name for name, _, _ in verdicts[0].differences] if verdicts else []
    body = []
    for verdict in verdicts:
        cells = "".join(_cell(between(low, high), _sure_sign(low, high)) for _, low, high in verdict.differences)
        body.append(f"<tr><td>{escape(verdict.bucket)}</td>{cells}</tr>")
    return _table(["bucket", *(f"vs {label(name)}" for name in names)], body)


def _sure_sign(low: float, high: float) -> float:
    """1 when the whole interval lies above 0, -1 when below, else 0."""
    return float(low > 0) - float(high < 0)


def _folds(rows: Sequence[Row]) -> str:
    heads = [f"fold {number}" for number in range(1, 1 + max((len(row.fold_returns) for row in rows), default=0))]
    body = []
    for row in rows:
        pairs = zip(row.fold_returns, row.fold_sharpes, strict=True)
        cells = (_cell(f"{percent(gain)} ({ratio(sharpe)})", gain) for gain, sharpe in pairs)
        body.append(f"<tr><td>{escape(label(row.strategy))}</td>{''.join(cells)}</tr>")
    return '<p class="soft">Net return (Sharpe ratio).</p>' + _table(["strategy", *heads], body)


def _severities(rows: Sequence[Row], severities: Mapping[str, CostConfig]) -> str:
    """Net return and Sharpe ratio of every strategy under each cost severity."""
    found = {(row.strategy, row.severity): row for row in rows}
    heads = [f"{name}: {cost_text(cost)}" for name, cost in severities.items()]
    body = []
    for strategy in dict.fromkeys(row.strategy for row in rows):
        cells = []
        for name in severities:
            row = found.get((strategy, name))
            text = f"{percent(row.net_return)} ({ratio(row.sharpe)})" if row else UNDEFINED
            cells.append(_cell(text, row.net_return if row else 0.0))
        body.append(f"<tr><td>{escape(label(strategy))}</td>{''.join(cells)}</tr>")
    return '<p class="soft">Net return (Sharpe ratio).</p>' + _table(["strategy", *heads], body)


def _forecasts(forecasts: Mapping[str, tuple[Reliability, ...]]) -> str:
    """One row per bucket and horizon; grey where the outcomes are too few to judge by."""
    heads = (
        "bucket",
        "horizon",
        "outcomes",
        "of them apart",
        "90 % interval holds, as learned",
        "calibrated",
        "adaptive",
        "if right, in 95 % of cases",
        "pinball loss (volatility alone: 1), calibrated",
        "adaptive",
        "information coefficient +- noise",
        "temperature of a rise",
    )
    body = []
    for bucket, horizons in forecasts.items():
        for number, found in enumerate(horizons):
            kind = "" if found.is_judged else ' class="soft"'
            cells = "".join(_forecast_cells(found))
            body.append(f"<tr{kind}><td>{'' if number else escape(bucket)}</td>{cells}</tr>")
    return _table(heads, body)


def _forecast_cells(found: Reliability) -> list[str]:
    """Coloured only where judged: down for what right forecasts would not show, by sign where more is better."""
    judged = float(found.is_judged)
    known, noise = found.information_coefficient, found.information_noise
    few = "" if found.is_judged else ", too few to judge"
    return [
        _cell(duration(found.horizon_bars)),
        _cell(f"{found.outcomes:,}"),
        _cell(f"{found.apart:,}{few}"),
        *(_coverage_cell(found, held) for held in (found.raw, found.static, found.adaptive)),
        _cell(f"{between(100 * found.coverage_low, 100 * found.coverage_high, 1)} %"),
        *(
            _cell(ratio(held.pinball_ratio, 3), judged * (1.0 - held.pinball_ratio))
            for held in (found.static, found.adaptive)
        ),
        _cell(f"{ratio(known, 3)} +- {ratio(noise, 3)}", judged * known * (abs(known) > noise)),
        _temperature_cell(found),
    ]


def _coverage_cell(found: Reliability, held: Held) -> str:
    missed = held.coverage_frac < found.coverage_low or held.coverage_frac > found.coverage_high
    return _cell(percent(held.coverage_frac), -float(found.is_judged and missed))


def _temperature_cell(found: Reliability) -> str:
    """With its interval, 1.6 (1.0 .. 3.6); down where 1 lies outside."""
    if not isfinite(found.rise_temperature):
        return _cell(UNDEFINED)
    low, high = found.rise_temperature_low, found.rise_temperature_high
    ends = f"{ratio(low, 1)} .. {ratio(high, 1) if isfinite(high) else 'inf'}"
    return _cell(f"{ratio(found.rise_temperature, 1)} ({ends})", -float(low > 1.0 or high < 1.0))


def _importance(buckets: Mapping[str, Mapping[str, float]]) -> str:
    """A column per bucket, its strongest features from the top, each on a bar of its share; features alike by name."""
    tops = {
        bucket: sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
        for bucket, shares in buckets.items()
    }
    most = max((share for top in tops.values() for _, share in top), default=1.0)
    heads = [f"{bucket} (each alike: {percent(1 / len(shares))})" for bucket, shares in buckets.items()]
    body = []
    for place in range(max(map(len, tops.values()), default=0)):
        cells = (_bar(*top[place], most) if place < len(top) else "<td></td>" for top in tops.values())
        body.append(f"<tr><td>{place + 1}</td>{''.join(cells)}</tr>")
    return _table(["", *heads], body)


def _bar(name: str, share: float, most: float) -> str:
    return f'<td class="bar" style="--share: {100 * share / most:.1f}%">{escape(name)} {percent(share)}</td>'


def _table(heads: Iterable[str], body: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _cell(text: str, sign: float = 0.0) -> str:
    tone = ' class="up"' if sign > 0 else ' class="down"' if sign < 0 else ""
    return f"<td{tone}>{escape(text)}</td>"
