"""Dynamic horizons: the prediction loss leans to those that are forecast with skill, calm and stormy markets apart.

Skill is measured on the validation span, which chooses among weights anyway: a little of it gets into them.
"""

import numpy as np

from btcai.agent.task import Task
from btcai.schema import BoolArray, Float32Array, FloatArray, IntArray

CALM, STORMY = 0, 1


def is_stormy(task: Task, bars: IntArray) -> BoolArray:
    """Of each bar, any shape: whether its volatility is above the median of the training span."""
    sigma = task.bars.sigma
    return np.asarray(sigma[bars] > np.median(sigma[task.train.first : task.train.stop]))


def skill_of(
    said: Float32Array, target: Float32Array, known: BoolArray, stormy: BoolArray, *, overlap: FloatArray
) -> FloatArray:
    """Correlation of forecasts and outcomes (D, 1 + H) less its standard error, by regime: (2, 1 + H), 0 at least.

    stormy (D,). overlap (1 + H,): how many decisions share an outcome, so that so many times fewer are independent: of
    the longest horizon a short span has a handful, and a correlation of .4 there is chance.
    """
    skill = np.zeros((2, said.shape[1]))
    for regime in (CALM, STORMY):
        for h in range(said.shape[1]):
            rows = known[:, h] & (stormy == regime)
            x, y = said[rows, h].astype(np.float64), target[rows, h].astype(np.float64)
            if rows.sum() > 2 and x.std() > 0 and y.std() > 0:
                error = np.sqrt(overlap[h] / rows.sum())
                skill[regime, h] = max(0.0, np.corrcoef(x, y)[0, 1] - error)
    return skill


def leaning(skill: FloatArray, share: float) -> FloatArray:
    """What horizons count in each regime, (2, 1 + H), mean 1: `share` of it in proportion to skill above 0.

    Evenly where a regime has no skill at all.
    """
    positive = np.maximum(skill, 0.0)
    total = positive.sum(1, keepdims=True)
    even = np.ones_like(skill)
    by_skill = np.divide(positive * skill.shape[1], total, out=even.copy(), where=total > 0)
    return np.asarray((1 - share) * even + share * by_skill)
