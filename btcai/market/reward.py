"""The reward of one decision as named terms that add up: reward = sum over TERMS of weight * term.

E0, E1 equity before and after the period of patch_bars bars; base = E0 when profits compound, else the start's equity.
Every term is a fraction of base (goal: of the goal), so weights compare.

net_profit  log(E1 / E0) when compounding, else (E1 - E0) / base; net of all costs already
cost        -(fees + spread + impact paid in the period) / base
drawdown    -max(0, drawdown_frac after - drawdown_frac before)
win         sum over lots closed in the period of cost_usdt / base * sigma_patch * tanh(net_return / sigma_patch):
            a lot's profit bounded at one sigma of a patch, so that many wins count more than one large one
goal        change of min(gain / goal_frac, 1), gain = equity / start equity - 1
"""

import math

from btcai.market.compiled import inlined

TERMS = ("net_profit", "cost", "drawdown", "win", "goal")
NET_PROFIT, COST, DRAWDOWN, WIN, GOAL = range(len(TERMS))

_LEAST_RATIO = 1e-9  # keeps the log finite for an account that lost everything


@inlined
def net_profit(equity0: float, equity1: float, base: float, compound: bool) -> float:
    """Profit of the period after all costs: log return when compounding, else a fraction of base."""
    if compound:
        return math.log(max(equity1 / equity0, _LEAST_RATIO))
    return (equity1 - equity0) / base


@inlined
def bounded_return(net_return: float, sigma_patch: float) -> float:
    """net_return squeezed into +-sigma_patch: equal to it when small, one sigma of a patch at most."""
    return sigma_patch * math.tanh(net_return / sigma_patch)


@inlined
def goal_progress(equity: float, start_equity: float, goal_frac: float) -> float:
    """Gain since the start / the goal, 1 at most."""
    return min((equity / start_equity - 1.0) / goal_frac, 1.0)
