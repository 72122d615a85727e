"""The report's page: one self-contained HTML file (styles and pictures inside) that opens without a network."""

from collections.abc import Mapping, Sequence
from html import escape

from btcai.evaluation.judge import RECOMMENDED, Verdict
from btcai.report.drawing import Picture
from btcai.report.evidence import Evidence
from btcai.report.markup import contents
from btcai.report.page_forecasts import forecast_sections
from btcai.report.page_learning import learning_sections
from btcai.report.page_market import market_sections
from btcai.report.page_results import result_sections
from btcai.report.page_stress import stress_sections

_STYLE = """
:root { color-scheme: light; --ink: #222; --soft: #666; --line: #ddd; --good: #00694c; --bad: #b3400a; --tint: #f6f6f3 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1120px; padding: 28px 22px 60px; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 25px; margin: 0 0 2px } h2 { font-size: 19px; margin: 40px 0 8px }
h3 { font-size: 15px; margin: 22px 0 4px } a { color: #0b5c8f }
p { max-width: 78ch; margin: 6px 0 } .soft { color: var(--soft); overflow-wrap: anywhere }
nav { margin: 18px 0 0; padding: 10px 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line) }
nav ol { margin: 0; padding-left: 26px; columns: 3 220px; font-size: 14px }
.answer { margin: 18px 0 4px; padding: 13px 18px; background: var(--tint); border-left: 5px solid var(--bad) }
.answer.proven { border-left-color: var(--good) } .answer strong { font-size: 17px }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin: 8px 0 }
th, td { padding: 5px 7px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal }
th:first-child, td:first-child { text-align: left } th { min-width: 4.6em }
tr.first-baseline td { border-top: 2px solid var(--soft) }
.up { color: var(--good) } .down { color: var(--bad) }
.bar { background: linear-gradient(90deg, #dbe7f0 var(--share), transparent 0) }
.flag { color: var(--bad); font-size: 12px; display: block; white-space: normal; max-width: 30ch }
figure { margin: 16px 0 } figcaption { color: var(--soft); font-size: 13.5px; max-width: 92ch }
img { width: 100%; min-width: 700px; height: auto; display: block }
dt { font-weight: 600; margin-top: 10px } dd { margin: 0; max-width: 84ch }
summary { cursor: pointer; color: #0b5c8f; font-size: 14px }
pre { background: var(--tint); padding: 12px 16px; overflow-x: auto; font-size: 12.5px; line-height: 1.45 }
@media (max-width: 600px) { body { padding: 16px 12px 40px } h1 { font-size: 21px } }
@media print { body { padding: 0; max-width: none } .scroll { overflow: visible } table { font-size: 9px }
  th, td { padding: 3px 4px } .flag { font-size: 8px } img { min-width: 0 } figure, tr, .answer { break-inside: avoid }
  h2, h3 { break-after: avoid } a { color: inherit; text-decoration: none } }
"""


def render_page(evidence: Evidence, days: str, pictures: Mapping[str, Picture]) -> str:
    """The whole page, the answer first; `days` is the tested span in words, `pictures` by file name."""
    judgement, market = evidence.judgement, escape(evidence.market)
    made = (result_sections, stress_sections, forecast_sections, learning_sections, market_sections)
    sections = [one for make in made for one in make(evidence, pictures) if one.parts]
    body = [
        f"<h1>btcai: evaluation on {market}</h1>",
        f'<p class="soft">Test span {days}, not used to train. {escape(judgement.severity.capitalize())} costs unless '
        f"said otherwise. Data version {escape(evidence.data_version)}.</p>",
        _answer(judgement.verdicts),
        contents(sections),
        *(one.html() for one in sections),
    ]
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<style>{_STYLE}</style><title>btcai evaluation: {market}</title>'
    content = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{content}\n</body></html>\n'


def _answer(verdicts: Sequence[Verdict]) -> str:
    proven = [verdict.bucket for verdict in verdicts if verdict.edge == "proven"]
    if proven:
        text = f"<strong>Edge shown: {escape(', '.join(proven))}.</strong> Every other bucket stays on paper."
        return f'<div class="answer proven">{text}</div>'
    remedy = RECOMMENDED.removeprefix("recommended: ")
    return f'<div class="answer"><strong>No edge shown in any bucket.</strong> Recommended: {remedy}.</div>'
