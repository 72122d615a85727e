"""A market made of pieces of another: the same moves, no jump where they join, nothing of what lies between."""

from dataclasses import fields, replace

import numpy as np
import pytest

from btcai.config import SplitConfig
from btcai.data.store import to_grid
from btcai.errors import DataError
from btcai.features.pipeline import build_market
from btcai.schema import BAR_NS, Bars, MarketData, Span
from btcai.simulator.bars import simulate_bars
from btcai.simulator.events import Gap
from btcai.training.augmentation import WEEK
from btcai.training.pieces import market_of, train_and_valid

SPLITS = SplitConfig(train_frac=0.6, valid_frac=0.2, test_frac=0.1, test_folds=2, embargo_bars=10)
PIECES = (Span(100, 3 * WEEK + 50), Span(6 * WEEK - 7, 9 * WEEK - 1))
WEEKS = [*range(WEEK, 3 * WEEK), *range(6 * WEEK, 8 * WEEK)]


@pytest.fixture(scope="module")
def market() -> MarketData:
    return build_market(to_grid(simulate_bars(10 * WEEK, 4, events=[Gap(start_bar=7 * WEEK + 5, n_bars=30)])))


def test_it_moves_as_the_whole_weeks_of_its_pieces_did(market: MarketData) -> None:
    made = market_of(market, PIECES)
    assert len(made) == len(WEEKS)
    own = np.diff(np.log(market.mark))[np.array(WEEKS) - 1]
    np.testing.assert_allclose(np.diff(np.log(made.mark)), own[1:], atol=1e-9)
    np.testing.assert_array_equal(made.bars.present, market.bars.present[WEEKS])
    np.testing.assert_array_equal(made.bars.volume, market.bars.volume[WEEKS])
    assert made.bars.close[0] == pytest.approx(market.bars.close[WEEK])


def test_the_clock_goes_on_where_pieces_join_and_weekdays_agree(market: MarketData) -> None:
    made = market_of(market, PIECES)
    assert (np.diff(made.bars.close_ts_ns) == BAR_NS).all()
    week_ns = WEEK * BAR_NS
    np.testing.assert_array_equal(made.bars.close_ts_ns % week_ns, market.bars.close_ts_ns[WEEKS] % week_ns)


def test_nothing_outside_the_pieces_is_read(market: MarketData) -> None:
    inside = np.zeros(len(market), bool)
    inside[WEEKS] = True
    inside[[WEEK - 1, 6 * WEEK - 1]] = True  # the price before a piece's first move
    changed = {field.name: getattr(market.bars, field.name).copy() for field in fields(Bars)}
    for name in ("open", "high", "low", "close", "volume"):
        changed[name][~inside] *= 7.0
    mark = np.where(inside, market.mark, 7.0 * market.mark)
    other = replace(market, bars=Bars(**changed), mark=mark, features=7.0 * market.features)
    np.testing.assert_array_equal(market_of(other, PIECES).features, market_of(market, PIECES).features)


def test_pieces_shorter_than_a_week_are_left_out_and_too_little_is_an_error(market: MarketData) -> None:
    assert len(market_of(market, (*PIECES, Span(9 * WEEK + 1, 10 * WEEK - 1)))) == len(WEEKS)
    with pytest.raises(DataError, match="whole week"):
        market_of(market, (Span(5, WEEK),))


def test_train_and_valid_share_a_market_with_the_gap_between(market: MarketData) -> None:
    made = market_of(market, PIECES)
    found = train_and_valid(made, SPLITS, purge_bars=36)
    stop = round(len(made) * 0.75)
    assert (found.train, found.valid) == (Span(made.warmup_bars, stop), Span(stop + 46, len(made)))
    assert len(found.test) == len(found.sealed) == 0
    with pytest.raises(DataError, match="a fold must have"):
        train_and_valid(made, SPLITS, purge_bars=4000)
