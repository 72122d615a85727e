"""On a market of known answer: weights learn which component knows something, and learn nothing from those that do not.

The drift of the yardstick is shown to one component of six, through noise; the others wander as slowly as it does and
know nothing. Weights are adjusted at the end of each of successive windows, from that window alone.
"""

from functools import cache

import numpy as np
import pytest

from btcai.features.splits import Splits
from btcai.reasoning.adjustment import FLOOR, Adjustment, adjust
from btcai.reasoning.attribution import attribute
from btcai.schema import FloatArray, Span
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.loops import autoregression

NAMES = ("planted", "useless_1", "useless_2", "useless_3", "useless_4", "useless_5")
HORIZON, WINDOW, ROUNDS = 4, 8_000, 8
SPLITS = Splits(
    train=Span(0, 10), valid=Span(10, 20), test=Span(20, 30), folds=(Span(20, 30),), sealed=Span(10**6, 10**6 + 10)
)


def market(seed: int, knows: bool) -> tuple[FloatArray, FloatArray]:
    """votes (D, 6) in -1 .. 1 and the outcome (D,) over the next HORIZON bars in units of sigma * sqrt(horizon)."""
    bars = ROUNDS * WINDOW + HORIZON
    level = LEVELS["hard"]
    paths = DriftMarket(level=level, shown=True).simulate(bars, 1, seed)
    rng = np.random.default_rng((seed, 1))
    said = autoregression(rng.standard_normal((len(NAMES), bars)), level.phi)
    if knows:
        said[0] = paths.at_decisions("drift")[0] + rng.standard_normal(bars)  # as much noise as drift
    ahead = np.concatenate((paths.returns[0, 1:], [0.0]))
    outcome = np.convolve(ahead, np.ones(HORIZON), "full")[HORIZON - 1 :][: bars - HORIZON]
    return np.tanh(said.T[: bars - HORIZON]), outcome / (level.sigma_bps / 1e4 * np.sqrt(HORIZON))


def rounds(seed: int, knows: bool) -> list[Adjustment]:
    """The adjustments of successive windows, from equal weights."""
    votes, outcome = market(seed, knows)
    weights, made = dict.fromkeys(NAMES, 1.0 / len(NAMES)), []
    for first in range(0, ROUNDS * WINDOW, WINDOW):
        rows, span = slice(first, first + WINDOW - HORIZON), Span(first, first + WINDOW)
        found = attribute(
            votes[rows],
            outcome[rows],
            np.arange(rows.start, rows.stop),
            weights,
            horizon_bars=HORIZON,
            span=span,
            splits=SPLITS,
        )
        made.append(adjust(found, SPLITS, {"market": "yardstick"}))
        weights = made[-1].weights
    return made


@cache
def replications(knows: bool, n: int) -> list[list[Adjustment]]:
    return [rounds(seed, knows) for seed in range(n)]


def test_outcomes_are_the_returns_to_come() -> None:
    votes, outcome = market(3, True)
    paths = DriftMarket(level=LEVELS["hard"], shown=True).simulate(ROUNDS * WINDOW + HORIZON, 1, 3)
    by_hand = paths.returns[0, 101 : 101 + HORIZON].sum() / (LEVELS["hard"].sigma_bps / 1e4 * np.sqrt(HORIZON))
    assert outcome[100] == pytest.approx(by_hand)
    assert len(votes) == len(outcome)


@pytest.mark.slow
def test_a_planted_component_gains_the_weight_that_useless_ones_lose() -> None:
    final = np.array([[made[-1].weights[name] for name in NAMES] for made in replications(True, 20)])
    assert final[:, 0].min() > 0.5
    assert final[:, 1:].max() < 1 / 12  # half of what each began with
    assert np.median(final[:, 1:]) == pytest.approx(FLOOR)
    assert final.min() >= FLOOR * (1 - 1e-9)


@pytest.mark.slow
def test_weights_of_components_that_know_nothing_seldom_move() -> None:
    made = [one for replication in replications(False, 60) for one in replication]
    false_alarms = np.mean([len(one.moved) > 0 for one in made])
    assert false_alarms <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / len(made))
    final = np.array([[replication[-1].weights[name] for name in NAMES] for replication in replications(False, 60)])
    assert (final.max(axis=1) > 0.5).mean() == 0.0
    assert np.abs(final.mean(axis=0) - 1 / 6).max() < 0.03  # none is favoured
