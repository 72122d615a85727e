"""Rivals in the bench: trained on the very path that ours is trained on with that seed, marked on the same paths.

Nothing here knows our learner: rivals' runs, which take hours, outlive its changes.
"""

import importlib.util
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.learn_runs import Job, Marking, Outcome
from btcai.errors import ArtifactError
from btcai.schema import TOKENS, Float32Array, FloatArray
from btcai.yardstick.baselines import tuned_linear
from btcai.yardstick.paths import MARKING, TRAINING, Paths, YardstickMarket, path_seed
from btcai.yardstick.scoring import Score, policy_value_bps, score
from btcai.yardstick.trading import yardstick_data

if TYPE_CHECKING:
    from stable_baselines3 import PPO

MLP_MARKS_S = (6.0, 19.0)
"""Seconds at which the MLP is marked on its way, as the earlier study did."""

_CLIP = 10.0

Seen = Callable[[Paths, Float32Array], Float32Array]
"""A path and its features -> (D, W): what is observed at each decision from the first with 144 patches behind it."""


def marked(
    positions: Callable[[Paths, Float32Array], FloatArray], market: YardstickMarket, seeds: range, n_decisions: int
) -> Score:
    """As `mark` does it: (path, its features) -> positions (D,) from the first decision with 144 patches behind it."""
    earned, best = [], []
    for seed in seeds:
        data, paths = yardstick_data(market, n_decisions, path_seed(seed, MARKING))
        held = slice(TOKENS - 1, None)
        expected = paths.expected[0, held]
        earned.append(policy_value_bps(positions(paths, data.features), expected, market.cost_bps))
        best.append(policy_value_bps(market.optimal_positions(paths)[0, held], expected, market.cost_bps))
    return score(np.array(earned), np.array(best))


def run_linear(job: Job, market: YardstickMarket, marking: Marking, train_decisions: int) -> Outcome:
    """Least squares and two thresholds, tuned on realised returns."""
    train = market.simulate(train_decisions, 1, path_seed(job.seed, TRAINING))
    simulated = time.perf_counter()
    rule = tuned_linear(train, market.cost_bps)
    seconds = time.perf_counter() - simulated
    found = marked(lambda paths, _: rule(paths)[0, TOKENS - 1 :], market, marking.seeds(job.seed), marking.decisions)
    return Outcome(score=found.ratio_of_sums, mark_error=_error(found), seconds_used=seconds)


def run_sb3(job: Job, market: YardstickMarket, marking: Marking, train_decisions: int) -> Outcome:
    """PPO as it comes, its MLP on flat windows of returns."""
    require_sb3()
    from bench.references.sb3_market import windows

    def seen(path: Paths, _: Float32Array) -> Float32Array:
        return windows(np.clip(path.returns[0] / _unit(market), -_CLIP, _CLIP).astype(np.float32)[:, None], 1)

    return run_ppo(job, market, marking, train_decisions, seen, MLP_MARKS_S)


def run_ppo(
    job: Job,
    market: YardstickMarket,
    marking: Marking,
    train_decisions: int,
    seen: Seen,
    marks_s: Iterable[float],
    **settings: Any,
) -> Outcome:
    """stable-baselines3's PPO with `settings` of its own, marked at marks_s (seconds of training) and at its end."""
    require_sb3()
    from bench.references import sb3_rival
    from bench.references.sb3_market import PositionEnvs

    def mark(rival: "PPO") -> float:
        def positions(path: Paths, features: Float32Array) -> FloatArray:
            return sb3_rival.positions_along(rival, seen(path, features))

        marks.append(marked(positions, market, marking.seeds(job.seed), marking.decisions))
        return marks[-1].ratio_of_sums

    marks: list[Score] = []
    data, paths = yardstick_data(market, train_decisions, path_seed(job.seed, TRAINING))
    envs = PositionEnvs(
        seen(paths, data.features),
        np.append(paths.returns[0, TOKENS:], 0.0),
        cost_frac=market.cost_bps / 1e4,
        unit=_unit(market),
        n_accounts=sb3_rival.ACCOUNTS,
        rng=np.random.default_rng(job.seed),
    )
    due = [*(float(on_the_way) for on_the_way in marks_s if on_the_way < job.seconds), job.seconds]
    curve, env_steps = sb3_rival.train(sb3_rival.new_rival(envs, job.seed, **settings), due, mark)
    return Outcome(
        score=curve[-1][1],
        mark_error=_error(marks[-1]),
        seconds_used=curve[-1][0],
        curve=tuple(curve),
        more={"env_steps": float(env_steps)},
    )


def require_sb3() -> None:
    """ArtifactError where stable-baselines3 is not installed."""
    if importlib.util.find_spec("stable_baselines3") is None:
        raise ArtifactError("stable-baselines3 must be installed to be measured; install it with: make setup")


def _unit(market: YardstickMarket) -> float:
    """Standard deviation of the noise from one decision to the next."""
    return market.bar_sigma_bps / 1e4 * math.sqrt(market.patch_bars)


def _error(found: Score) -> float | None:
    error = found.high - found.ratio_of_sums
    return error if np.isfinite(error) else None
