"""stable-baselines3 with our network and our windows in the bench; its runs hang on the network, not on our learner."""

import numpy as np

from bench.learn_rivals import require_sb3, run_ppo
from bench.learn_runs import Job, Marking, Outcome
from btcai.config import ModelConfig
from btcai.schema import Float32Array
from btcai.yardstick.paths import Paths, YardstickMarket
from btcai.yardstick.trading import HORIZONS_PATCHES, yardstick_data

EVERY_S = 30.0
"""Of training, between two marks."""

_FEWER = 16
"""Times fewer decisions than the others are marked on, of the same paths: marked often, and slow to play."""


def run_same_network(
    job: Job, market: YardstickMarket, marking: Marking, train_decisions: int, model: ModelConfig
) -> Outcome:
    """PPO with our network on the windows that ours sees, to the end of its seconds, whatever it scores before."""
    require_sb3()
    from bench.references import sb3_network, sb3_rival
    from bench.references.sb3_market import windows

    def seen(_: Paths, features: Float32Array) -> Float32Array:
        return windows(features, market.patch_bars)

    n_features = len(yardstick_data(market, 2, 0)[0].feature_names)
    shape = (model, market.patch_bars, n_features, len(HORIZONS_PATCHES))
    fewer = Marking(paths=marking.paths, decisions=max(1000, marking.decisions // _FEWER))
    marks_s = np.arange(EVERY_S, job.seconds, EVERY_S)
    return run_ppo(
        job, market, fewer, train_decisions, seen, marks_s,
        policy_kwargs=sb3_network.policy_kwargs(*shape), **sb3_rival.BRIEF,
    )  # fmt: skip
