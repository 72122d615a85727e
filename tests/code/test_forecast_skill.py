"""What forecasts are worth: scores by integration, the rival by what made the data, ratios by hand."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import make_market
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from btcai.calibration import StaticCalibration
from btcai.config import Config
from btcai.evaluation.crps import quantile_crps, student_t_crps
from btcai.evaluation.daily_scores import COLUMNS, Direction, daily_sums, percentiles, resampled_sums, skill
from btcai.evaluation.direction_skill import called, chance_hits, chance_of, directions, excess_hits
from btcai.evaluation.forecast_skill import (
    ForecastSkill,
    bucket_skills,
    corrected,
    skill_table,
)
from btcai.evaluation.reliability import sigma_of
from btcai.evaluation.resampling import block_length, drawn_days
from btcai.evaluation.statistics import UNKNOWN, Interval
from btcai.evaluation.volatility_forecast import (
    DEGREES,
    VolatilityForecast,
    ewma_volatility,
    fit_volatility_forecasts,
    likeliest_student_t,
)
from btcai.inference.bundle import Encoded
from btcai.params import load_config
from btcai.paths import PARAMS
from btcai.report.page_forecasts import worth
from btcai.report.skill_figures import coverage_figure, crps_figure
from btcai.schema import BAR_NS, BARS_PER_DAY, QUANTILE_LEVELS, FloatArray, MarketData, Span

LEVELS = np.asarray(QUANTILE_LEVELS)
NORMAL = stats.norm.ppf(LEVELS)
DAYS = 45
SPAN = Span(BARS_PER_DAY, (1 + DAYS) * BARS_PER_DAY)
NOTHING = StaticCalibration(offset=np.zeros((3, 7)), std_factor=np.ones(3), temperature=np.ones(3))


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(PARAMS)


@pytest.fixture(scope="module")
def market() -> MarketData:
    return make_market(SPAN.stop + 600, seed=5)


@pytest.fixture(scope="module")
def right(config: Config, market: MarketData) -> tuple[ForecastSkill, ...]:
    """Forecasts that are what made the market."""
    return _skills(config, market, 1.0)


# --- CRPS ---------------------------------------------------------------------------------------------------------


def _spliced(level: FloatArray, quantiles: FloatArray) -> FloatArray:
    """The quantile function that quantile_crps describes."""
    low = quantiles[0] + (quantiles[1] - quantiles[0]) * np.log(level / 0.05) / np.log(2.0)
    high = quantiles[-1] - (quantiles[-1] - quantiles[-2]) * np.log((1 - level) / 0.05) / np.log(2.0)
    inner = np.interp(level, LEVELS, quantiles)
    return np.where(level < 0.05, low, np.where(level > 0.95, high, inner))


@pytest.mark.parametrize("outcome", [-9.0, -1.5, 0.1, 2.0, 8.0])
def test_crps_of_quantiles_is_the_pinball_loss_integrated_over_all_levels(outcome: float) -> None:
    quantiles = np.array([-2.0, -1.1, -0.6, 0.2, 0.5, 1.4, 3.0])
    edges = 10.0 ** np.linspace(-12, np.log10(0.5), 200_001)
    level = np.concatenate([edges, 1.0 - edges[-2::-1]])
    said = _spliced(level, quantiles)
    numeric = np.trapezoid(2 * ((outcome <= said) - level) * (said - outcome), level)
    assert quantile_crps(np.array([outcome]), quantiles[None])[0] == pytest.approx(numeric, rel=1e-5)


@pytest.mark.parametrize("degrees", [2.5, 5.0, 30.0])
def test_crps_of_a_student_t_is_its_integral(degrees: float) -> None:
    outcome, scale = 1.3, 0.7
    below, _ = integrate.quad(lambda x: stats.t.cdf(x / scale, degrees) ** 2, -np.inf, outcome)
    above, _ = integrate.quad(lambda x: stats.t.sf(x / scale, degrees) ** 2, outcome, np.inf)
    found = student_t_crps(np.array([outcome]), np.array([scale]), degrees)
    assert found[0] == pytest.approx(below + above, rel=1e-7)


def test_quantiles_of_a_normal_cost_little_more_than_the_normal_itself() -> None:
    outcome = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    # of the standard normal: 1 / sqrt(pi) on average
    assert quantile_crps(outcome, np.tile(NORMAL, (4000, 1))).mean() == pytest.approx(np.pi**-0.5, rel=0.005)


@given(
    arrays(np.float64, 7, elements=st.floats(-5, 5)),
    st.floats(-8, 8),
    st.floats(-3, 3),
    st.floats(0.1, 10),
    st.booleans(),
)
def test_crps_is_never_negative_and_moves_with_the_unit(
    values: FloatArray, outcome: float, shift: float, factor: float, flip: bool
) -> None:
    quantiles, y = np.sort(values), np.array([outcome])
    found = quantile_crps(y, quantiles[None])[0]
    moved = quantile_crps(factor * (y + shift), factor * (quantiles + shift)[None])[0]
    assert found >= -1e-9
    assert moved == pytest.approx(factor * found, rel=1e-6, abs=1e-6)
    if flip:
        assert quantile_crps(-y, -quantiles[None, ::-1])[0] == pytest.approx(found, rel=1e-6, abs=1e-6)


# --- the rival ----------------------------------------------------------------------------------------------------


def test_ewma_by_hand_skips_what_is_missing() -> None:
    market = make_market(6, missing=(3,))
    mark = np.exp(np.array([0.0, 0.01, -0.01, -0.01, 0.04, 0.05]))
    found = ewma_volatility(replace(market, mark=mark), half_life_bars=1.0)
    # squares .0001, .0004, then two that do not count (a missing bar, the one after it), .0001; half of each stays
    assert np.isnan(found[0])
    assert found[1:] ** 2 == pytest.approx([1e-4, 2.5e-4, 2.5e-4, 2.5e-4, 1.75e-4])


def test_the_tails_and_the_scale_that_made_the_data_are_found() -> None:
    x = 0.5 * np.random.default_rng(2).standard_t(4, size=8000)
    scale, degrees = likeliest_student_t(x)
    assert degrees in (3.5, 4.0, 4.5)
    assert scale == pytest.approx(0.5, rel=0.05)
    best = min(stats.t.nnlf((nu, 0.0, stats.t.fit(x, f0=nu, floc=0.0)[2]), x) for nu in DEGREES)
    assert stats.t.nnlf((degrees, 0.0, scale), x) == pytest.approx(best, rel=1e-7)


def test_the_rival_is_fitted_on_the_training_span_alone(market: MarketData) -> None:
    train = Span(100, 9000)
    wild = replace(market, mark=np.where(np.arange(len(market)) < train.stop, market.mark, market.mark * 7.0))
    fitted = fit_volatility_forecasts(market, train, (36, 12, 12))
    assert list(fitted) == [12, 36]
    assert fitted == fit_volatility_forecasts(wild, train, (36, 12))
    assert all(one.degrees in DEGREES for one in fitted.values())


def test_the_rival_reads_no_bar_after_the_decision(market: MarketData) -> None:
    rival, bars = VolatilityForecast(horizon_bars=12, half_life_bars=48, scale=0.8, degrees=4.0), np.array([500, 700])
    later = replace(market, mark=np.where(np.arange(len(market)) > 700, 1.0, market.mark))
    assert rival.scales(later, bars).tolist() == rival.scales(market, bars).tolist()


# --- directions ---------------------------------------------------------------------------------------------------


def _sums(rises: list[float], rose: list[float], gross: list[float]) -> FloatArray:
    n = len(rises)
    direction = Direction(np.array(rises), np.array(rose), np.array(gross), sure=np.r_[1.0, np.zeros(n - 1)])
    crps = np.tile([1.0, 2.0, 1.5, 2.0], (n, 1))
    return daily_sums(np.arange(n), crps, direction).sum(axis=0)


def test_hits_and_break_even_cost_by_hand() -> None:
    nan = float("nan")
    # four calls: right, right, wrong, right; the fifth calls nothing, the fourth has no bar to fill on
    total = _sums([1, 0, 1, 0, nan], [1, 0, 0, 0, 1], [30.0, -10.0, -20.0, nan, 50.0])
    found = called(total, None)
    assert found.hits_frac == 0.75
    assert found.rises_frac == 0.5
    assert found.chance_frac == 0.5  # .5 x .25 + .5 x .75
    assert found.break_even_bps == pytest.approx((30 + 10 - 20) / 3 / 2)  # two sides pay a fee
    # longs 2 of 3: mean side 1/3, mean market 0: nothing of it is drift
    assert found.timing_bps == pytest.approx(found.break_even_bps)
    assert (found.sure_trades, found.sure_break_even_bps) == (1, 15.0)
    assert found.excess_interval == UNKNOWN
    assert np.isnan(found.p_value)


def test_a_forecast_that_always_says_up_has_no_skill_whatever_the_market_did() -> None:
    rng = np.random.default_rng(4)
    gross = rng.normal(30.0, 100.0, 600)
    direction = Direction(np.ones(600), (gross > 0).astype(float), gross, np.ones(600))
    sums = daily_sums(np.arange(600) // 6, np.ones((600, 4)), direction)
    found = called(sums.sum(axis=0), resampled_sums(sums, 12, seed=1, resamples=500))
    assert found.hits_frac == pytest.approx(found.chance_frac)
    assert np.isnan(found.p_value)
    assert found.break_even_interval.low > 0.0  # what the market gave
    assert found.timing_bps == pytest.approx(0.0, abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_calling_the_opposite_turns_the_excess_around(calls: list[tuple[bool, bool]]) -> None:
    rises, rose = (np.array(column, np.float64) for column in zip(*calls, strict=True))
    totals = [_sums(side.tolist(), rose.tolist(), [1.0] * len(rose)) for side in (rises, 1.0 - rises)]
    assert excess_hits(totals[0]) == pytest.approx(-excess_hits(totals[1]), abs=1e-12)
    assert 0.0 <= chance_hits(totals[0]) <= 1.0


def test_trades_fill_at_the_open_of_the_next_bar(market: MarketData) -> None:
    opens = np.arange(1.0, len(market) + 1.0)
    data = replace(market, bars=replace(market.bars, open=opens))
    bars = np.array([9, len(market) - 4])
    found = directions(data, bars, 3, np.array([0.1, -0.2]), np.ones(2))
    assert found.gross_bps[0] == pytest.approx(1e4 * (14 / 11 - 1))  # opens of bars 10 and 13
    assert np.isnan(found.gross_bps[1])  # bar after the last one
    assert found.rises.tolist() == [1.0, 0.0]
    assert found.sure.tolist() == [0.0, 0.0]  # held against fewer than a hundred


def test_a_direction_is_sure_beside_the_ones_before_it_alone(market: MarketData) -> None:
    n = 400
    bars, odds = np.arange(200, 200 + n), np.random.default_rng(5).random(n).round(2)
    found = directions(market, bars, 3, -odds, np.ones(n)).sure
    brute = [float(k >= 100 and odds[k] > np.quantile(odds[:k], 0.9)) for k in range(n)]
    assert found.tolist() == brute
    assert 0.05 < found[100:].mean() < 0.15


def _rejections(horizon_days: float, skill_share: float, n: int) -> float:
    """Share of n forecasts over 125 days, six a day, that are called skilled at 5 %."""
    rng, per_day, rejected = np.random.default_rng(11), 6, 0
    for number in range(n):
        ahead, rows = int(horizon_days * per_day), 125 * per_day
        steps = np.cumsum(rng.normal(size=rows + ahead))
        outcome = (steps[ahead:] - steps[:-ahead])[: rows - ahead]
        forecast = rng.normal(size=rows - ahead).cumsum()
        forecast = forecast - forecast.mean() + skill_share * forecast.std() * outcome
        up = (outcome > 0).astype(float)
        sums = daily_sums(
            np.arange(rows - ahead) // per_day,
            np.ones((rows - ahead, 4)) + rng.random((rows - ahead, 4)),
            Direction((forecast > 0).astype(float), up, outcome, up),
        )
        draws = resampled_sums(sums, round(horizon_days * BARS_PER_DAY), seed=number, resamples=500)
        rejected += called(sums.sum(axis=0), draws).p_value < 0.05
    return rejected / n


@pytest.mark.slow
def test_overlapping_outcomes_make_no_skill_of_chance_and_a_planted_one_is_found() -> None:
    # as if independent, slow forecasts of overlapping outcomes would be called skilled in one of four cases
    assert _rejections(1.0, 0.0, 40) <= 0.15
    assert _rejections(1.0, 1.0, 10) == 1.0


def test_an_undefined_figure_has_no_interval_and_no_chance() -> None:
    assert percentiles(np.array([np.nan, np.nan, 1.0])) == UNKNOWN
    assert np.isnan(chance_of(0.0, np.zeros(5)))
    assert resampled_sums(np.ones((19, len(COLUMNS))), 12, seed=1) is None


def test_days_are_drawn_in_blocks_three_times_as_long_as_outcomes_overlap() -> None:
    """Daily sums that remember nothing ask for 1 day; a horizon of 300 bars reaches into a second one: 6 days."""
    sums = np.random.default_rng(2).normal(size=(200, len(COLUMNS)))
    assert block_length(sums[:, [1, 3]]) < 3
    for horizon_bars, block_days in ((288, 3), (300, 6)):
        found = resampled_sums(sums, horizon_bars, seed=5, resamples=30)
        (days,) = drawn_days(200, block_days=block_days, seed=5, resamples=30)
        assert found == pytest.approx(sums[days].sum(axis=1))


# --- a whole bucket -----------------------------------------------------------------------------------------------


def _predicting(market: MarketData, bars: np.ndarray, horizons: tuple[int, ...], spread: float) -> Encoded:
    """Normal quantiles `spread` times as wide as the walk, and a mean that knows nothing."""
    scale = sigma_of(market, bars, np.asarray(horizons))
    mean = 0.1 * scale * np.random.default_rng(8).normal(size=(len(scale), 1))
    return Encoded(
        latent=np.zeros((len(bars), 1), np.float32),
        gates=np.zeros((len(bars), 3), np.float32),
        mean=mean.astype(np.float32),
        std=scale.astype(np.float32),
        quantiles=(spread * scale[..., None] * NORMAL).astype(np.float32),
        unfamiliarity=np.ones(len(bars), np.float32),
    )


def _skills(config: Config, market: MarketData, spread: float) -> tuple[ForecastSkill, ...]:
    bucket = config.buckets["short"]
    bars = np.arange(SPAN.first, SPAN.stop - 2, 2)
    rivals = {h: VolatilityForecast(horizon_bars=h, half_life_bars=288, scale=1.0, degrees=30.0) for h in (12, 72, 288)}
    encoded = _predicting(market, bars, bucket.horizons_bars, spread)
    return bucket_skills(encoded, bars, market, SPAN, bucket, NOTHING, rivals, "raw", seed=1)


def test_right_intervals_hold_their_share_and_wide_ones_lose(
    config: Config, market: MarketData, right: tuple[ForecastSkill, ...]
) -> None:
    (hour, *_, day), (wide, *_) = right, _skills(config, market, 2.0)
    assert hour.outcomes == len(range(SPAN.first, SPAN.stop - 12, 2))
    assert hour.apart == hour.outcomes // 6
    assert day.apart == (day.outcomes * 2) // 288 == 44
    assert 0.885 < hour.static.coverage_frac < 0.915
    assert hour.raw == hour.static  # nothing was offset
    assert wide.static.coverage_frac > 0.99
    assert 0.9 < wide.adaptive.coverage_frac < wide.static.coverage_frac  # it learned how wide is right
    assert wide.static.skill < -0.1 < hour.static.skill < 0.05
    assert wide.static.skill_interval.high < 0.0


def test_quarters_add_up_to_the_span(config: Config, market: MarketData) -> None:
    april = int(np.datetime64("2020-04-01", "D").astype(np.int64))
    start = (april - 15) * BARS_PER_DAY + 1
    stamps = (start + np.arange(len(market))) * BAR_NS
    moved = replace(market, bars=replace(market.bars, close_ts_ns=stamps))
    shortest, *_ = _skills(config, moved, 1.0)
    assert [quarter.name for quarter in shortest.quarters] == ["2020Q1", "2020Q2"]
    assert sum(quarter.outcomes for quarter in shortest.quarters) == shortest.outcomes
    held = sum(quarter.outcomes * quarter.coverage_frac[1] for quarter in shortest.quarters)
    assert held / shortest.outcomes == pytest.approx(shortest.static.coverage_frac)
    assert shortest.static.worst_quarter_frac == min(quarter.coverage_frac[1] for quarter in shortest.quarters)


def test_the_outcome_after_the_span_changes_nothing(
    config: Config, market: MarketData, right: tuple[ForecastSkill, ...]
) -> None:
    poisoned = replace(market, mark=np.where(np.arange(len(market)) >= SPAN.stop, 1e9, market.mark))
    opens = np.where(np.arange(len(market)) >= SPAN.stop, 1e9, market.bars.open)
    found = _skills(config, replace(poisoned, bars=replace(market.bars, open=opens)), 1.0)
    pd.testing.assert_frame_equal(skill_table(found), skill_table(right), check_exact=True)  # nan is nan there


def test_chances_are_corrected_over_all_horizons_that_have_one(right: tuple[ForecastSkill, ...]) -> None:
    chances = (0.02, float("nan"), 0.5)
    found = [replace(one, called=replace(one.called, p_value=p)) for one, p in zip(right, chances, strict=True)]
    assert [one.called.p_holm for one in corrected(found)] == pytest.approx([0.04, float("nan"), 0.5], nan_ok=True)


def test_the_table_has_a_row_a_span_and_one_a_quarter(right: tuple[ForecastSkill, ...]) -> None:
    table = skill_table(right)
    whole = table[table["quarter"] == "all"]
    assert whole["horizon_bars"].tolist() == [12, 72, 288]
    assert len(table) == 3 + sum(len(one.quarters) for one in right)
    assert whole["adaptive_skill_low"].iloc[0] == right[0].adaptive.skill_interval.low
    assert whole["called_break_even_bps"].iloc[0] == right[0].called.break_even_bps
    assert whole["rival_half_life_bars"].tolist() == [288, 288, 288]
    assert skill_table(()).empty


def test_the_page_and_its_pictures_show_every_horizon_and_colour_what_is_sure(
    right: tuple[ForecastSkill, ...],
) -> None:
    named = tuple(replace(one, span="validation", bucket="short") for one in right)
    first = replace(named[0], static=replace(named[0].static, coverage_frac=0.80, skill_interval=Interval(0.01, 0.02)))
    page = "".join(worth((first, *named[1:]), {}))
    assert page.count("<h3>On the validation span</h3>") == 1
    assert [page.count(f"<td>{horizon}</td>") for horizon in ("1 h", "6 h", "1 d")] == [2, 2, 2]
    assert '<td class="down">80.0 % (' in page
    assert re.search(r'<td class="up">[^<]*\(1.0 .. 2.0\) %</td>', page)
    assert worth((), {}) == []
    coverage, crps = coverage_figure(named, "coverage"), crps_figure(named, "CRPS")
    assert coverage is not None
    assert crps is not None
    assert [axes.get_title() for axes in coverage.axes] == ["short, 1 h", "short, 6 h", "short, 1 d"]
    assert [tick.get_text() for tick in crps.axes[0].get_yticklabels()] == ["short, 1 d", "short, 6 h", "short, 1 h"]
    assert {axes.get_ylim()[0] for axes in coverage.axes} == {70.0}
    far = replace(named[0], quarters=(replace(named[0].quarters[0], coverage_frac=(0.9, 0.62, 0.9)),))
    lowered = coverage_figure((far, *named[1:]), "coverage")
    assert lowered is not None
    assert {axes.get_ylim()[0] for axes in lowered.axes} == {60.0}
    assert 62.0 in [float(line.get_ydata()[0]) for line in lowered.axes[0].lines]
    assert coverage_figure((), "") is None
    assert crps_figure((), "") is None


def test_skill_is_one_less_the_ratio_of_the_scores() -> None:
    total = _sums([1.0], [1.0], [0.0])
    assert [float(skill(total, form)) for form in ("raw", "static", "adaptive")] == [0.5, 0.0, 0.25]
