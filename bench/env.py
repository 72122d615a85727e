"""`btcai bench env`: env steps a second of the market, beside a bare loop and other people's environments.

An env step is one account over one 5-minute bar. Accounts take random actions; none but the gymnasium environments
build observations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import gym_envs
from bench.line import Fact, Goal, Line
from bench.markets import trading_market
from bench.peers import PLAIN, Peers, measure_peers
from bench.references.bare_loop import AHEAD
from bench.stopwatch import Stopwatch
from bench.walk import HOARDING, UNIFORM, AccountWalk, BareWalk
from btcai.config import Config, Severity
from btcai.market.bars import BarArrays, bar_arrays
from btcai.market.rules import Rules, make_rules
from btcai.schema import BUCKETS

BARE_LOOP = "bare single-position loop"
UNIT = "env steps/s"
COSTS: Severity = "pessimistic"
GOALS = (Goal("value", ">=", 40e6), Goal("ratio", ">=", 0.5))
"""Of scalping on 2 threads, against the bare loop."""
PEER_GOALS = (Goal("ratio", ">=", 1000.0),)
"""Of the same, against gym-trading-env's fastest vectorised environment without windows."""

PEER_DIFFERENCES = (
    f"ours: 2 threads, no observations; theirs: 1 thread, a row of {PLAIN} a step; their speed without it is unknown"
)


@dataclass(frozen=True)
class Size:
    """How much one repeat does."""

    accounts: int = 4096
    bars: int = 4000
    """Each account walks a repeat."""
    gym_steps: int = 10_000


def lines(stopwatch: Stopwatch, config: Config, root: Path, size: Size | None = None) -> Iterator[Line]:
    """Scalping at pessimistic costs on 1 and 2 threads, what the goals ask of it, then the variants."""
    size = size or Size()
    market, data = trading_market()
    bars = bar_arrays(data)
    costs = config.market.severities[COSTS]
    rules = {bucket: make_rules(config.buckets[bucket], config.market, config.risk, costs) for bucket in BUCKETS}
    timer = _Timer(stopwatch, bars, size, {"bars": market, "costs": COSTS})
    yield timer.beside_bare_loop("scalping", rules["scalping"], 1)
    fast = timer.beside_bare_loop("scalping", rules["scalping"], 2, GOALS)
    yield fast
    peers = measure_peers(data, root, stopwatch.repeats)  # right after it: the same minute
    yield _beside_peers(fast, peers)
    yield timer.beside_bare_loop("scalping, beside a loop that fetches ahead too", rules["scalping"], 2, ahead=AHEAD)
    for bucket in BUCKETS[1:]:
        for threads in (1, 2):
            yield timer.beside_bare_loop(bucket, rules[bucket], threads)
    yield timer.beside_bare_loop("scalping, many lots open", rules["scalping"], 2, probabilities=HOARDING)
    yield timer.beside_bare_loop("scalping, everything on", everything_on(rules["scalping"]), 2)
    yield from gym_envs.lines(stopwatch, data, config, peers, size.gym_steps)


def everything_on(rules: Rules) -> Rules:
    """The same bucket as a perpetual swap with shorts, targets, latency, resting orders, fee tiers and transfers."""
    return rules._replace(
        perpetual=True,
        allow_short=True,
        maintenance_frac=0.05,
        missing_funding_frac=3e-4,
        take_profit_frac=0.01,
        latency_bars=1,
        maker_bars=2,
        tier_usdt=(1e5, 1e6, 5e6, 2e7),
        tier_maker_factor=(0.9, 0.8, 0.7, 0.6),
        tier_taker_factor=(0.95, 0.9, 0.85, 0.8),
        transfer_every_days=7,
        transfer_usdt=-500.0,
        transfer_daily_probability=0.05,
        transfer_max_frac=0.05,
        w_cost=0.1,
        w_drawdown=0.1,
        w_bonus=0.1,
        w_goal=0.1,
    )


@dataclass(frozen=True)
class _Timer:
    """Times walks on one market; `facts` end every line."""

    stopwatch: Stopwatch
    bars: BarArrays
    size: Size
    facts: dict[str, Fact]

    def beside_bare_loop(
        self,
        name: str,
        rules: Rules,
        threads: int,
        goals: tuple[Goal, ...] = (),
        probabilities: tuple[float, ...] = UNIFORM,
        ahead: int = 0,
    ) -> Line:
        """Env steps a second of the full execution model and, in turns with it, of the bare loop."""
        n, bars = self.size.accounts, self.size.bars
        walk = AccountWalk(self.bars, rules, n, -(-bars // rules.patch_bars), threads, probabilities)
        ours, bare = self.stopwatch.time(walk.run, BareWalk(self.bars, rules, n, bars, threads, ahead).run)
        return Line(
            name=f"{name}, {threads} thread{'s' if threads > 1 else ''}",
            value=ours.per_second,
            unit=UNIT,
            reference=f"{BARE_LOOP} that fetches ahead too" if ahead else BARE_LOOP,
            reference_value=bare.per_second,
            goals=goals,
            more=ours.facts()
            | {"threads": threads, "reference_threads": threads, "accounts": n, "mean_lots": walk.mean_lots}
            | self.facts,
        )


def _beside_peers(line: Line, peers: Peers) -> Line:
    """The same measurement against the fastest vectorised environment of others that builds no windows either."""
    reference, reference_value = peers.fastest("SyncVectorEnv", PLAIN)
    return Line(
        name=f"{line.name}, beside others",
        value=line.value,
        unit=UNIT,
        reference=reference,
        reference_value=reference_value,
        goals=PEER_GOALS,
        note=f"{PEER_DIFFERENCES}; {peers.note}" if peers.note else PEER_DIFFERENCES,
        more={**line.more, "reference_threads": 1, "reference_idle": peers.idle},
    )
