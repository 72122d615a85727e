"""The reward of one decision as named terms that add up: reward = sum over TERMS of weight * term.

E0, E1 equity before and after the period of patch_bars bars; S0, S1 the start's equity, which scales with deposits and
withdrawals (so E / S does not see them); base = E0 when profits compound, else S0. Terms are fractions of base (goal:
of the goal), so weights compare.

net_profit  log((E1 / S1) / (E0 / S0)) when compounding, else E1 / S1 - E0 / S0; net of all costs already
cost        -(fees + spread + impact + funding paid in the period) / base
drawdown    -max(0, drawdown_frac after - drawdown_frac before)
win_rate    sum over lots closed in the period of cost_usdt / base * bounded_return: a lot's profit bounded at one sigma
            of a patch, so that many wins count more than one large one
bonus       the same of bonus_return: a lot's gain counts up to double as it nears the goal
goal        change of min(gain / goal_frac, 1), gain = E / S - 1
"""

import math

import numpy as np

from btcai.compiled import inlined
from btcai.market.rules import Rules
from btcai.schema import FloatArray

TERMS = ("net_profit", "cost", "drawdown", "win_rate", "bonus", "goal")
NET_PROFIT, COST, DRAWDOWN, WIN_RATE, BONUS, GOAL = range(len(TERMS))

_LEAST_RATIO = 1e-9  # keeps the log finite for an account that lost everything


@inlined
def net_profit(gain0: float, gain1: float, compound: bool) -> float:
    """Profit of the period after all costs, from equity / start's equity before and after."""
    return _log_ratio(gain1, gain0) if compound else gain1 - gain0


@inlined
def _log_ratio(after: float, before: float) -> float:
    """log(after / before); small changes without a call, as the series of 2 atanh(z), exact to the last digit."""
    z = (after - before) / (after + before)
    if abs(z) < 0.01:
        zz = z * z
        return 2.0 * z * (1.0 + zz * (1.0 / 3.0 + zz * (0.2 + zz * (1.0 / 7.0))))
    return math.log(max(after / before, _LEAST_RATIO))


@inlined
def bounded_return(net_return: float, sigma_patch: float) -> float:
    """net_return squeezed into +-sigma_patch: equal to it when small, one sigma of a patch at most."""
    return net_return * sigma_patch / math.sqrt(sigma_patch * sigma_patch + net_return * net_return)


@inlined
def bonus_return(net_return: float, goal_frac: float) -> float:
    """A gain times the share of the goal that it reached, 1 at most; 0 for a loss."""
    gain = max(net_return, 0.0)
    return gain * min(gain * (1.0 / goal_frac), 1.0)


@inlined
def goal_progress(gain: float, goal_frac: float) -> float:
    """Equity / start's equity, less 1, over the goal; 1 at most."""
    return min((gain - 1.0) * (1.0 / goal_frac), 1.0)


def return_weight(drawdown_frac: FloatArray, goal_progress: FloatArray, rules: Rules) -> FloatArray:
    """What the reward pays for a small return of an equity, as the account stands when it decides; arrays of any shape.

    net_profit and, below the goal, the goal pay every return; drawdown pays losses alone, which is half of returns that
    rise as often as they fall. The other terms pay when a lot closes, for what it did before. Profits that do not
    compound are paid as at the start's equity. Below the loss of a whole goal goal_progress stays at -1, so that the
    goal's part is too large there: its rewards keep some surprise, and no bias.
    """
    of_goal = np.where(goal_progress < 1.0, 1.0 / rules.goal_frac + goal_progress, 0.0)  # E / S over the goal
    paid: FloatArray = rules.w_net_profit + 0.5 * rules.w_drawdown * (1.0 - drawdown_frac) + rules.w_goal * of_goal
    return paid
