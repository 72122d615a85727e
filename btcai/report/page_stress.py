"""The page's part on simulated markets that things happen to."""

from collections.abc import Mapping, Sequence

from btcai.evaluation.result import label
from btcai.evaluation.stress import DAYS, StressRow
from btcai.report.drawing import Picture
from btcai.report.evidence import Evidence
from btcai.report.formats import percent, ratio
from btcai.report.markup import Section, aside, cell, picture, row, section, table

_HEADS = ("scenario", "strategy", "net return", "max drawdown", "trades", "costs", "lots refused",
          "decisions unfamiliar", "unfamiliarity, .99 quantile")  # fmt: skip


def stress_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[Section]:
    """All strategies in all scenarios: a picture, and a table folded away."""
    return [section("Under stress", *_table(evidence.stress, picture(pictures.get("figures/stress.png"))))]


def _table(rows: Sequence[StressRow], shown: str) -> list[str]:
    if not rows:
        return []
    told = (
        f"{DAYS} simulated days each, the same chance with other events in it. Unfamiliar: further from the training "
        "span than one decision time in a hundred of the validation span."
    )
    body = [
        row(
            one.scenario.replace("_", " "),
            [
                cell(label(one.strategy)),
                cell(percent(one.net_return), one.net_return),
                cell(percent(one.max_drawdown_frac)),
                cell(f"{one.trades:,}"),
                cell(percent(one.cost_frac)),
                cell(percent(one.refused_frac, 0)),
                cell(percent(one.unfamiliar_frac)),
                cell(ratio(one.unfamiliarity)),
            ],
        )
        for one in rows
    ]
    return [aside(told), shown, f"<details><summary>Every figure</summary>{table(_HEADS, body)}</details>"]
