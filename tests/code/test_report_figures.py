"""The report's figures: what is drawn where, by numbers worked by hand, and what is not drawn at all."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import make_market
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from report_fakes import (
    FOLDS,
    SPAN,
    ablation,
    baselines,
    earned,
    forecasting,
    judge,
    losing_buckets,
    market,
    noise,
    settings,
    splits,
    stressed,
    trading,
    trained_of,
    voices,
)

from btcai.config import SizingConfig
from btcai.evaluation.result import BacktestResult
from btcai.pictures import GREEN, RED, png_bytes
from btcai.report import (
    forecast_figures,
    learning_figures,
    market_figures,
    panels,
    reasoning_figures,
    slice_figures,
    trade_figures,
)
from btcai.report.candles import candles, length_for, span_between
from btcai.report.drawing import facts_of
from btcai.report.figures import drawdown_figure, equity_figure, sharpe_figure, styles_of
from btcai.schema import BAR_NS, Action, Bars, MarketData, Span

BUCKETS = settings().buckets


@pytest.fixture(scope="module")
def data() -> MarketData:
    return market()


@pytest.fixture(scope="module")
def few(data: MarketData) -> BacktestResult:
    """Five lots of `short`, long and short ones in turn."""
    return trading(earned(noise(1)), data, "short", 5, seed=8)


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def bars_of(opens: list[float], closes: list[float], present: list[bool], first_close_bar: int) -> Bars:
    """Highs and lows 1 USDT beyond opens and closes."""
    opened, closed = np.array(opens), np.array(closes)
    return Bars(
        close_ts_ns=(first_close_bar + np.arange(len(opens), dtype=np.int64)) * BAR_NS,
        open=opened,
        high=np.maximum(opened, closed) + 1,
        low=np.minimum(opened, closed) - 1,
        close=closed,
        volume=np.ones(len(opens)),
        present=np.array(present),
    )


def test_candles_end_on_the_clock_and_leave_missing_bars_out() -> None:
    """Bars that close at 0:10, 0:15, 0:20 and 0:25 as quarters of an hour: the first two, then the rest; the third is
    missing."""
    bars = bars_of([100, 101, 50, 103], [101, 102, 50, 99], [True, True, False, True], first_close_bar=2)
    found = candles(bars, Span(0, 4), 3)
    assert found.index.tolist() == [0, 1]
    assert found.loc[0].tolist() == [100, 103, 99, 102]
    assert found.loc[1].tolist() == [103, 104, 98, 99]


@pytest.mark.parametrize(
    ("n_bars", "expected"), [(1, 1), (240, 1), (241, 3), (52_416, 288), (69_120, 288), (10_000_000, 2016)]
)
def test_candles_are_as_short_as_a_picture_holds(n_bars: int, expected: int) -> None:
    assert length_for(n_bars) == expected


def test_a_stretch_around_a_trade_stays_inside_the_tested_span() -> None:
    stamps = np.arange(1, 101, dtype=np.int64) * BAR_NS
    assert span_between(stamps, Span(10, 50), 15 * BAR_NS, 20 * BAR_NS) == Span(14, 20)
    assert span_between(stamps, Span(10, 50), -5 * BAR_NS, 12 * BAR_NS) == Span(10, 12)
    assert span_between(stamps, Span(10, 50), 90 * BAR_NS, 99 * BAR_NS) == Span(49, 50)


def test_every_lot_is_marked_where_it_filled(data: MarketData, few: BacktestResult) -> None:
    figure = trade_figures.trades_figure(few, data, 0.05, "title")
    assert figure is not None
    filled = pd.concat([few.trades["entry_price"], few.trades["exit_price"]])
    points = [one.get_offsets() for one in figure.axes[0].collections if isinstance(one, PathCollection)]
    assert sorted(np.concatenate([np.asarray(one)[:, 1] for one in points])) == pytest.approx(sorted(filled))
    when = np.concatenate([np.asarray(one)[:, 0] for one in points])
    assert when.min() == pytest.approx(few.trades["entry_ts_ns"].min() / 86_400e9)
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_nothing_is_drawn_of_a_bucket_that_did_not_trade(data: MarketData) -> None:
    idle = earned(noise(1))
    assert trade_figures.trades_figure(idle, data, 0.05, "title") is None
    assert trade_figures.example_figure(idle, data, 0.05, "title") is None
    assert forecast_figures.fan_figure({"scalping": idle}, data, BUCKETS, "title") is None


def test_a_stop_lies_below_a_long_lots_entry_and_above_a_short_ones() -> None:
    trades = pd.DataFrame({"btc": [0.1, -0.1], "entry_price": [100.0, 200.0]})
    assert trade_figures.stop_levels(trades, 0.05).tolist() == pytest.approx([95.0, 210.0])


@pytest.mark.parametrize(("returns", "row"), [([0.3, -0.1, 0.0], 2), ([0.3, -0.1, 0.0, 0.1], 2), ([0.1, 0.1], 0)])
def test_the_example_is_the_trade_of_median_return(returns: list[float], row: int) -> None:
    assert trade_figures.median_trade(pd.DataFrame({"net_return": returns})) == row


def test_a_trade_in_words() -> None:
    trade = pd.Series(
        {"btc": -0.25, "entry_price": 40_000.4, "exit_price": 39_000.6, "net_return": 0.0228, "profit_usdt": 228.4}
    )
    assert trade_figures.told(trade, 42_000.0) == (
        "0.25 BTC sold short at 40,000, closed at 39,001: 2.28 % after costs, 228.40 USDT; stop at 42,000"
    )
    assert trade_figures.told(trade, float("nan")).endswith("228.40 USDT")


@pytest.mark.parametrize(("stop_loss_frac", "lines"), [(0.0001, 1), (0.5, 0), (0.0, 0)])
def test_a_stop_far_from_the_example_does_not_squeeze_its_candles(
    data: MarketData, few: BacktestResult, stop_loss_frac: float, lines: int
) -> None:
    figure = trade_figures.example_figure(few, data, stop_loss_frac, "title")
    assert figure is not None
    assert len(figure.axes[0].lines) == lines
    assert "after costs" in str(figure.get_suptitle())


def test_fans_are_spread_evenly_over_decisions_whose_outcomes_are_known(data: MarketData, few: BacktestResult) -> None:
    """300 of 450 decisions have an outcome 100 bars on: the middles of its thirds are shown."""
    decisions = SPAN.stop - 450 + np.arange(450) - 1
    result = replace(few, decisions=decisions)
    shown = forecast_figures.fanned_decisions(result, 150)
    assert shown.tolist() == [50, 150, 250]
    assert forecast_figures.fanned_decisions(replace(few, decisions=decisions[-2:]), 150).tolist() == [0, 1]


def test_outcomes_inside_and_outside_the_interval_are_marked_apart() -> None:
    """A price that stands still: inside quantiles around zero, outside those that only fall."""
    data = make_market(2000, warmup_bars=0)
    data = replace(data, mark=np.full(2000, 100.0))
    decisions = np.array([500, 800, 1100])
    encoded = forecasting(data, decisions, (3, 12, 36), seed=1)
    quantiles = np.tile(np.linspace(-0.02, 0.02, 7, dtype=np.float32), (3, 3, 1))
    quantiles[1] -= 0.05
    result = replace(
        earned(noise(1)), span=Span(100, 1900), decisions=decisions, encoded=replace(encoded, quantiles=quantiles)
    )
    figure = forecast_figures.fan_figure({"scalping": result}, data, BUCKETS, "title")
    assert figure is not None
    first, second, _ = figure.axes
    marks = [[line.get_marker() for line in axes.lines if line.get_marker() in ("o", "X")] for axes in (first, second)]
    assert marks == [["o"] * 3, ["X"] * 3]


def test_entries_are_refused_for_either_doubt(few: BacktestResult) -> None:
    """BUY five times: one unsure, one unfamiliar, one both. An unsure SELL is no entry that was refused."""
    assert few.encoded is not None
    actions = np.array([1, 1, 1, 1, 1, 2, 0])
    uncertainty = np.array([1.0, 4.0, 1.0, 4.0, 1.0, 4.0, 4.0])
    unfamiliarity = np.array([0.5, 0.5, 3.0, 3.0, 0.5, 0.5, 0.5], np.float32)
    result = replace(few, actions=actions, encoded=replace(few.encoded, unfamiliarity=unfamiliarity))
    sizing = SizingConfig(
        strategy="uncertainty_adjusted", target_volatility=0.5, max_uncertainty=3.0, max_unfamiliarity=2.0
    )
    assert forecast_figures.refused_entries(result, uncertainty, sizing) == (3, 5)


def test_uncertainty_is_in_sigmas_of_the_horizon(data: MarketData, few: BacktestResult) -> None:
    assert few.encoded is not None
    found = forecast_figures.uncertainty_of(few, data, 12)
    expected = few.encoded.std[:, 0] / (np.asarray(data.sigma)[few.decisions] * 12**0.5)
    assert found == pytest.approx(expected)


def test_doubt_by_action_adds_up_to_all_of_the_actions_decisions(data: MarketData, few: BacktestResult) -> None:
    sizing = settings().sizing
    figure = forecast_figures.doubt_figure({"short": few}, data, BUCKETS, sizing, "title")
    assert figure is not None
    stairs = [patch for patch in figure.axes[0].patches if hasattr(patch, "get_data")]
    assert len(stairs) == len(Action)
    assert [float(one.get_data().values.sum()) for one in stairs] == pytest.approx([100.0] * 4)  # type: ignore[attr-defined]
    uncertainty = forecast_figures.uncertainty_of(few, data, BUCKETS["short"].horizons_bars[0])
    refused, wanted = forecast_figures.refused_entries(few, uncertainty, sizing)
    assert words(figure.axes[0])[-1] == f"{refused:,} of {wanted:,}\nentries refused"
    assert 0 < refused < wanted


def test_share_of_the_way_by_hand_over() -> None:
    """From 2.0 to 1.6, and 1.8 before any training: half of it. Nothing where nothing was handed over or gained."""
    assert learning_figures.handed_frac(trained_of(1.8)) == pytest.approx(0.5)
    assert np.isnan(learning_figures.handed_frac(trained_of(None)))
    assert np.isnan(learning_figures.handed_frac({**trained_of(1.8), "valid_forecast_loss": 2.1}))


def test_transfer_says_what_was_trained() -> None:
    figure = learning_figures.transfer_figure({"scalping": trained_of(None), "short": trained_of()}, "title")
    assert figure is not None
    left, right = figure.axes
    assert words(left) == ["nothing handed over", "hand-over alone: 50 % of the way"]
    assert words(right) == ["2 rounds, converged"] * 2
    assert learning_figures.transfer_figure({"scalping": {"rounds": 1.0}}, "title") is None


def test_ablation_shows_the_largest_budget_over_all_buckets() -> None:
    figure = learning_figures.ablation_figure(ablation(), "title")
    assert figure is not None
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["from scratch", "kickstarted"]
    assert learning_figures.ablation_figure(ablation().iloc[1:2], "title") is None


def test_fold_returns_are_written_into_the_map() -> None:
    rows = judge({"scalping": losing_buckets()["scalping"]}, baselines(), FOLDS).judged_rows()
    figure = market_figures.folds_figure(rows, ["a", "b", "c", "d"], "title")
    (axes,) = figure.axes
    assert len(words(axes)) == 4 * len(rows)
    assert words(axes)[4] == "0.0 %"  # cash
    assert words(axes)[0] == f"{100 * rows[0].fold_returns[0]:.1f} %"


def test_returns_next_to_a_missing_bar_are_unknown(data: MarketData) -> None:
    unknown = np.flatnonzero(np.isnan(market_figures.bar_returns(data)))
    assert unknown.tolist() == [1499, 1500, 1501, 8999, 9000]


def test_facts_of_too_few_bars_are_not_told(data: MarketData) -> None:
    assert facts_of(data.until(20_000)) == ()
    facts = facts_of(data)
    figure = market_figures.facts_figure(data, facts, "title")
    assert len(words(figure.axes[2])) == len(facts) == 22


def test_spans_end_where_the_sealed_one_does(data: MarketData) -> None:
    whole = market_figures.spans_figure(data.until(splits().sealed.first), splits(), "title")
    (axes,) = whole.axes
    first = int(data.bars.close_ts_ns[0])
    last = (first + (splits().sealed.stop - 1) * BAR_NS) / 86_400e9
    assert axes.get_xlim()[1] == pytest.approx(last)
    assert max(np.asarray(axes.lines[0].get_xdata(), float)) < last - 10


def test_worth_is_coloured_where_its_interval_says_so() -> None:
    figure = reasoning_figures.reasoning_figure(voices(), "title")
    colours = [line.get_color() for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert colours[:2] == [GREEN, RED]
    assert colours[2] not in (GREEN, RED)


def test_a_strip_of_many_decisions_shows_means() -> None:
    values = np.arange(10, dtype=np.float64)[:, None] * np.array([1.0, 10.0])
    assert reasoning_figures.binned(values, 5).tolist() == [[0.5, 5], [2.5, 25], [4.5, 45], [6.5, 65], [8.5, 85]]
    assert reasoning_figures.binned(values, 10) is values


def test_voices_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"confidence must be of shape \(900, 3\), was \(2, 3\)"):
        replace(voices(), confidence=np.zeros((2, 3)))


def test_baselines_without_a_style_are_told_apart() -> None:
    names = ["scalping", "cash", *(f"rule_{k}" for k in range(9))]
    assert len(set(styles_of(names).values())) == len(names)
    frame = pd.DataFrame(1.01, index=pd.date_range("2024-01-01", periods=40), columns=names)
    assert len(equity_figure(frame, "title").axes[0].lines) == len(names) + 1  # and the line at 1


def test_of_many_baselines_the_best_is_named_and_the_others_are_pale() -> None:
    days = pd.date_range("2024-01-01", periods=30)
    names = ["scalping", "cash", *(f"rule_{k}" for k in range(9))]
    daily = pd.DataFrame({name: np.linspace(1.0, 1.0 + 0.01 * k, 30) for k, name in enumerate(names)}, index=days)
    for figure in (equity_figure(daily, "title"), drawdown_figure(daily, "title")):
        legend = figure.axes[0].get_legend()
        assert legend is not None
        told = [text.get_text().split(" ")[0] for text in legend.get_texts()]
        assert told == ["8", "scalping", "cash", "rule_8"]


def test_a_spike_goes_out_at_the_top_and_an_entropy_that_falls_does_not() -> None:
    rows = pd.DataFrame({"phase": "scalping: prediction", "update": range(300), "forecast_loss": 1.5, "entropy": 0.0})
    rows["forecast_loss"] += 0.01 * np.sin(np.arange(300))
    rows.loc[200, "forecast_loss"] = 40.0
    rows["entropy"] = np.linspace(1.0, 0.0, 300)
    loss, _, entropy, _ = panels.training_figure({"scalping": rows}, "title").axes
    assert loss.get_ylim()[1] < 1.6
    assert entropy.get_ylim()[1] >= 1.0


def test_each_slicing_has_a_panel_and_each_part_a_bar() -> None:
    names = ("slicing", "part", "net_contribution", "trades")
    rows = [("trend", "up", 0.03, 2), ("trend", "down", -0.01, 0), ("hour", "00", 0.02, 2)]
    figure = slice_figures.slices_figure(pd.DataFrame(rows, columns=list(names)), "title")
    trend, hour, empty = figure.axes
    assert [bar.get_height() for bar in trend.patches] == pytest.approx([3.0, -1.0])  # type: ignore[attr-defined]
    assert words(trend) == ["2", "0"]
    assert hour.get_title() == "by hour"
    assert not empty.axison


def test_a_baseline_that_lost_nearly_everything_leaves_the_picture() -> None:
    days = pd.date_range("2024-01-01", periods=30)
    daily = pd.DataFrame({"scalping": 1.02, "buy_and_hold": np.linspace(1.0, 0.9, 30)}, index=days)
    daily["reversal_1h"] = np.linspace(1.0, 0.1, 30)
    figure = equity_figure(daily, "title")
    (axes,) = figure.axes
    assert 0.7 < axes.get_ylim()[0] < 0.85
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "scalping 2.0 %",
        "buy and hold -10.0 %",
        "reversal 1 h -90.0 % (leaves below)",
    ]
    (below,) = drawdown_figure(daily, "title").axes
    assert below.get_ylim()[0] == pytest.approx(-1.03 * 12.5)


def test_a_sharpe_ratio_far_out_is_written_at_the_edge() -> None:
    rows = judge({"scalping": losing_buckets()["scalping"]}, baselines(), FOLDS).judged_rows()
    ruined = replace(rows[-1], strategy="reversal_1h", sharpe=-40.0, sharpe_low=-50.0, sharpe_high=-30.0)
    (axes,) = sharpe_figure([*rows, ruined], "title").axes
    assert axes.get_xlim()[0] > -20
    assert "further left: -40.00 (-50.00 .. -30.00)" in words(axes)


def test_stress_shows_returns_of_all_and_strangeness_to_networks() -> None:
    left, right = market_figures.stress_figure(stressed(), "title").axes
    assert words(left) == ["1.0 %"] * 5 + ["-19.0 %"] * 5
    assert words(right) == ["0.70"] * 4 + ["1.70"] * 4
    assert [text.get_text() for text in left.get_yticklabels()] == ["calm", "flash crash"]
    assert [text.get_text() for text in left.get_xticklabels()][-1] == "buy\nand\nhold"
