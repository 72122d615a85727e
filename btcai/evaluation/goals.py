"""How much of its own goal a bucket captured: a gain over a period, or per holding."""

import numpy as np

from btcai.evaluation.metrics import capture, expectancy, net_return
from btcai.evaluation.result import BacktestResult

GOAL_DAYS = {"scalping": 30.0, "short": 365.0}
"""The period of BucketConfig.goal_frac; a bucket that is not here has its goal for every holding."""


def captured_frac(bucket: str, goal_frac: float, result: BacktestResult) -> float:
    """Net return compounded to the goal's period / the goal, or mean net return of closed lots / the goal.

    1: the goal was reached, below 0: a loss; nan for too few days or closed lots.
    """
    if bucket in GOAL_DAYS:
        gain = net_return(result.equity_usdt, result.start_equity_usdt)
        return capture(gain, len(result.equity_usdt), goal_frac, GOAL_DAYS[bucket])
    return expectancy(result.trades["net_return"].to_numpy(np.float64)) / goal_frac
