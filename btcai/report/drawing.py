"""Which pictures a report has: each a file, and inside the page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from btcai.data.frame import make_frame
from btcai.evaluation.metrics import win_rate
from btcai.pictures import png_bytes
from btcai.report import (
    figures,
    forecast_figures,
    learning_figures,
    market_figures,
    panels,
    reasoning_figures,
    skill_figures,
    slice_figures,
    trade_figures,
)
from btcai.report.evidence import Evidence
from btcai.report.formats import cost_text, percent
from btcai.schema import BAR_NS, MarketData, Span
from btcai.simulator.facts import LEAST_BARS, Fact, stylised_facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Picture:
    """PNG bytes, and in words what they show: under the picture, and for whoever cannot see it."""

    png: bytes
    caption: str


Drawn = Iterator[tuple[str, str, "Figure | None"]]
"""File name, caption, and the figure where there is anything to show."""


def draw(evidence: Evidence, daily: pd.DataFrame, tested_days: str) -> dict[str, Picture]:
    """The pictures by file name, those without anything to show left out.

    `daily` is evidence.daily(), tested_days the tested span in words.
    """
    severity, tested = evidence.judgement.severity, f"{evidence.market}, {tested_days}"
    costs = f"{severity} costs (a side: {cost_text(evidence.severities[severity])})"
    market = evidence.unsealed()
    parts = [_results(evidence, daily, tested, costs), _learning(evidence), _reasons(evidence, tested)]
    if market is not None:
        parts += [_trades(evidence, market, tested, costs), _beliefs(evidence, market, tested)]
        parts.append(_market(evidence, market))
    return {
        name: Picture(png=png_bytes(figure), caption=caption)
        for part in parts
        for name, caption, figure in part
        if figure is not None
    }


def _results(evidence: Evidence, daily: pd.DataFrame, tested: str, costs: str) -> Drawn:
    rows, where = evidence.judgement.judged_rows(), f"{tested}, {costs}"
    short = f"{tested}, {evidence.judgement.severity} costs"
    yield (
        "equity.png",
        "Equity of every strategy after costs, at each UTC day's last bar.",
        figures.equity_figure(daily, f"Equity: {where}"),
    )
    yield (
        "drawdown.png",
        "How far every strategy was below its own highest equity so far.",
        figures.drawdown_figure(daily, f"Drawdown: {where}"),
    )
    yield (
        "sharpe.png",
        "Sharpe ratio of every strategy; where a bar crosses 0 it may as well be luck.",
        figures.sharpe_figure(rows, f"Sharpe ratio: {where}"),
    )
    if rows and rows[0].fold_returns:
        yield (
            "figures/folds.png",
            "Net return of every strategy in every walk-forward fold: an edge shows in most of them.",
            market_figures.folds_figure(rows, fold_heads(evidence), f"Folds: {where}"),
        )

    if evidence.stress:
        yield (
            "figures/stress.png",
            "What each strategy earned in simulated markets that things happen to, and how strange they looked to it.",
            market_figures.stress_figure(evidence.stress, f"Stress scenarios: {costs}"),
        )
    for bucket, slices in evidence.slices.items():
        yield (
            f"figures/slices_{bucket}.png",
            f"What each part of the time added to {bucket}'s net return; over each bar the lots opened in it.",
            slice_figures.slices_figure(slices, f"Where {bucket} earned and lost: {short}"),
        )


def fold_heads(evidence: Evidence) -> list[str]:
    """What each fold is called: its number, and its first and last day where they are known."""
    names = [f"fold {number}" for number, _ in enumerate(evidence.judgement.rows[0].fold_returns, start=1)]
    if evidence.data is None or evidence.splits is None:
        return names
    stamps = evidence.data.bars.close_ts_ns
    return [f"{name}\n{days_of(fold, stamps)}" for name, fold in zip(names, evidence.splits.folds, strict=True)]


def days_of(span: Span, close_ts_ns: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> str:
    """2024-01-03 .. 2024-02-11, UTC days in which the span's first and last bar close."""
    ends = np.asarray(close_ts_ns)[[span.first, span.stop - 1]].astype("datetime64[ns]").astype("datetime64[D]")
    return " .. ".join(np.datetime_as_string(ends).tolist())


def _trades(evidence: Evidence, market: MarketData, tested: str, costs: str) -> Drawn:
    for bucket, result in evidence.judged().items():
        stop_frac = evidence.buckets[bucket].stop_loss_frac if bucket in evidence.buckets else 0.0
        count, won = len(result.trades), win_rate(result.trades["net_return"].to_numpy(np.float64))
        yield (
            f"figures/trades_{bucket}.png",
            f"Every closed lot of {bucket}: {count:,}, {percent(won, 0)} of them with a gain after costs.",
            trade_figures.trades_figure(result, market, stop_frac, f"Trades of {bucket}: {tested}, {costs}"),
        )
        yield (
            f"figures/trade_{bucket}.png",
            f"One lot of {bucket} at close range: the one of median return, neither the best nor the worst.",
            trade_figures.example_figure(result, market, stop_frac, f"One trade of {bucket}: {tested}"),
        )


