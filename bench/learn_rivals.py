"""Rivals in the bench: trained on the very path that ours is trained on with that seed, marked on the same paths."""

import importlib.util
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bench.learn_ours import Marking
from bench.learn_runs import SAME_NETWORK, SB3, Job, Outcome
from btcai.config import ModelConfig
from btcai.errors import ArtifactError
from btcai.schema import TOKENS, Float32Array, FloatArray
from btcai.training.yardstick import HORIZONS_PATCHES, MARKING, TRAINING, path_seed
from btcai.yardstick.baselines import tuned_linear
from btcai.yardstick.paths import Paths, YardstickMarket
from btcai.yardstick.scoring import Score, policy_value_bps, score
from btcai.yardstick.trading import yardstick_data

if TYPE_CHECKING:
    from stable_baselines3 import PPO

MLP_MARKS_S = (6.0, 19.0)
"""Seconds at which the MLP is marked on its way, as the earlier study did."""

NETWORK_EVERY_S = 30.0
"""Of training, between two marks of stable-baselines3 with our network."""

_CLIP = 10.0


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


def run_sb3(
    job: Job,
    market: YardstickMarket,
    marking: Marking,
    train_decisions: int,
    model: ModelConfig,
    enough: float = float("inf"),
) -> Outcome:
    """PPO as it comes on flat returns, or with our network on the windows that ours sees; until `enough` is reached."""
    if importlib.util.find_spec("stable_baselines3") is None:
        raise ArtifactError("stable-baselines3 must be installed to be measured; install it with: make setup")
    from bench.references import sb3_network, sb3_rival
    from bench.references.sb3_market import PositionEnvs, windows

    same = job.learner == SAME_NETWORK
    data, paths = yardstick_data(market, train_decisions, path_seed(job.seed, TRAINING))
    sigma = market.bar_sigma_bps / 1e4 * market.patch_bars**0.5

    def seen(path: Paths, features: Float32Array) -> Float32Array:
        flat = np.clip(path.returns[0] / sigma, -_CLIP, _CLIP).astype(np.float32)[:, None]
        return windows(features, market.patch_bars) if same else windows(flat, 1)

    def mark(rival: "PPO") -> float:
        marks.append(
            marked(
                lambda path, features: sb3_rival.positions_along(rival, seen(path, features)),
                market,
                marking.seeds(job.seed),
                marking.decisions,
            )
        )
        return marks[-1].ratio_of_sums

    marks: list[Score] = []
    following = np.append(paths.returns[0, TOKENS:], 0.0)
    envs = PositionEnvs(
        seen(paths, data.features),
        following,
        cost_frac=market.cost_bps / 1e4,
        unit=sigma,
        n_accounts=sb3_rival.ACCOUNTS,
        rng=np.random.default_rng(job.seed),
    )
    shape = (model, market.patch_bars, data.features.shape[1], len(HORIZONS_PATCHES))
    if same:
        rival = sb3_rival.new_rival(envs, job.seed, sb3_network.policy_kwargs(*shape), **sb3_rival.BRIEF)
    else:
        rival = sb3_rival.new_rival(envs, job.seed)
    curve, env_steps = sb3_rival.train(rival, _marks_s(job), mark, enough)
    return Outcome(
        score=curve[-1][1],
        mark_error=_error(marks[-1]),
        seconds_used=curve[-1][0],
        curve=tuple(curve),
        more={"env_steps": float(env_steps)},
    )


def _marks_s(job: Job) -> list[float]:
    """Seconds of training at which a rival is marked, the job's own last."""
    on_the_way = MLP_MARKS_S if job.learner == SB3 else np.arange(NETWORK_EVERY_S, job.seconds, NETWORK_EVERY_S)
    return [*(float(due) for due in on_the_way if due < job.seconds), job.seconds]


def _error(found: Score) -> float | None:
    error = found.high - found.ratio_of_sums
    return error if np.isfinite(error) else None
