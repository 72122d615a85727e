"""What each component finds, on markets and numbers worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from feature_bars import PRICES
from hypothesis import given
from hypothesis import strategies as st
from reasoning_fakes import EQUITY_USDT, bucket_of, decisions_of, market, straight, upside_down

from btcai.errors import ConfigError
from btcai.features.pipeline import build_market
from btcai.market.bars import bar_arrays
from btcai.market.execution import taker_price
from btcai.reasoning import levels, patterns
from btcai.reasoning.components import COMPONENTS, EQUAL_WEIGHTS, conviction, measured, reason_components, weight_row
from btcai.reasoning.records import Component
from btcai.reasoning.situation import normal_share, percentile, situation_of, together, windows_of
from btcai.schema import BUCKETS, TOKENS, FloatArray, IntArray, MarketData

K = len(COMPONENTS)


def found(data: MarketData, decisions: IntArray, name: str = "scalping") -> dict[str, Component]:
    bucket, rules = bucket_of(name)
    return {one.name: one for one in measured(situation_of(data, decisions, bucket, rules, EQUITY_USDT))}


def test_windows_grow_with_the_lookback() -> None:
    chosen = {name: tuple(windows_of(bucket_of(name)[0].lookback_bars)) for name in BUCKETS}
    assert chosen == {  # trend, fast, slow, band, flow
        "scalping": (72, 3, 12, 20, 12),
        "short": (288, 12, 36, 20, 72),
        "medium": (2016, 36, 288, 144, 72),
        "long": (2016, 72, 288, 144, 72),
    }


# Regime


def test_a_straight_rise_is_a_trend_and_a_straight_fall_its_opposite() -> None:
    # 1 bp a bar on 2 bp of noise: over 72 bars a drift of sqrt(72) / 2 = 4.2 standard errors
    last = np.array([2_999])
    up = found(build_market(straight(3_000, 1e-4, 2e-4)), last)["regime"]
    down = found(build_market(straight(3_000, -1e-4, 2e-4)), last)["regime"]
    assert up.facts["trending"].tolist() == [1.0]
    assert down.facts["trending"].tolist() == [-1.0]
    assert up.facts["drift_errors"][0] == pytest.approx(math.sqrt(72) / 2, abs=2.0)
    assert up.score[0] > 0.7
    assert down.score[0] < -0.7
    assert min(up.confidence[0], down.confidence[0]) > 0.8


def test_a_random_walk_drifts_as_far_as_chance_lets_it() -> None:
    data = build_market(straight(30_000, 0.0, 1e-3, seed=3))
    regime = found(data, np.arange(2_500, 30_000, 72))["regime"]
    errors = regime.facts["drift_errors"]  # 382 windows that do not overlap
    assert np.mean(np.abs(errors) > 1.96) == pytest.approx(0.05, abs=0.03)
    assert errors.std() == pytest.approx(1.0, abs=0.1)
    assert regime.confidence.mean() == pytest.approx(0.5, abs=0.08)  # a share of chance: uniform, or less in a storm


def test_a_storm_is_a_day_louder_than_its_week() -> None:
    quiet, loud = straight(2_800, 0.0, 1e-3), straight(288, 0.0, 3e-3, seed=1)
    level = quiet.close[-1] / 30_000
    prices = {name: np.concatenate((getattr(quiet, name), level * getattr(loud, name))) for name in PRICES}
    data = build_market(replace(straight(3_088, 0.0), **prices))
    regime = found(data, np.array([2_799, 3_087]))["regime"]
    assert regime.facts["stormy"].tolist() == [0.0, 1.0]
    # variance of the week: (1728 + 9 * 288) / 2016 = 2.14 of the quiet one, so 3 / 1.46 = 2.05
    assert regime.facts["storm_ratio"][1] == pytest.approx(2.05, abs=0.15)


# Support and resistance


def test_swings_are_extremes_of_both_sides_and_the_first_of_equals() -> None:
    high = np.array([1.0, 2.0, 5.0, 3.0, 2.0, 4.0, 4.0, 1.0, np.nan, 0.5])
    low = high - np.array([0.5, 0.5, 0.5, 0.5, 1.5, 0.5, 0.5, 0.9, 0.0, 0.1])
    rows, prices = levels.swings(high, low, 2)
    # tops: row 2 (5.0); row 5 is the first of two equal highs, 4.0; bottoms: row 4 (0.5), and row 7 (0.1) beside a gap
    assert rows.tolist() == [2, 4, 5, 7]
    assert prices.tolist() == [5.0, 0.5, 4.0, pytest.approx(0.1)]


def test_a_level_weighs_its_turns_against_its_distance() -> None:
    # sigma 1, price 0: below, two turns at -2.0 and -2.3 against one at -1.4; above, one at 3
    prices = np.array([-2.0, 3.0, -2.3, -1.4])
    out = levels._levels(prices, np.array([0]), np.array([4]), np.array([0.0]), np.array([1.0]))
    # -2.0: 2 turns within half a sigma / (1 + 2.0) = .67; -2.3: 2 / 3.3 = .61; -1.4: 1 / 2.4 = .42
    assert out[:, 0].tolist() == [-2.0, 2.0, 2.0, 3.0, 3.0, 1.0]
    none = levels._levels(prices, np.array([1]), np.array([2]), np.array([0.0]), np.array([1.0]))
    assert np.isnan(none[:3, 0]).all()
    assert none[3:, 0].tolist() == [3.0, 3.0, 1.0]


def plain_turns(values: FloatArray, first: int, stop: int, half: int) -> list[int]:
    """Rows first .. stop - 1 of values that are the first largest of the rows half before to half after."""
    rows = []
    for row in range(first, stop):
        window = values[row - half : row + half + 1]
        if not np.isnan(values[row]) and row - half + int(np.nanargmax(window)) == row:
            rows.append(row)
    return rows


@pytest.mark.parametrize("name", ["scalping", "medium"])
def test_levels_are_those_of_a_plain_search(name: str) -> None:
    data, (bucket, _) = market(7_000, 8, 0.05), bucket_of(name)
    decisions = decisions_of(data, bucket, 4_000)[::97]
    level, half = found(data, decisions, name)["support_resistance"], 6 * bucket.patch_bars
    for d, t in enumerate(decisions.tolist()):
        if not data.bars.present[t]:
            continue
        first, stop, unit = t - bucket.lookback_bars + 1, t - half + 1, data.sigma[t] * math.sqrt(bucket.patch_bars)
        turns = [math.log(data.bars.high[row]) for row in plain_turns(data.bars.high, first, stop, half)]
        turns += [math.log(data.bars.low[row]) for row in plain_turns(-data.bars.low, first, stop, half)]
        now = math.log(data.mark[t])
        for side, of_side in (("support", lambda way: way <= 0), ("resistance", lambda way: way > 0)):
            worth = {
                price: sum(abs(other - price) <= 0.5 * unit for other in turns) / (1 + abs(price - now) / unit)
                for price in turns
                if of_side(price - now)
            }
            expected = math.exp(max(worth, key=lambda price: worth[price])) if worth else math.nan
            assert level.facts[f"{side}_usdt"][d] == pytest.approx(expected, nan_ok=True), (side, t)


def test_a_zigzag_has_its_ends_as_levels() -> None:
    # 24 bars up by 1 % and down again: highs and lows come back to the same prices, at least 5 times in 144 bars
    steps = np.tile(np.r_[np.full(12, 1 / 12), np.full(12, -1 / 12)], 150) / 100
    close = 30_000 * np.exp(np.cumsum(steps))
    open_ = np.r_[30_000.0, close[:-1]]
    prices = {"open": open_, "close": close, "high": np.maximum(open_, close), "low": np.minimum(open_, close)}
    data = build_market(replace(straight(3_600, 0.0), **prices))
    level = found(data, np.array([3_594]))["support_resistance"]  # 6 bars before the end of a fall: half way
    assert level.facts["support_usdt"][0] == pytest.approx(30_000, rel=1e-3)
    assert level.facts["resistance_usdt"][0] == pytest.approx(30_000 * math.exp(0.01), rel=1e-3)
    assert level.facts["support_touches"][0] >= 5
    assert level.facts["resistance_touches"][0] >= 5


def test_a_market_upside_down_says_the_opposite() -> None:
    data = market(4_000, 6, 0.0)
    turned = build_market(upside_down(data.bars))
    decisions = decisions_of(data, bucket_of("scalping")[0], 2_500)
    for name in ("regime", "support_resistance", "entry", "exit"):
        one, other = found(data, decisions)[name], found(turned, decisions)[name]
        assert np.corrcoef(one.score, -other.score)[0, 1] > 0.99, (
            name
        )  # closes themselves are not symmetric: their logs
        assert np.abs(one.confidence - other.confidence).mean() < 0.02, name


# Patterns


def test_candles_of_a_patch_leave_out_what_is_missing() -> None:
    nan = np.nan
    open_, close = np.array([10.0, nan, 12.0, 11.0]), np.array([12.0, nan, 11.0, 13.0])
    high, low = np.array([12.5, nan, 14.0, 13.0]), np.array([9.0, nan, 11.0, 10.5])
    candles = patterns._candles(open_, high, low, close, np.array([2, 3, -1]), 3)
    assert candles[:, 0].tolist() == [10.0, 14.0, 9.0, 11.0]
    assert candles[:, 1].tolist() == [12.0, 14.0, 10.5, 13.0]
    assert np.isnan(candles[:, 2]).all()


@pytest.mark.parametrize(
    ("before", "candle", "expected"),
    [
        ((100.0, 98.0), (98.0, 101.0), 1.0),  # a fall of 2, covered by a rise of 3
        ((100.0, 98.0), (98.0, 99.9), 0.0),  # not covered
        ((100.0, 98.0), (98.5, 101.0), 0.0),  # opens inside
        ((98.0, 100.0), (100.0, 97.5), -1.0),
        ((98.0, 98.3), (98.3, 95.0), 0.0),  # the body before is less than half a sigma
        ((98.0, 100.0), (100.0, 103.0), 0.0),  # the same side
    ],
)
def test_engulfing_covers_the_body_before(
    before: tuple[float, float], candle: tuple[float, float], expected: float
) -> None:
    def shape(body: tuple[float, float]) -> np.ndarray:
        return np.array([[body[0]], [max(body) + 1], [min(body) - 1], [body[1]]])

    assert patterns._engulfing(shape(candle), shape(before), np.array([1.0])).tolist() == [expected]


@pytest.mark.parametrize(
    ("candle", "moved", "expected"),
    [
        ((100.0, 100.2, 96.0, 100.1), -1.5, 1.0),  # hammer: a wick of 4 under a body of .1, after a fall
        ((100.0, 100.2, 96.0, 100.1), 0.0, 0.0),  # after nothing
        ((100.0, 104.0, 99.9, 99.95), 1.5, -1.0),  # star after a rise
        ((100.0, 100.02, 99.6, 100.01), -1.5, 0.0),  # a small candle
        ((100.0, 102.0, 98.1, 101.0), -1.5, 0.0),  # a wick of 1.9 under a body of 1
    ],
)
def test_rejection_is_a_long_wick_against_a_move(
    candle: tuple[float, float, float, float], moved: float, expected: float
) -> None:
    shape = np.array(candle)[:, None]
    assert patterns._rejection(shape, np.array([1.0]), np.array([moved])).tolist() == [expected]


def test_a_new_low_on_less_of_a_fall_is_a_bullish_divergence() -> None:
    # 144 closes: straight down by 28 in 14 patches (RSI -1), back up, then a lower low reached by steps down and up
    path = np.full(TOKENS, 100.0)
    path[30:45] = np.linspace(100, 72, 15)
    path[45:110] = np.linspace(72, 100, 65)
    fall = np.where(np.arange(34) % 2 == 0, -4.0, 2.2)  # 17 times: -30.6 in all, RSI (2.2 - 4) / 6.2 = -.29
    path[110:] = 100 + np.cumsum(fall)
    path = path.repeat(2)  # two bars a patch
    last = np.array([2 * TOKENS - 1])
    assert path[-1] < 72 < path.min() + 5
    assert patterns._divergence(path, last, 2).tolist() == [1.0]
    assert patterns._divergence(10_000 / path, last, 2).tolist() == [-1.0]
    path[220:] = np.linspace(100, 68, 68)  # the new low as straight as the old one
    assert patterns._divergence(path, last, 2).tolist() == [0.0]
    assert patterns._divergence(path, last - 2, 2).tolist() == [0.0]  # one patch too few


def test_a_breakout_leaves_the_range_of_the_lookback() -> None:
    bars = straight(3_000, 0.0, 1e-3, seed=4)
    ceiling = bars.high[2_999 - 143 : 2_999].max()  # of the lookback before this bar
    for close, expected in ((ceiling * 0.9999, 0.0), (ceiling * 1.0001, 1.0)):
        bars.close[-1], bars.high[-1] = close, max(close, bars.open[-1])
        bars.low[-1] = min(close, bars.open[-1])
        assert found(build_market(bars), np.array([2_999]))["patterns"].facts["breakout"].tolist() == [expected]


# Volatility, liquidity


def test_percentile_counts_the_tokens_below_the_newest() -> None:
    values = np.arange(2 * TOKENS, dtype=np.float64)
    last = np.array([2 * TOKENS - 1])
    assert percentile(values, last, 2).tolist() == [1.0]
    assert percentile(-values, last, 2).tolist() == [0.0]
    assert percentile(np.ones(2 * TOKENS), last, 2).tolist() == [0.5]  # ties count half
    values[last[0] - 2 * np.arange(1, 44)] = np.nan  # 100 of 143 are known, 75 of them below
    values[last[0]] = values[last[0] - 2 * 143] + 2 * 75 - 1
    assert percentile(values, last, 2).tolist() == [0.75]


def test_expected_moves_grow_with_the_root_of_the_horizon() -> None:
    data = build_market(straight(3_000, 0.0, 2e-3))
    one = found(data, np.array([2_999]))["volatility"]
    assert one.facts["move_12_frac"][0] == pytest.approx(data.sigma[-1] * math.sqrt(12))
    assert one.facts["yearly_frac"][0] == pytest.approx(2e-3 * math.sqrt(365 * 288), rel=0.1)
    assert one.facts["hour_to_day"][0] == pytest.approx(1.0, abs=0.5)
    assert one.facts["day_to_week"][0] == pytest.approx(1.0, abs=0.1)
    assert one.facts["from_jumps"][0] < 0.15  # normal moves have no jumps
    assert one.confidence[0] > 0.85


def test_a_lot_costs_what_the_market_charges_for_it() -> None:
    data = build_market(straight(3_000, 0.0, 1e-3))
    bucket, rules = bucket_of("scalping")
    one = found(data, np.array([2_999]))["liquidity"]
    lot_btc = EQUITY_USDT / bucket.max_lots / data.mark[-1]  # 4,000 USDT; 50 BTC are traded in every bar
    bars = bar_arrays(data)
    bars.sigma_before[-1] = data.sigma[-1]  # of an order that fills in the bar after
    paid = taker_price(True, 1.0, lot_btc, bars, 2_999, rules._replace(tick_usdt=0.0)) - 1.0
    assert one.facts["cost_bps"][0] == pytest.approx(1e4 * (paid + rules.taker_fee_frac), rel=1e-12)
    assert one.facts["lot_usdt"].tolist() == [4_000.0]
    assert one.facts["filled_frac"].tolist() == [1.0]
    move = data.sigma[-1] * math.sqrt(3)
    assert one.confidence[0] == pytest.approx(move / (move + 2 * one.facts["cost_bps"][0] / 1e4))


def test_a_lot_larger_than_its_share_of_the_volume_is_doubted() -> None:
    data = build_market(straight(3_000, 0.0, 1e-3))
    bucket, rules = bucket_of("scalping")
    size = 25 * 50.0 * data.mark[-1]  # each lot is all 50 BTC of a bar, of which a tenth may be taken
    situation = situation_of(data, np.array([2_999]), bucket, rules, size)
    one = next(one for one in measured(situation) if one.name == "liquidity")
    assert one.facts["filled_frac"][0] == pytest.approx(0.1)


# Signals


def test_signals_that_contradict_take_from_each_other() -> None:
    one, other = np.array([0.5, 0.5, 0.5, 0.0, 0.9]), np.array([0.25, 0.0, -0.5, 0.0, 0.8])
    score, confidence = together(one, other)
    np.testing.assert_allclose(score, [0.75, 0.5, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(confidence, [0.5, 0.5, 0.0, 0.0, 0.9])


def test_a_dip_in_a_rise_is_an_entry_and_its_fall_from_the_high_an_exit() -> None:
    bars = straight(3_000, 2e-4, 1e-4)
    fall = np.r_[np.zeros(2_994), np.cumsum(np.full(6, -12e-4))]
    for name in ("open", "high", "low", "close"):
        getattr(bars, name)[:] *= np.exp(fall)
    signals = found(build_market(bars), np.array([2_993, 2_999]))
    assert signals["entry"].facts["trend"][1] > 0.7
    assert signals["entry"].facts["band_stds"][1] < -1.5
    assert signals["entry"].facts["pullback"][0] < 0.1 < 0.4 < signals["entry"].facts["pullback"][1]
    assert signals["exit"].facts["trail"][0] >= 0.0 > signals["exit"].facts["trail"][1]
    assert signals["exit"].score[1] < -0.2


# Together


def test_normal_share_is_that_of_the_tables() -> None:
    np.testing.assert_allclose(normal_share(np.array([0.0, 1.0, -1.96, 3.0])), [0.0, 0.6827, 0.95, 0.9973], atol=1e-4)


def test_conviction_is_a_weighted_mean_in_which_doubt_counts_as_nothing() -> None:
    scores = np.array([[1.0, -1.0, 0.5], [1.0, 1.0, 1.0]])
    confidence = np.array([[0.5, 0.25, 0.0], [1.0, 1.0, 1.0]])
    assert conviction(scores, confidence, np.ones(3)).tolist() == [pytest.approx(0.25 / 3), 1.0]
    # (3 * .5 - 1 * .25) / 4
    assert conviction(scores, confidence, np.array([3.0, 1.0, 0.0])).tolist() == [pytest.approx(0.3125), 1.0]


@given(
    scores=st.lists(st.floats(-1, 1), min_size=K, max_size=K),
    confidence=st.lists(st.floats(0, 1), min_size=K, max_size=K),
    weights=st.lists(st.floats(0.001, 100), min_size=K, max_size=K),
)
def test_conviction_stays_within_the_scores(scores: list[float], confidence: list[float], weights: list[float]) -> None:
    said = conviction(np.array([scores]), np.array([confidence]), np.array(weights))
    assert min(0.0, *scores) - 1e-12 <= said[0] <= max(0.0, *scores) + 1e-12


def test_weights_are_of_every_component_and_amounts() -> None:
    assert weight_row(EQUAL_WEIGHTS).tolist() == [1.0] * K
    assert weight_row({**EQUAL_WEIGHTS, "regime": 2.0}).tolist() == [2.0] + [1.0] * (K - 1)
    with pytest.raises(ConfigError, match="missing or unknown: gut_feeling"):
        weight_row({**EQUAL_WEIGHTS, "gut_feeling": 1.0})
    with pytest.raises(ConfigError, match="at least 0 and not all 0"):
        weight_row({**EQUAL_WEIGHTS, "exit": -1.0})
    with pytest.raises(ConfigError, match="at least 0 and not all 0"):
        weight_row(dict.fromkeys(COMPONENTS, 0.0))


def test_a_planted_rise_is_felt_by_the_components_together() -> None:
    up, down = (build_market(straight(6_000, drift, 3e-4)) for drift in (1e-4, -1e-4))
    for name in ("scalping", "short"):
        bucket, rules = bucket_of(name)
        decisions = decisions_of(up, bucket, 3_000)
        said = [
            conviction(*reason_components(data, decisions, bucket, rules, EQUITY_USDT)[1:], weight_row(EQUAL_WEIGHTS))
            for data in (up, down)
        ]
        assert said[0].mean() > 0.02
        assert said[1].mean() < -0.02
