"""A validation report as one page to read: no network, no script, light and dark."""

from collections.abc import Sequence
from html import escape

from btcai.data.validation import Offence, RuleResult, ValidationReport, failure_message

SHOWN_GAPS = 200

STYLE = """
:root { color-scheme: light dark; --line: #8885; --good: #16794a; --bad: #b3261e; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --good: #5bd397; --bad: #ff8a80; --warn: #f0c060; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.warn { color: var(--warn); }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


def render_html(report: ValidationReport) -> str:
    """The report as one self-contained page: the verdict, the warnings, every rule, the ledger of gaps."""
    passed = sum(result.success for result in report.expectations)
    tone, word = ("good", "passed") if report.success else ("bad", "failed")
    parts = [
        f'<h1 class="{tone}">Validation {word}</h1>',
        f"<p>{passed} of {len(report.expectations)} rules hold on {report.rows:,} bars, "
        f"{report.first or 'no time'} to {report.last or 'no time'}.</p>",
    ]
    if not report.success:
        parts.append(f"<p>{escape(failure_message(report))}</p>")
    parts += [f'<p class="warn">Warning: {escape(warning)}</p>' for warning in report.warnings]
    parts += [
        "<h2>Rules</h2>",
        '<p>The same, as Great Expectations renders it: <a href="data_docs/index.html">Data Docs</a>.</p>',
        _table(("Rule", "Column", "Verdict", "#Rows", "First rows that break it"), _rules(report)),
    ]
    parts += _gaps(report)
    if report.content_sha256:
        parts.append(f"<h2>Content</h2><p>SHA-256 of the values: <code>{report.content_sha256}</code></p>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Validation {word}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _rules(report: ValidationReport) -> list[tuple[str, ...]]:
    """Rows of the table, broken rules first."""
    return [_rule(result) for result in sorted(report.expectations, key=lambda result: result.success)]


def _rule(result: RuleResult) -> tuple[str, ...]:
    verdict = '<span class="good">holds</span>' if result.success else '<span class="bad">broken</span>'
    rows = "<br>".join(escape(_offence(offence)) for offence in result.offences) or escape(result.detail)
    return escape(result.name), escape(result.column), verdict, f"{result.unexpected_count:,}", rows


def _offence(offence: Offence) -> str:
    values = ", ".join(f"{name} {value}" for name, value in offence.values.items() if name != "open_time")
    return f"row {offence.row} at {offence.time}" + (f": {values}" if values else "")


def _gaps(report: ValidationReport) -> list[str]:
    if not report.gaps:
        return ["<h2>Gaps</h2>", "<p>None: every bar from the first to the last is there.</p>"]
    rows = [(gap.first_missing, gap.last_missing, f"{gap.bars:,}") for gap in report.gaps[:SHOWN_GAPS]]
    left = len(report.gaps) - len(rows)
    note = [f"<p>{left:,} more are in report.json.</p>"] if left else []
    return ["<h2>Gaps</h2>", _table(("First missing bar", "Last missing bar", "#Bars"), rows), *note]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A head and rows of HTML cells; a heading that begins with # is a column of numbers."""
    kinds = [' class="number"' if name.startswith("#") else "" for name in head]
    heading = "".join(f'<th{kind} scope="col">{name.lstrip("#")}</th>' for kind, name in zip(kinds, head, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{heading}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
