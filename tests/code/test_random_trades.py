"""Random rivals: as many times in the market, as long and as large, at other times."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import FakePolicy, make_market
from hypothesis import given
from hypothesis import strategies as st
from result_fakes import path_result

from btcai.evaluation.backtest import backtest
from btcai.evaluation.random_trades import course_of, random_targets
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.targets import run_targets
from btcai.market.rules import make_rules
from btcai.params import load_config
from btcai.schema import Span


def targets_of(result: BacktestResult, mark: np.ndarray, seed: int) -> np.ndarray:
    return random_targets(course_of(result, mark), np.random.default_rng(seed))


def episodes(share: np.ndarray) -> list[tuple[float, ...]]:
    """The shares held in each time in the market."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], share > 0, [False]))))
    return [tuple(share[begin:end].tolist()) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def followed(targets: np.ndarray) -> np.ndarray:
    """Shares of equity held (n,) by who follows targets: each is what is held from the next bar on."""
    held = np.zeros(len(targets))
    for k in range(1, len(targets)):
        held[k] = held[k - 1] if np.isnan(targets[k - 1]) else targets[k - 1]
    return held


@given(
    st.lists(st.tuples(st.sampled_from([0.25, 0.5, 1.0]), st.integers(1, 6), st.integers(1, 5)), max_size=8),
    st.integers(0, 10**6),
)
def test_times_in_the_market_keep_length_and_size_in_another_order(
    drawn: list[tuple[float, int, int]], seed: int
) -> None:
    parts = [np.concatenate((np.zeros(gap), np.full(length, size))) for size, length, gap in drawn]
    share = np.concatenate([*parts, np.zeros(3)])
    result = path_result(np.full(len(share), 100.0), position=share)
    held = followed(targets_of(result, np.full(len(share), 50.0), seed))
    assert Counter(episodes(held)) == Counter(episodes(share))


def test_the_course_inside_a_time_in_the_market_is_kept_and_only_its_trades_are_targets() -> None:
    # A second lot after two bars: 0.2, 0.2, then 0.4 for three bars at a steady price.
    share = np.array([0.0, 0.2, 0.2, 0.4, 0.4, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0])
    result = path_result(np.full(11, 100.0), position=share)
    targets = targets_of(result, np.full(11, 50.0), seed=1)
    decided = np.flatnonzero(np.isfinite(targets))
    assert targets[decided].tolist() == [0.2, 0.4, 0.0]
    assert np.diff(decided).tolist() == [2, 3]


def test_a_share_that_moves_with_the_price_alone_is_no_trade() -> None:
    # Half in bitcoin while the price doubles: two thirds. Nothing was traded in between.
    mark = np.array([50.0, 50.0, 100.0, 100.0])
    result = path_result(np.array([100.0, 100.0, 150.0, 150.0]), position=np.array([0.0, 0.5, 2 / 3, 0.0]))
    targets = targets_of(result, mark, seed=0)
    assert targets[np.isfinite(targets)].tolist() == [0.5, 0.0]


def test_every_time_is_as_likely() -> None:
    # Two bars held of five: they may begin after any of the three flat bars.
    share = np.array([0.0, 1.0, 1.0, 0.0, 0.0])
    result = path_result(np.full(5, 100.0), position=share)
    begins = Counter(int(np.nanargmax(targets_of(result, np.full(5, 50.0), seed))) for seed in range(1_500))
    assert set(begins) == {0, 1, 2}
    assert min(begins.values()) > 430  # expected 500, spread 18


@given(st.integers(0, 10**6), st.booleans())
def test_who_was_in_the_market_but_once_and_most_of_the_time_is_turned_around_the_span(seed: int, to_end: bool) -> None:
    # Three steps of size and one or three flat bars: what is held at each bar is what was held some bars before.
    share = np.array([0.0, 0.2, 0.2, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0] + [1.0] * to_end + [0.0, 0.0] * (not to_end))
    result = path_result(np.full(len(share), 100.0), position=share)
    held = followed(targets_of(result, np.full(len(share), 50.0), seed))
    assert any(np.array_equal(held[1:], np.roll(share, bars)[1:]) for bars in range(len(share)))


def test_every_turn_is_as_likely() -> None:
    share = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    result = path_result(np.full(5, 100.0), position=share)
    last = Counter(followed(targets_of(result, np.full(5, 50.0), seed))[4] for seed in range(1_500))
    assert set(last) == set(share.tolist())
    assert min(last.values()) > 240  # expected 300, spread 15


def test_shorts_are_left_out() -> None:
    result = path_result(np.full(6, 100.0), position=np.array([0.0, -0.5, -0.5, 0.0, 0.0, 0.0]))
    assert np.isnan(targets_of(result, np.full(6, 50.0), 1)).all()


@pytest.mark.slow
def test_a_random_rival_of_a_backtest_has_its_turnover_round_trips_and_exposure(root: Path) -> None:
    market, span, config = make_market(6_000, seed=2), Span(200, 6_000), load_config(root / "params.yaml")
    bucket = config.buckets["scalping"]
    rules = make_rules(bucket, config.market, config.risk)
    (result,) = backtest(FakePolicy(), market, span, bucket, [rules], config.sizing, 1e5)
    targets = targets_of(result, market.mark[span.first : span.stop], seed=7)
    rival = run_targets(targets, market, span, rules, 1e5, band_frac=0.0)
    lengths = [sorted(len(one) for one in episodes(each.position_frac)) for each in (result, rival)]
    assert len(lengths[0]) > 10
    assert lengths[0] == lengths[1]
    turnover, exposure = (
        [figure(each) for each in (result, rival)]
        for figure in (lambda one: one.traded_usdt / one.equity_usdt.mean(), lambda one: one.position_frac.mean())
    )
    assert turnover[1] == pytest.approx(turnover[0], rel=0.1)  # shares drift another way at other times
    assert exposure[1] == pytest.approx(exposure[0], rel=0.05)
    assert np.corrcoef(rival.position_frac, result.position_frac)[0, 1] < 0.5
