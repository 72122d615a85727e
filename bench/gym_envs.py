"""Our gymnasium environments beside other people's, all of them with their observations."""

from collections.abc import Iterator

import numpy as np

from bench.line import Line
from bench.peers import WINDOWED, Peers
from bench.stopwatch import Run, Stopwatch
from btcai.config import Config
from btcai.envs.scenario import Scenario
from btcai.envs.trading_env import TradingEnv
from btcai.envs.vector_env import TradingVectorEnv
from btcai.features.scaling import fit_scaler
from btcai.market.rules import make_rules
from btcai.schema import Action, MarketData, Span

EPISODE_DECISIONS = 2000
BUCKET = "scalping"


def lines(stopwatch: Stopwatch, data: MarketData, config: Config, peers: Peers, steps: int) -> Iterator[Line]:
    """One environment and two vector environments, `steps` env steps a repeat; reported, with no goal."""
    span = Span(data.warmup_bars, len(data))
    scenario = Scenario(
        data,
        span,
        make_rules(config.buckets[BUCKET], config.market, config.risk),
        fit_scaler(data.features, span),
        episode_decisions=EPISODE_DECISIONS,
    )
    observed = f"ours observes {scenario.lookback_bars} x {data.features.shape[1]} and the account"
    note = f"{observed}; {peers.note}" if peers.note else observed
    runs = {"TradingEnv": (_single(scenario, steps), "single")}
    runs |= {f"TradingVectorEnv({n})": (_vector(scenario, n, steps), f"SyncVectorEnv({n})") for n in (8, 64)}
    for name, (run, rival) in runs.items():
        (timing,) = stopwatch.time(run)
        reference, reference_value = peers.fastest(rival, WINDOWED)
        yield Line(
            name=f"{name}, {BUCKET}",
            value=timing.per_second,
            unit="env steps/s",
            reference=reference,
            reference_value=reference_value,
            note=note,
            more=timing.facts() | {"threads": 1, "reference_threads": 1, "reference_idle": peers.idle},
        )


def _single(scenario: Scenario, steps: int) -> Run:
    env = TradingEnv(scenario)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, len(Action), steps)

    def run() -> float:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return steps

    return run


def _vector(scenario: Scenario, n: int, steps: int) -> Run:
    envs = TradingVectorEnv(scenario, n)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, len(Action), (max(1, steps // n), n))

    def run() -> float:
        for row in actions:
            envs.step(row)
        return float(actions.size)

    return run
