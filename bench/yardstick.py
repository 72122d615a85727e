"""`btcai bench yardstick`: the known optimum of every market, its proof by simulation, and what baselines earn.

Optima are in bps a decision. Baselines are shares of the optimal policy's value on the same paths, with a 95 %
interval.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.line import Goal, Line
from bench.stopwatch import Stopwatch
from btcai.config import Config
from btcai.schema import BUCKETS
from btcai.yardstick.baselines import Baseline, always_long, cash, tuned_linear, tuned_moving_average
from btcai.yardstick.drift import LEVELS, DriftMarket
from btcai.yardstick.interaction import InteractionMarket
from btcai.yardstick.linear_search import searched_linear
from btcai.yardstick.paths import YardstickMarket
from btcai.yardstick.scoring import policy_value_bps, score, simulated_optimum
from btcai.yardstick.two_scale import TwoScaleMarket

AS_ANALYTIC = (Goal("ratio", ">=", 0.99), Goal("ratio", "<=", 1.01))
AS_STUDIED = {"easy": 4.665, "medium": 2.344, "hard": 1.427, "very_hard": 0.695}
"""Hidden optima of the levels as an earlier study had them, from the analytic variance of the filtered drift."""

NO_BETTER = (Goal("ratio", "<=", 1.0),)
NOTHING = (Goal("ratio", "<=", 0.01),)
NEXT_TO_NOTHING = (Goal("ratio", "<=", 0.02),)
"""Of the optimum, for what is tuned: at best as good; where only an interaction earns, nothing by least squares and
next to nothing by the best linear rule that a search finds."""

_TRAIN_SEED, _SCORE_SEED, _PROOF_SEED = 1_000, 2_000, 3_000
_SEARCH_SHARE = 4
"""The search goes over its training paths thousands of times, so they are this much shorter."""


@dataclass(frozen=True)
class Size:
    """Paths and decisions of each. `proof`: of the simulated optima, whose error is to be well below 1 %."""

    decisions: int = 100_000
    score_paths: int = 16
    train_paths: int = 8
    proof_paths: int = 256


def lines(stopwatch: Stopwatch, config: Config, root: Path, size: Size | None = None) -> Iterator[Line]:
    """Every market of the yardstick; nothing here is timed, so `stopwatch` is not used."""
    size = size or Size()
    patches = {bucket: config.buckets[bucket].patch_bars for bucket in BUCKETS}
    whole, by_bucket = markets(), bucket_markets(patches)
    with _progress() as progress:
        task = progress.add_task("", total=len(whole) + len(by_bucket))
        for name, market in whole.items():
            progress.update(task, description=name)
            yield from _optimum(name, market, size)
            yield from _baselines(name, market, _baseline_size(size, market))
            progress.advance(task)
        for name, market in by_bucket.items():
            progress.update(task, description=name)
            yield _proof(name, market, _proof_size(size, market))
            yield from _baselines(name, market, _baseline_size(size, market))
            progress.advance(task)


def markets() -> dict[str, YardstickMarket]:
    """Decisions bar by bar: every level shown and hidden, the two scales shown and hidden, the interaction."""
    found: dict[str, YardstickMarket] = {}
    for level, viewer in ((level, viewer) for level in LEVELS for viewer in ("shown", "hidden")):
        found[f"{level}, {viewer}"] = DriftMarket(level=LEVELS[level], shown=viewer == "shown")
    for viewer in ("shown", "hidden"):
        found[f"two scales, {viewer}"] = TwoScaleMarket(shown=viewer == "shown")
    return found | {"interaction": InteractionMarket()}


def bucket_markets(patches: dict[str, int]) -> dict[str, YardstickMarket]:
    """The same for buckets that decide every few bars: levels keep their optimum a decision, the two scales do not.

    Without the levels shown: at the decision clock a drift and its pay are those of deciding bar by bar, draw by draw.
    """
    found: dict[str, YardstickMarket] = {}
    for bucket, patch in patches.items():
        if patch > 1:
            for level in LEVELS:
                found[f"{level}, hidden, {bucket}"] = DriftMarket(level=LEVELS[level], shown=False, patch_bars=patch)
            for viewer in ("shown", "hidden"):
                market = TwoScaleMarket(shown=viewer == "shown", patch_bars=patch)
                found[f"two scales, {viewer}, {bucket}"] = market
            found[f"interaction, {bucket}"] = InteractionMarket(patch_bars=patch)
    return found


def _optimum(name: str, market: YardstickMarket, size: Size) -> Iterator[Line]:
    """Against the study where it had one; then against its own simulation."""
    level = name.removesuffix(", hidden")
    known = AS_STUDIED.get(level) if name.endswith("hidden") else None
    yield Line(
        name=f"{name}: optimum",
        value=market.optimum_bps,
        unit="bps a decision",
        reference="earlier study" if known else None,
        reference_value=known,
        goals=AS_ANALYTIC if known else (),
    )
    yield _proof(name, market, size)


def _proof(name: str, market: YardstickMarket, size: Size) -> Line:
    """The optimal policy played on paths beside the dynamic programme's value."""
    simulated = simulated_optimum(market, size.proof_paths, size.decisions, _PROOF_SEED)
    return Line(
        name=f"{name}: simulated optimum",
        value=simulated.value_bps,
        unit="bps a decision",
        reference="dynamic programming",
        reference_value=market.optimum_bps,
        goals=AS_ANALYTIC,
        more={"standard_error": simulated.error_bps, "paths": size.proof_paths, "decisions": size.decisions},
    )


