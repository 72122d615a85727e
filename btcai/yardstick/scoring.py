"""What a policy earned, as a share of what the best one earned on the same paths.

Policies are paid the expected return that their positions held, not the realised one: over 100,000 decisions the
realised result of the best policy itself swings by 4 to 13 %.
"""

import math
from dataclasses import dataclass

import numpy as np

from btcai.schema import FloatArray
from btcai.yardstick.paths import YardstickMarket

_BARS_AT_ONCE = 500_000  # bounds memory


def policy_value_bps(positions: FloatArray, expected: FloatArray, cost_bps: float) -> FloatArray:
    """positions and expected returns (..., T) -> reward a decision (...): what was held less costs, from flat."""
    turnover = np.abs(np.diff(positions, axis=-1, prepend=0.0))
    return np.asarray((positions * expected).mean(-1) * 1e4 - cost_bps * turnover.mean(-1))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Share of the optimum, 1 = as good, with its 95 % interval over paths (nan for one path)."""

    ratio_of_sums: float
    low: float
    high: float
    n_paths: int


def score(agent_values: FloatArray, optimal_values: FloatArray) -> Score:
    """Values (n_paths,) of an agent and of the best policy on the same paths -> ratio of their sums.

    Interval: delta method for a ratio of means, Student's t with n_paths - 1 degrees of freedom.
    """
    agent, optimal = np.atleast_1d(agent_values), np.atleast_1d(optimal_values)
    n, ratio = len(agent), float(np.sum(agent) / np.sum(optimal))
    if n < 2:
        return Score(ratio_of_sums=ratio, low=math.nan, high=math.nan, n_paths=n)
    error = float(np.std(agent - ratio * optimal, ddof=1)) / math.sqrt(n) / abs(float(optimal.mean()))
    half = _student_t_975(n - 1) * error
    return Score(ratio_of_sums=ratio, low=ratio - half, high=ratio + half, n_paths=n)


def _student_t_975(dof: int) -> float:
    """The 97.5 % quantile of Student's t; exact for 1 and 2, else Abramowitz and Stegun 26.7.5, within 1 %."""
    if dof <= 2:
        return (12.706205, 4.302653)[dof - 1]
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / dof**power for power, term in enumerate(terms)))


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A mean over paths in bps a decision, and its standard error."""

    value_bps: float
    error_bps: float


def simulated_optimum(market: YardstickMarket, n_paths: int, n_decisions: int, seed: int) -> Simulated:
    """What the optimal policy earns on n_paths paths, a few at a time.

    Control variates (Glasserman 2004, section 4.1): the means of m, m^2 and |m| over a path, m its expected returns,
    are known exactly, since m is normal; a regression on what they missed by takes most of the luck out of a path.
    """
    sd = market.expected_sd_bps
    known = np.array([0.0, sd**2, sd * math.sqrt(2 / math.pi)])
    values, missed = [], []
    at_once = max(1, _BARS_AT_ONCE // (n_decisions * market.patch_bars))
    starts = range(0, n_paths, at_once)
    for start, stream in zip(starts, np.random.SeedSequence(seed).spawn(len(starts)), strict=True):
        chunk_seed = int(stream.generate_state(1, np.uint64)[0])
        paths = market.simulate(n_decisions, min(at_once, n_paths - start), chunk_seed)
        m = 1e4 * paths.expected
        values.append(policy_value_bps(market.optimal_positions(paths), paths.expected, market.cost_bps))
        missed.append(np.stack([m.mean(1), (m**2).mean(1), np.abs(m).mean(1)], 1) - known)
    value, design = np.concatenate(values), np.concatenate(missed)
    design = np.column_stack([np.ones(len(value)), design])
    fit = np.linalg.lstsq(design, value, rcond=None)[0]
    rest = value - design @ fit
    variance = float(rest @ rest) / (len(value) - design.shape[1]) * np.linalg.inv(design.T @ design)[0, 0]
    return Simulated(value_bps=float(fit[0]), error_bps=math.sqrt(variance))
