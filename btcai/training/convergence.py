"""Whether training gained anything on the validation span: the stated test of convergence, and of a change kept.

Paired over blocks of the span, one-sided: of the prediction loss, and of the score that the policy expects. Either may
tell, at half the error rate each (Bonferroni), where the other is not as surely worse. Blocks are at least twice as
long as a stretch with the outcomes that it is judged by, or they would tell the same thing several times: of a slow
bucket a short span has two, and almost nothing is significant.

A round's weights were chosen among a few on this very span, so the test errs on the side of one more round. That costs
time and no honesty: results are judged on another span.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_1samp

from btcai.agent.shards import shards
from btcai.agent.task import Task
from btcai.models.actor_critic import ActorCritic
from btcai.schema import FloatArray
from btcai.training.play import BLOCKS, encode_validation, expected_scores
from btcai.training.pretraining import HELD_OUT, forecast_errors


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """What a network is worth on the validation span, part by part.

    forecast_error, score (B,) in blocks of time: the prediction loss, and greedy play on rewards without surprises.
    """

    forecast_error: FloatArray
    score: FloatArray


@dataclass(frozen=True, kw_only=True)
class Gain:
    """One standing over another: mean differences, better above 0, and how likely chance alone gives as much.

    nan where nothing differs, as between two policies that stay flat: such a figure cannot tell, and does not count.
    """

    forecast: float
    forecast_p: float
    score: float
    score_p: float

    def is_significant(self, level: float) -> bool:
        """Whether one is better by more than chance, at this level in (0, 1) for both, and the other not worse so."""
        found = [p for p in (self.forecast_p, self.score_p) if not math.isnan(p)]
        alpha = (1 - level) / max(1, len(found))
        return bool(found) and min(found) < alpha and max(found) <= 1 - alpha


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
    n = n_blocks(task)
    means, sums = ([part.sum() for part in np.array_split(of, n)] for of in (errors / len(errors) * n, score))
    return Standing(forecast_error=np.array(means), score=np.array(sums))


def n_blocks(task: Task) -> int:
    """Of the validation span, 2 .. BLOCKS: each twice a judged stretch with its longest outcome, where it holds two."""
    stretch_bars = HELD_OUT * task.patch_bars + max(task.bucket.horizons_bars)
    return int(np.clip(len(task.valid) // (2 * stretch_bars), 2, BLOCKS))


def gain(before: Standing, after: Standing) -> Gain:
    """What `after` has over `before`."""
    fewer = before.forecast_error - after.forecast_error
    more = after.score - before.score
    return Gain(
        forecast=float(fewer.mean()), forecast_p=_chance(fewer), score=float(more.mean()), score_p=_chance(more)
    )


def _chance(differences: FloatArray) -> float:
    """How likely differences (n,) without a mean of their own have one as high as this; nan where nothing differs."""
    if not np.any(differences):
        return math.nan
    if np.ptp(differences) == 0:
        return float(differences[0] < 0)
    return float(ttest_1samp(differences, 0.0, alternative="greater").pvalue)
