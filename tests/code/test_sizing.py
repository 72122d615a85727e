"""Lot sizes from a forecast, by hand."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btcai.config import SizingConfig, SizingStrategy
from btcai.market.sizing import lot_sizes
from btcai.schema import BARS_PER_YEAR, FloatArray

SIGMA = 1.0 / sqrt(BARS_PER_YEAR)  # 100 % a year
STRATEGIES: tuple[SizingStrategy, ...] = ("confidence_adjusted", "uncertainty_adjusted", "full_probabilistic")


def sizes(
    strategy: SizingStrategy,
    mean: float,
    std: float,
    *,
    sigma: float = SIGMA,
    target: float = 0.5,
    unfamiliarity: float = 1.0,
) -> tuple[float, bool]:
    """One forecast over 4 bars, 5 lots; std in units of sigma * sqrt(4)."""
    config = SizingConfig(strategy=strategy, target_volatility=target, max_uncertainty=3.0, max_unfamiliarity=2.0)
    given = (np.array([value]) for value in (mean, std * sigma * 2, sigma, unfamiliarity))
    size, allowed = lot_sizes(*given, horizon_bars=4, max_lots=5, config=config)
    return float(size[0]), bool(allowed[0])


def test_uncertainty_adjusted_aims_at_the_target_volatility() -> None:
    assert sizes("uncertainty_adjusted", 0.0, 1.0) == (pytest.approx(0.5 / 5), True)  # half held, in five lots
    assert sizes("uncertainty_adjusted", 0.0, 2.0) == (pytest.approx(0.25 / 5), True)  # twice the volatility foreseen
    assert sizes("uncertainty_adjusted", 0.0, 0.5) == (pytest.approx(0.5 / 5), True)  # never below sigma


def test_confidence_adjusted_is_the_probability_of_a_gain() -> None:
    assert sizes("confidence_adjusted", 0.0, 1.0)[0] == pytest.approx(0.5 / 5 * 0.5)
    assert sizes("confidence_adjusted", SIGMA * 2, 1.0)[0] == pytest.approx(0.5 / 5 * 0.8413447, rel=1e-6)
    assert sizes("confidence_adjusted", -SIGMA * 2, 1.0)[0] == pytest.approx(0.5 / 5 * 0.1586553, rel=1e-6)


def test_full_probabilistic_is_half_kelly_up_to_the_target() -> None:
    std = SIGMA * 2
    quarter = 0.5 * std**2 - std**2 / 2  # Kelly 0.5, half of it 0.25
    assert sizes("full_probabilistic", quarter, 1.0)[0] == pytest.approx(0.25 / 5)
    assert sizes("full_probabilistic", 0.1, 1.0)[0] == pytest.approx(0.5 / 5)
    assert sizes("full_probabilistic", -0.1, 1.0)[0] == 0.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_lot_where_the_model_is_too_unsure(strategy: SizingStrategy) -> None:
    assert sizes(strategy, 0.0, 2.99)[1] is True
    assert sizes(strategy, 0.0, 3.01)[1] is False


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_lot_where_the_market_is_too_unlike_what_was_trained_on(strategy: SizingStrategy) -> None:
    assert sizes(strategy, 0.0, 1.0, unfamiliarity=1.99)[1] is True
    assert sizes(strategy, 0.0, 1.0, unfamiliarity=2.01)[1] is False
    assert sizes(strategy, 0.0, 1.0, unfamiliarity=np.nan)[1] is False


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("mean", "std", "sigma"),
    [(np.nan, 1.0, SIGMA), (0.0, np.nan, SIGMA), (0.0, np.inf, SIGMA), (0.0, 1.0, np.nan), (0.0, 0.0, SIGMA)],
)
def test_forecast_that_is_no_number_opens_nothing(
    strategy: SizingStrategy, mean: float, std: float, sigma: float
) -> None:
    assert sizes(strategy, mean, std, sigma=sigma) == (0.0, False)


@given(
    mean=st.floats(-1, 1),
    std=st.floats(1e-6, 10),
    sigma=st.floats(1e-5, 1),
    target=st.floats(0.01, 5),
    strategy=st.sampled_from(STRATEGIES),
)
def test_a_lot_is_never_more_than_its_share(
    mean: float, std: float, sigma: float, target: float, strategy: SizingStrategy
) -> None:
    size, _ = sizes(strategy, mean, std, sigma=sigma, target=target)
    assert 0.0 <= size <= 1 / 5


def test_decisions_are_sized_one_by_one() -> None:
    config = SizingConfig(
        strategy="confidence_adjusted", target_volatility=0.5, max_uncertainty=3.0, max_unfamiliarity=2.0
    )
    rng = np.random.default_rng(0)
    mean, std, sigma = rng.normal(0, 0.01, 9), rng.uniform(0.005, 0.02, 9), rng.uniform(0.001, 0.005, 9)
    unfamiliarity = rng.uniform(0, 3, 9)
    together = lot_sizes(mean, std, sigma, unfamiliarity, 12, 4, config)

    def one(values: FloatArray, i: int) -> FloatArray:
        return values[i : i + 1]

    for i in range(9):
        size, allowed = lot_sizes(*(one(values, i) for values in (mean, std, sigma, unfamiliarity)), 12, 4, config)
        assert (size[0], allowed[0]) == (together[0][i], together[1][i])