def _baselines(name: str, market: YardstickMarket, size: Size) -> Iterator[Line]:
    """Tuned on training paths, scored on others; the search, the same for all buckets, for the first one only."""
    train = market.simulate(size.decisions, size.train_paths, _TRAIN_SEED)
    interaction = isinstance(market, InteractionMarket)
    tuned_goals = NOTHING if interaction else NO_BETTER
    baselines: dict[str, tuple[Baseline, tuple[Goal, ...]]] = {
        "cash": (cash, ()),
        "always long": (always_long, ()),
        "moving averages": (tuned_moving_average(train, market.cost_bps), tuned_goals),
        "linear regression": (tuned_linear(train, market.cost_bps), tuned_goals),
    }
    if interaction and market.patch_bars == 1:
        searched = market.simulate(size.decisions // _SEARCH_SHARE, size.train_paths, _TRAIN_SEED)
        baselines["linear rule by search"] = searched_linear(searched, market.cost_bps), NEXT_TO_NOTHING
    del train
    paths = market.simulate(size.decisions, size.score_paths, _SCORE_SEED)
    best = policy_value_bps(market.optimal_positions(paths), paths.expected, market.cost_bps)
    for label, (positions, goals) in baselines.items():
        earned = policy_value_bps(positions(paths), paths.expected, market.cost_bps)
        share = score(earned, best)
        yield Line(
            name=f"{name}: {label}",
            value=float(np.mean(earned)),
            unit="bps a decision",
            reference="optimal policy, same paths",
            reference_value=float(np.mean(best)),
            goals=goals,
            more={"low": share.low, "high": share.high, "paths": share.n_paths, "decisions": size.decisions},
        )


def _proof_size(size: Size, market: YardstickMarket) -> Size:
    """For a bucket: half the paths of a level, whose memory counts in decisions; of others, the bars a path had."""
    if isinstance(market, DriftMarket):
        return replace(size, proof_paths=size.proof_paths // 2)
    return replace(size, decisions=max(size.decisions // market.patch_bars, 1))


def _baseline_size(size: Size, market: YardstickMarket) -> Size:
    """Half the paths where a decision is of many bars or signals, and there fewer decisions where it has both."""
    if market.patch_bars == 1 and not isinstance(market, InteractionMarket):
        return size
    fewer = 1 if market.patch_bars == 1 or isinstance(market, DriftMarket) else 8
    halved = replace(size, score_paths=size.score_paths // 2, train_paths=size.train_paths // 2)
    return replace(halved, decisions=size.decisions // fewer)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
