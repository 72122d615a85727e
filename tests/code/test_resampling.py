"""Resampled days and the figures on them: against their own definitions, metrics.py and arch."""

import numpy as np
import pytest

from btcai.evaluation import metrics
from btcai.evaluation.resampling import METRICS, block_length, drawn_days, resampled_figures

DAYS = 365
RETURNS = np.random.default_rng(1).standard_t(4, (250, 3)) * 0.02 + 0.001


def drawn(days: int, block_days: float, resamples: int, seed: int = 7) -> np.ndarray:
    return np.concatenate(list(drawn_days(days, block_days=block_days, seed=seed, resamples=resamples)))


def by_metrics(returns: np.ndarray) -> list[float]:
    """METRICS of one strategy, as metrics.py has them."""
    equity = np.concatenate(([1.0], np.cumprod(1.0 + returns)))
    growth = metrics.cagr(equity, 1.0, len(returns) / DAYS)
    return [metrics.sharpe(returns, DAYS), growth, metrics.max_drawdown(equity).frac]


def turned(returns: list[float], periods_per_year: float = DAYS) -> list[dict[str, float]]:
    """METRICS of one endless block: the days in their order, from whichever day on."""
    columns = np.array(returns)[:, None]
    found = resampled_figures(columns, periods_per_year, block_days=1e9, seed=2, resamples=20)
    return [dict(zip(METRICS, one, strict=True)) for one in found[:, :, 0].tolist()]


def test_every_resample_has_the_figures_of_its_days() -> None:
    draws = resampled_figures(RETURNS, DAYS, block_days=5, seed=7, resamples=20)
    for days, of_days in zip(drawn(250, 5, 20), draws, strict=True):
        for column in range(3):
            assert of_days[:, column] == pytest.approx(by_metrics(RETURNS[days, column]))


def test_four_days_by_hand() -> None:
    """Half is lost in one day, and nothing before or after it, whichever day is the first."""
    spread = ((0.15**2 + 0.45**2 + 0.05**2 + 0.25**2) / 3) ** 0.5
    expected = {"sharpe": -0.05 / spread * 2, "cagr": 1.1 * 0.5 * 1.2 - 1, "max_drawdown_frac": 0.5}
    for found in turned([0.1, -0.5, 0.0, 0.2], 4):
        assert found == pytest.approx(expected)


def test_the_same_seed_draws_the_same_bits_and_another_others() -> None:
    first, again, other = (resampled_figures(RETURNS, DAYS, block_days=3, seed=s, resamples=1500) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_strategy_has_the_same_draws_alone_or_among_others() -> None:
    together = resampled_figures(RETURNS, DAYS, block_days=3, seed=1, resamples=50)
    alone = resampled_figures(RETURNS[:, 1:2], DAYS, block_days=3, seed=1, resamples=50)
    assert np.array_equal(together[:, :, 1:2], alone)


def test_blocks_go_on_day_by_day_for_as_long_as_asked_on_average() -> None:
    days = drawn(400, 8, 500)
    follows = days[:, 1:] == (days[:, :-1] + 1) % 400
    # A block ends with chance 1/8; a new one begins by chance on the day after, too.
    assert follows.mean() == pytest.approx(1 - 1 / 8 + 1 / 8 / 400, abs=0.005)
    counts = np.bincount(days.ravel(), minlength=400)
    assert counts.min() > 350  # 500 on average: no day is left out, the last ones neither
    assert drawn(400, 1, 3).shape == (3, 400)


def test_blocks_go_round_the_end() -> None:
    days = drawn(30, 1e9, 50)
    assert np.array_equal(np.sort(days, axis=1), np.tile(np.arange(30), (50, 1)))


@pytest.mark.parametrize("gain", [0.0, 0.01])
def test_without_risk_there_is_no_ratio_and_no_drawdown(gain: float) -> None:
    for found in turned([gain] * 30):
        assert (found["sharpe"], found["max_drawdown_frac"]) == (0.0, 0.0)
        assert found["cagr"] == pytest.approx((1 + gain) ** DAYS - 1)


def test_losing_everything_is_a_loss_of_everything() -> None:
    for found in turned([0.1, -1.0, 0.5]):
        assert (found["cagr"], found["max_drawdown_frac"]) == (-1.0, 1.0)


def test_block_length_follows_memory_and_ignores_cash() -> None:
    rng = np.random.default_rng(4)
    shocks = rng.normal(size=2000)
    slow = np.convolve(shocks, 0.9 ** np.arange(60))[:2000]
    assert block_length(np.stack([shocks, np.zeros(2000)], axis=1)) < 5
    assert block_length(slow[:, None]) > 20
    assert block_length(np.zeros((100, 2))) == 1


@pytest.mark.slow
def test_intervals_are_those_of_arch_within_the_error_of_drawing() -> None:
    from arch.bootstrap import StationaryBootstrap

    ours = resampled_figures(RETURNS[:, :1], DAYS, block_days=4, seed=3, resamples=4000)[:, :, 0]
    theirs = StationaryBootstrap(4, RETURNS[:, 0], seed=np.random.default_rng(9)).apply(
        lambda one: np.array(by_metrics(one)), 4000
    )
    for column, name in enumerate(METRICS):
        for level in (2.5, 50.0, 97.5):
            mine, other = (np.percentile(draws[:, column], level) for draws in (ours, theirs))
            # The error of a percentile of 4,000 draws, as 40 batches of 100 of them tell it, both sides, times 4.
            batches = np.percentile(theirs[:, column].reshape(40, 100), level, axis=1)
            assert abs(mine - other) < 4 * 2**0.5 * batches.std() / 40**0.5, (name, level)
