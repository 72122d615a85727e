"""Markets made of the training span: its moves in another order, at their own hour, and nothing after it is read."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from learning_tasks import settings

from btcai.config import AugmentConfig, SplitConfig
from btcai.data.store import to_grid
from btcai.errors import DataError
from btcai.features.pipeline import build_market
from btcai.features.splits import Splits, make_splits
from btcai.schema import Bars, MarketData, Span
from btcai.simulator.bars import simulate_bars
from btcai.simulator.events import Gap
from btcai.training.augmentation import WEEK, _order, augmented
from btcai.training.progressive import make_task

PLAIN = AugmentConfig(copies=1, block_days=0, balance_regimes=False, scale_sigma=0.0, jitter_sigmas=0.0)
BLOCKS = PLAIN.model_copy(update={"block_days": 2.0})
SPLITS = SplitConfig(train_frac=0.6, valid_frac=0.13, test_frac=0.15, test_folds=2, embargo_bars=0)


@pytest.fixture(scope="module")
def market() -> tuple[MarketData, Splits]:
    data = build_market(to_grid(simulate_bars(28_000, 4, events=[Gap(start_bar=7_000, n_bars=30)])))
    return data, make_splits(len(data), SPLITS, 36, data.warmup_bars)


def moves(bars: Bars) -> np.ndarray:
    """Log returns of closes between bars that are both there."""
    return np.diff(np.log(bars.close))


def test_without_copies_everything_is_as_it_was(market: tuple[MarketData, Splits]) -> None:
    data, splits = market
    assert settings().augment.copies == 0  # off unless it earns its place
    assert augmented(data, splits, settings().augment, 1) == (data, splits)


def test_the_market_itself_stays_to_the_bit_and_spans_move_with_it(market: tuple[MarketData, Splits]) -> None:
    data, splits = market
    made, moved = augmented(data, splits, BLOCKS.model_copy(update={"copies": 2}), 1)
    offset = 2 * (len(splits.train) // WEEK) * WEEK
    assert len(made) == len(data) + offset
    assert (np.diff(made.bars.close_ts_ns) == np.diff(data.bars.close_ts_ns[:2])).all()
    for name in (field.name for field in fields(Bars)):
        np.testing.assert_array_equal(getattr(made.bars, name)[offset:], getattr(data.bars, name))
    warm = data.warmup_bars
    np.testing.assert_array_equal(made.features[offset + warm :], data.features[warm:])
    np.testing.assert_array_equal(made.sigma[offset + warm :], data.sigma[warm:])
    assert (moved.valid.first, moved.valid.stop) == (splits.valid.first + offset, splits.valid.stop + offset)
    assert moved.folds[1].stop == splits.folds[1].stop + offset
    assert (moved.train.first, moved.train.stop) == (warm, splits.train.stop + offset)


def test_a_copy_in_its_own_order_moves_as_the_span_did_and_ends_where_the_market_opens(
    market: tuple[MarketData, Splits],
) -> None:
    data, splits = market
    made, _ = augmented(data, splits, PLAIN, 1)
    n = (len(splits.train) // WEEK) * WEEK
    rows = slice(splits.train.first, splits.train.first + n)
    np.testing.assert_allclose(moves(made.bars)[: n - 1], moves(data.bars)[rows][: n - 1], atol=1e-12)
    assert made.bars.close[n - 1] == pytest.approx(data.bars.open[0], rel=1e-12)
    np.testing.assert_array_equal(made.bars.volume[:n], data.bars.volume[rows])
    np.testing.assert_array_equal(made.bars.present[:n], data.bars.present[rows])
    ratio = np.log(data.bars.high[rows] / data.bars.low[rows])
    np.testing.assert_allclose(np.log(made.bars.high[:n] / made.bars.low[:n]), ratio, atol=1e-12)


def test_blocks_keep_their_place_in_the_week_and_their_neighbours(market: tuple[MarketData, Splits]) -> None:
    """Volume names its row: simulated volumes hardly ever repeat."""
    data, splits = market
    made, _ = augmented(data, splits, BLOCKS, 1)
    n = (len(splits.train) // WEEK) * WEEK
    span = np.arange(splits.train.first, splits.train.first + n)
    row_of = pd.Series(span, index=data.bars.volume[span]).groupby(level=0).first()
    there = made.bars.present[:n]
    rows = row_of.loc[made.bars.volume[:n][there]].to_numpy()
    times = made.bars.close_ts_ns[:n][there]
    week_ns = 7 * 86_400 * 10**9
    in_place = (data.bars.close_ts_ns[rows] - times) % week_ns == 0
    assert in_place.mean() > 0.99
    assert np.mean(rows == span[there]) < 0.9  # another order
    joints = np.mean(np.diff(rows) != 1)
    assert joints < 3 / (2.0 * 288)  # blocks of two days on average, few of which are followed by their own next


def test_calm_and_stormy_weeks_are_shown_as_often_where_regimes_are_balanced() -> None:
    """Of four weeks one is the stormy third: a quarter of the bars by chance, a third where regimes are balanced."""
    volatility = np.array([1.0, 1.1, 1.2, 9.0])
    stormy = {}
    for balanced in (False, True):
        config = BLOCKS.model_copy(update={"block_days": 0.005, "balance_regimes": balanced})
        weeks = _order(volatility, config, np.random.default_rng(3)) // WEEK
        stormy[balanced] = float(np.mean(weeks == 3))
    assert stormy[False] == pytest.approx(1 / 4, abs=0.03)
    assert stormy[True] == pytest.approx(1 / 3, abs=0.03)


def test_scale_and_noise_change_moves_by_as_much_as_they_say(market: tuple[MarketData, Splits]) -> None:
    data, splits = market
    n = (len(splits.train) // WEEK) * WEEK
    plain, _ = augmented(data, splits, BLOCKS, 1)
    scaled, _ = augmented(data, splits, BLOCKS.model_copy(update={"scale_sigma": 0.3}), 1)
    noisy, _ = augmented(data, splits, BLOCKS.model_copy(update={"jitter_sigmas": 0.5}), 1)
    was = moves(plain.bars)[: n - 1]
    ok = np.abs(was) > 1e-6
    ratio = np.log(moves(scaled.bars)[: n - 1][ok] / was[ok])
    blocks = np.unique(np.round(ratio[np.isfinite(ratio)], 6))
    assert 3 < len(blocks) < 60  # one scale a block
    assert 0.1 < blocks.std() < 0.6
    added = (moves(noisy.bars)[: n - 1] - was) / was[np.isfinite(was)].std()
    assert np.nanstd(added) == pytest.approx(0.5, rel=0.3)
    bars = noisy.bars
    there = bars.present
    assert (bars.high >= np.maximum(bars.open, bars.close))[there].all()
    assert (bars.low <= np.minimum(bars.open, bars.close))[there].all()


def test_nothing_after_the_training_span_is_read_and_the_seed_decides(market: tuple[MarketData, Splits]) -> None:
    data, splits = market
    after = slice(splits.train.stop, None)
    noise = np.random.default_rng(9)
    bars = replace(data.bars, **{field.name: getattr(data.bars, field.name).copy() for field in fields(Bars)})
    price = np.exp(np.cumsum(0.01 * noise.standard_normal(len(data) - splits.train.stop)))
    for name in ("open", "high", "low", "close"):
        getattr(bars, name)[after] *= price
    bars.volume[after] *= 7.0
    bars.present[after] &= noise.random(len(price)) < 0.9
    config = BLOCKS.model_copy(update={"scale_sigma": 0.2, "jitter_sigmas": 0.2})
    n = (len(splits.train) // WEEK) * WEEK
    one, other = augmented(data, splits, config, 1)[0], augmented(build_market(bars), splits, config, 1)[0]
    np.testing.assert_array_equal(one.features[:n], other.features[:n])
    again, another = augmented(data, splits, config, 1)[0], augmented(data, splits, config, 2)[0]
    np.testing.assert_array_equal(one.bars.close, again.bars.close)
    assert not np.array_equal(one.bars.close[:n], another.bars.close[:n])


def test_funding_goes_with_its_bars_and_a_task_can_be_made_of_it(market: tuple[MarketData, Splits]) -> None:
    data, splits = market
    rates = np.where(np.arange(len(data)) % 96 == 95, 1e-4, 0.0)
    made, moved = augmented(replace(data, funding=rates), splits, BLOCKS, 1)
    assert made.funding is not None
    due = np.flatnonzero(made.funding)
    assert (np.diff(due) == 96).all()  # settlements keep their clock
    task = make_task(made, moved, "scalping", settings())
    assert len(task.features) == len(made)


def test_a_training_span_of_less_than_a_week_is_refused(market: tuple[MarketData, Splits]) -> None:
    data, splits = market
    brief = replace(splits, train=Span(splits.train.first, splits.train.first + 2_000))
    with pytest.raises(
        DataError, match=r"needs a whole week of bars to train on, was 2,000 bars; .* set augment.copies to 0"
    ):
        augmented(data, brief, BLOCKS, 1)