def _beliefs(evidence: Evidence, market: MarketData, tested: str) -> Drawn:
    results = {name: result for name, result in evidence.judged().items() if name in evidence.buckets}
    yield (
        "figures/fans.png",
        "Forecasts at decisions evenly spread over the span, chosen by their place alone, beside what the price did.",
        forecast_figures.fan_figure(results, market, evidence.buckets, f"Forecast fans: {tested}"),
    )
    yield (
        "figures/coverage.png",
        "Share of outcomes inside the 90 % interval in every calendar quarter of the validation and the test span.",
        skill_figures.coverage_figure(evidence.skills, f"Coverage by quarter: {evidence.market}"),
    )
    yield (
        "figures/crps.png",
        "How much closer the predicted distributions are to the outcomes than volatility alone (CRPS).",
        skill_figures.crps_figure(evidence.skills, f"Beside an EWMA Student-t: {evidence.market}"),
    )
    if evidence.sizing is not None:
        title = f"Doubt and decisions: {tested}"
        yield (
            "figures/doubt.png",
            "How sure the forecasts were where each action was chosen. Uncertainty: predicted standard deviation over "
            "sigma x root of the shortest horizon; unfamiliarity: how unlike the training span the market is to the "
            "network, 1 being exceeded one time in a hundred. Beyond a limit no lot is opened.",
            forecast_figures.doubt_figure(results, market, evidence.buckets, evidence.sizing, title),
        )


def _reasons(evidence: Evidence, tested: str) -> Drawn:
    for bucket, found in evidence.reasoning.items():
        yield (
            f"figures/reasoning_{bucket}.png",
            f"What each component of {bucket}'s reasoning said over time, and what it was worth.",
            reasoning_figures.reasoning_figure(found, f"Reasoning of {bucket}: {tested}"),
        )


def _learning(evidence: Evidence) -> Drawn:
    market, measures = evidence.market, {name: rows for name, rows in evidence.measures.items() if len(rows)}
    calibration = panels.calibration_figure(evidence.forecasts, f"Reliability of the forecasts: {market}, test span")
    yield "calibration.png", "Share of outcomes below each predicted quantile, per bucket and horizon.", calibration
    training = panels.training_figure(evidence.curves, f"Training: {market}")
    yield "training.png", "Losses, validation score, entropy and KL of every bucket over its updates.", training
    if measures:
        yield (
            "figures/importance.png",
            "Features by three measures: what enters the network, what its forecasts lose without, what moves them.",
            learning_figures.importance_figure(measures, f"Feature importance: {market}"),
        )
    yield (
        "figures/transfer.png",
        "What each bucket's forecasts lost before training, from scratch and as handed over, and after it.",
        learning_figures.transfer_figure(evidence.trained, f"Hand-over from bucket to bucket: {market}"),
    )
    if len(evidence.ablation):
        yield (
            "figures/ablation.png",
            "What every choice is worth: settings changed one at a time, held against what is configured.",
            learning_figures.ablation_figure(evidence.ablation, "Ablation: gain over what is configured"),
        )


def _market(evidence: Evidence, market: MarketData) -> Drawn:
    assert evidence.splits is not None  # for there is a market
    yield (
        "figures/spans.png",
        "What was trained on, what chose, what is judged here, and what nobody has read.",
        market_figures.spans_figure(market, evidence.splits, f"Spans: {evidence.market}"),
    )
    if facts := facts_of(market):
        outside = [fact.name.replace("_", " ") for fact in facts if not fact.holds]
        held = f"{len(facts) - len(outside)} of {len(facts)} stylised facts lie in their bands"
        yield (
            "figures/facts.png",
            f"{held}{'; outside: ' + ', '.join(outside) if outside else ''}.",
            market_figures.facts_figure(market, facts, f"Stylised facts: {evidence.market}, up to the sealed span"),
        )


def facts_of(market: MarketData) -> tuple[Fact, ...]:
    """Stylised facts of the bars that are there; none where these are too few."""
    bars, there = market.bars, np.asarray(market.bars.present)
    if there.sum() < LEAST_BARS:
        return ()
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    values = np.column_stack([np.asarray(column, np.float64)[there] for column in columns])
    return stylised_facts(make_frame((np.asarray(bars.close_ts_ns)[there] - BAR_NS) // 1_000_000, values))
