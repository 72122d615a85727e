"""Whether training gained anything on the validation span: the stated test of convergence, and of a change kept.

Paired over parts of the span, one-sided: of the prediction loss over groups of stretches, and of the score that the
policy expects over blocks of time. Either may tell; at half the error rate each (Bonferroni).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_1samp

from btcai.agent.shards import shards
from btcai.agent.task import Task
from btcai.models.actor_critic import ActorCritic
from btcai.schema import FloatArray
from btcai.training.play import encode_validation, expected_scores
from btcai.training.pretraining import forecast_errors


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """What a network is worth on the validation span, part by part.

    forecast_error (G,) of groups of stretches; score (B,) of greedy play in blocks of time, on rewards without
    surprises.
    """

    forecast_error: FloatArray
    score: FloatArray


@dataclass(frozen=True, kw_only=True)
class Gain:
    """One standing over another: mean differences, better above 0, and how likely chance alone gives as much."""

    forecast: float
    forecast_p: float
    score: float
    score_p: float

    def is_significant(self, level: float) -> bool:
        """Whether one of the two is more than chance, at this level in (0, 1) for both together."""
        return min(self.forecast_p, self.score_p) < (1 - level) / 2


def surprises(model: ActorCritic, task: Task) -> list[FloatArray]:
    """What this network's forecast misses along each path of the validation span: see play.choose_hold_bias.

    Standings that are to be compared must share one network's.
    """
    with shards() as workers:
        return [path.surprise for path in encode_validation(model, task, workers)]


def standing(model: ActorCritic, task: Task, missed: list[FloatArray], surprise_control: float) -> Standing:
    """Of a trained network, whose threshold is in its policy; `missed` as surprises gives it."""
    with shards() as workers:
        errors = forecast_errors(model, task, workers)
        paths = encode_validation(model, task, workers)
        _, score = expected_scores(model, task, paths, missed, surprise_control)
    return Standing(forecast_error=errors, score=score)


def gain(before: Standing, after: Standing) -> Gain:
    """What `after` has over `before`."""
    fewer = before.forecast_error - after.forecast_error
    more = after.score - before.score
    return Gain(
        forecast=float(fewer.mean()), forecast_p=_chance(fewer), score=float(more.mean()), score_p=_chance(more)
    )


def _chance(differences: FloatArray) -> float:
    """How likely differences (n,) without a mean of their own have one as high as this."""
    if np.ptp(differences) == 0:
        return float(differences[0] <= 0)
    return float(ttest_1samp(differences, 0.0, alternative="greater").pvalue)
