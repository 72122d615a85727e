"""The parts of `btcai bench learn`: which trainings each asks for, on which markets, and what it asks of them."""

from dataclasses import dataclass

from bench.learn_controls import LeakedMarket, ShuffledMarket
from bench.learn_runs import LINEAR, NO_PREDICTION, OURS, SAME_NETWORK, SB3, Job
from bench.yardstick import bucket_markets, markets
from btcai.yardstick.drift import LEVELS
from btcai.yardstick.paths import YardstickMarket

PARTS = (
    "rivals",
    "hidden",
    "long",
    "interaction",
    "shown",
    "buckets",
    "same_network",
    "controls",
    "curves",
    "collapse",
)
"""In the order in which they are run: rivals first, to stand beside what follows."""

LEAKED, SHUFFLED, INTERACTION = "leaked next return", "shuffled returns", "interaction"

LEVEL_GOALS = {"easy": 0.99, "medium": 0.99, "hard": 0.985, "very_hard": 0.95}
"""Share of the optimum with the drift hidden."""

_GOALS = {"interaction": 0.95, "shown": 0.98, "controls": 0.98}

FIRST_SEED = 100
"""Of training and of the paths to mark on: settings were chosen on seeds below it."""

_COLLAPSE_SEEDS, _CURVE_SEEDS = 4, 2
"""Seeds of the part `collapse` a seed of the others; seeds of the curves at most."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Of training."""

    hidden: float = 30.0
    long: float = 120.0
    shown: float = 10.0
    brief: float = 10.0
    """Of the part `collapse`."""
    rival: float = 58.0
    same_network_most: float = 240.0
    curve: tuple[float, ...] = (5.0, 10.0, 20.0)
    """Beside `hidden` and `long`, which are on the curves too."""


def named_markets(patches: dict[str, int]) -> dict[str, YardstickMarket]:
    """Those of the yardstick by the names that it gives them, and the controls."""
    return markets() | bucket_markets(patches) | {LEAKED: LeakedMarket(), SHUFFLED: ShuffledMarket()}


def jobs(part: str, seeds: int, seconds: Seconds, patches: dict[str, int]) -> list[Job]:
    """The trainings of a part; some are also another part's, and are done once."""
    hidden = [f"{level}, hidden" for level in LEVELS]
    slow = [f"{level}, hidden, {bucket}" for bucket, patch in patches.items() if patch > 1 for level in LEVELS]
    same = f"{_SAME_LEVEL}, hidden"
    curve = (*seconds.curve, seconds.hidden)
    asked: dict[str, list[tuple[str, str, float, int]]] = {  # market, learner, seconds, seeds
        "rivals": [
            (market, learner, its_seconds, seeds)
            for market in hidden
            for learner, its_seconds in ((SB3, seconds.rival), (LINEAR, 0.0), (NO_PREDICTION, seconds.hidden))
        ],
        "hidden": [(market, OURS, seconds.hidden, seeds) for market in hidden],
        "long": [(market, OURS, its, seeds) for market in hidden for its in (seconds.hidden, seconds.long)],
        "interaction": [(INTERACTION, OURS, seconds.hidden, seeds)],
        "shown": [(f"{level}, shown", OURS, seconds.shown, seeds) for level in LEVELS],
        "buckets": [(market, OURS, seconds.hidden, seeds) for market in slow],
        "same_network": [(same, OURS, its, 1) for its in curve] + [(same, SAME_NETWORK, seconds.same_network_most, 1)],
        "controls": [(market, OURS, seconds.hidden, seeds) for market in (LEAKED, SHUFFLED)],
        "curves": [(market, OURS, its, min(seeds, _CURVE_SEEDS)) for market in hidden for its in seconds.curve],
        "collapse": [(same, OURS, seconds.brief, _COLLAPSE_SEEDS * seeds)],
    }
    return [
        Job(part=part, market=market, learner=learner, seed=seed, seconds=its)
        for market, learner, its, n in asked[part]
        for seed in range(FIRST_SEED, FIRST_SEED + n)
    ]


_SAME_LEVEL = "medium"
"""Of the parts that look at one level only."""


def goal_of(part: str, market: str) -> float:
    """Least share of the optimum at the lower end of the interval over training seeds."""
    return _GOALS[part] if part in _GOALS else LEVEL_GOALS[market.partition(",")[0]]
