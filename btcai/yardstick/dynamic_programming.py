"""The best average reward of a position of 0 or 1 in a market that the position does not move.

Relative value iteration (Puterman 1994, section 8.5.5). With h(position, state) the relative values, only the worth of
being long, D = h(1, .) - h(0, .), matters: D = clip(Q, -cost, cost), Q(x) = expected return(x) + E[D(next x) | x]. So
buy where Q > cost, sell where Q < -cost, and hold between: the no-trade region of Garleanu and Pedersen (2013), whose
costs are quadratic, sharpened by costs in proportion. From flat, h(0, x) + g = E[h(0, next x)] + max(0, Q(x) - cost),
and its mean under the stationary law leaves the average reward g = E max(0, Q - cost).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from btcai.schema import FloatArray

_SWEEPS, _TOLERANCE = 20_000, 1e-7
_NODES, _NODES_SDS = 201, 6.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimum:
    """value_bps: best average reward a decision; worth_bps: Q on the grid of states that `axes` span."""

    value_bps: float
    worth_bps: FloatArray
    axes: tuple[FloatArray, ...]


def best_policy(
    expected_bps: FloatArray,
    expect: Callable[[FloatArray], FloatArray],
    density: FloatArray,
    axes: tuple[FloatArray, ...],
    cost_bps: float,
) -> Optimum:
    """expected_bps and stationary density (not normalised) on the grid; expect: D -> E[D(next state) | state].

    ArithmeticError when the iteration does not settle.
    """
    advantage = np.clip(expected_bps, -cost_bps, cost_bps)
    for _ in range(_SWEEPS):
        worth = expected_bps + expect(advantage)
        updated = np.clip(worth, -cost_bps, cost_bps)
        change = float(np.abs(updated - advantage).max())
        advantage = updated
        if change <= _TOLERANCE * cost_bps:
            break
    else:
        raise ArithmeticError(f"value iteration must settle within {_SWEEPS} sweeps, still moves by {change:.2g} bps")
    value = float((np.maximum(worth - cost_bps, 0.0) * density).sum() / density.sum())
    return Optimum(value_bps=value, worth_bps=worth, axes=axes)


def transition(grid: FloatArray, phi: float, innovation_sd: float) -> FloatArray:
    """(n, n) matrix: values on an even grid -> their expectation after x' = phi x + innovation_sd * normal.

    Even nodes, which unlike Gauss-Hermite's are close enough together for the kinks of D; linear between grid points.
    Linear weights alone spread by a sixth of the step squared on average, so that much is taken off the innovation's
    variance first.
    """
    n, step = len(grid), grid[1] - grid[0]
    nodes = np.linspace(-_NODES_SDS, _NODES_SDS, _NODES)
    weights = normal_density(nodes, 1.0)
    spread = math.sqrt(max(innovation_sd**2 - step**2 / 6, 0.0))
    place = np.clip((phi * grid[:, None] + spread * nodes - grid[0]) / step, 0.0, n - 1.0)
    left = np.minimum(place.astype(np.int64), n - 2)
    share = (weights / weights.sum()) * np.ones_like(place)
    matrix = np.zeros((n, n))
    rows = np.broadcast_to(np.arange(n)[:, None], left.shape)
    np.add.at(matrix, (rows, left), share * (left + 1 - place))
    np.add.at(matrix, (rows, left + 1), share * (place - left))
    return matrix


def normal_density(grid: FloatArray, sd: float) -> FloatArray:
    """Not normalised."""
    return np.asarray(np.exp(-0.5 * (grid / sd) ** 2))
