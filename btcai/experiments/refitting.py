"""Agents trained anew on every fold and judged on bars that they never saw: walked forward, or in all combinations.

What the stage `evaluate` judges is one training and one span of time. Here the same settings are trained again and
again, each time on other bars. The test span is among what is judged, so every plan is a line in the ledger of trials.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from btcai import usage
from btcai.config import Config
from btcai.cross_validation import Fold, combinatorial_folds, combinatorial_paths, walk_forward_folds
from btcai.errors import DataError
from btcai.evaluation import metrics
from btcai.evaluation.backtest import backtest
from btcai.evaluation.baselines import run_rules_of_thumb
from btcai.evaluation.result import BacktestResult
from btcai.evaluation.rows import daily_returns
from btcai.experiments.running import settings_key
from btcai.experiments.spread import Piece, Runner, here
from btcai.features.scaling import fit_scaler
from btcai.features.splits import Splits
from btcai.files import whole
from btcai.logs import fields
from btcai.machine import training_bytes
from btcai.market.bars import bar_arrays
from btcai.market.rules import make_rules, market_rules
from btcai.paths import WEIGHTS
from btcai.records.versions import JUDGING_CODE, NO_PART_IN_JUDGING, code_sha256
from btcai.schema import BUCKETS, TOKENS, MarketData, Span
from btcai.training.augmentation import WEEK
from btcai.training.checkpoint import load_policy
from btcai.training.pieces import available_bars, least_bars, least_spans, market_of, train_and_valid
from btcai.training.progressive import train_bucket

BESIDE = ("buy_and_hold", "volatility_targeted")
"""Baselines that every path is shown beside."""

DONE = "judged.json"

REMEDY = "change --groups or --test-groups, or import more bars"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The folds and the histories that they make: for each, which fold tests each of its groups, in order of time."""

    name: str
    folds: tuple[Fold, ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def forward(cls, splits: Splits, n_folds: int, purge_bars: int, embargo_bars: int, least_bars: int = 0) -> "Plan":
        """One history: each fold is trained on what lies before it, so many bars at least."""
        folds = walk_forward_folds(_span(splits), n_folds, purge_bars, embargo_bars, least_bars)
        return cls(name="forward", folds=folds, paths=(tuple(range(n_folds)),))

    @classmethod
    def combinatorial(cls, splits: Splits, n_groups: int, n_test: int, purge_bars: int, embargo_bars: int) -> "Plan":
        """Several histories: every choice of n_test groups is tested on the others."""
        folds = combinatorial_folds(_span(splits), n_groups, n_test, purge_bars, embargo_bars)
        return cls(name="combinatorial", folds=folds, paths=combinatorial_paths(n_groups, n_test))

    @property
    def groups(self) -> tuple[Span, ...]:
        """What is tested, in order of time."""
        return tuple(sorted({span for fold in self.folds for span in fold.test}, key=lambda span: span.first))


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What one strategy did on one group: simple returns of its UTC days, and its closed trades."""

    daily_returns: list[float]
    trades: int


Outcome = Mapping[str, Mapping[int, GroupResult]]
"""strategy -> first row of a group -> what it did there."""


@dataclass(frozen=True, kw_only=True)
class PathRow:
    """One strategy along one history."""

    strategy: str
    path: int
    net_return: float
    sharpe: float
    max_drawdown_frac: float
    trades: int


def planned(config: Config, splits: Splits, warmup_bars: int, groups: int, test_groups: int | None = None) -> Plan:
    """Walking forward through so many groups of bars, or with test_groups every choice of that many of them.

    DataError where a fold is too small to be trained or judged: here, not days later when its turn comes.
    """
    gap, has = (config.purge_bars, config.splits.embargo_bars), len(_span(splits))
    if test_groups is not None:
        plan = Plan.combinatorial(splits, groups, test_groups, *gap)
    else:
        least = least_bars(config, warmup_bars) + config.purge_bars
        if has < (room := least + (groups - 1) * WEEK):
            raise DataError(f"{groups} groups need {room:,} bars before the sealed span, there are {has:,}; {REMEDY}")
        plan = Plan.forward(splits, groups - 1, *gap, least)
    _require_bars(config, plan, warmup_bars)
    return plan


def _require_bars(config: Config, plan: Plan, warmup_bars: int) -> None:
    """Enough in each fold to train and to validate on, and a week to be tested on in each of its groups."""
    judged_from = warmup_bars + TOKENS * max(bucket.patch_bars for bucket in config.buckets.values())
    for number, fold in enumerate(plan.folds, start=1):
        tested = min(span.stop - max(span.first, judged_from) for span in fold.test)
        needed, had = least_spans(config, warmup_bars), available_bars(fold.train, config, warmup_bars)
        for use, least, bars in zip(
            ("train", "validate", "test"), (*needed, WEEK), (*had, max(0, tested)), strict=True
        ):
            if bars < least:
                which = f"fold {number} of {len(plan.folds)}"
                raise DataError(f"{which} must have {least:,} bars to {use} on, was {bars:,}; {REMEDY}")


def _span(splits: Splits) -> Span:
    return Span(splits.train.first, splits.test.stop)


def refit(
    config: Config, data: MarketData, plan: Plan, folder: Path, data_version: str, run: Runner = here
) -> Iterator[int]:
    """Train and judge what is missing; yields the number of each fold that is done. A killed call loses one bucket.

    Where folds are made elsewhere (`run`) they come in the order in which they end, and a killed call loses those under
    way. Bundles are not written and consolidation is left out: a fold says what training alone gives.
    """
    places = [_place(config, fold, folder, data_version) for fold in plan.folds]
    missing = [number for number, place in enumerate(places) if not (place / DONE).is_file()]
    yield from (number for number in range(len(places)) if number not in missing)
    each = training_bytes(len(data))
    pieces = [
        Piece(work=partial(_make, n, config, plan.folds[n]), folder=places[n], memory_bytes=each) for n in missing
    ]
    for piece, _ in run(data, pieces):
        yield missing[piece]


@fields.bound(fold="number")
def _make(number: int, config: Config, fold: Fold, data: MarketData, place: Path) -> None:
    """A fold's buckets, and DONE when they are judged."""
    found = {**_trained(config, data, fold, place), **_beside(config, data, fold)}
    record = {name: {str(first): asdict(one) for first, one in by.items()} for name, by in found.items()}
    draft = place / f".{DONE}.new"
    draft.write_text(json.dumps(record, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(place / DONE)


def outcomes(config: Config, plan: Plan, folder: Path, data_version: str) -> list[Outcome | None]:
    """What is known of each fold; None where it is still to do."""
    found: list[Outcome | None] = []
    for fold in plan.folds:
        path = _place(config, fold, folder, data_version) / DONE
        if not path.is_file():
            found.append(None)
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        found.append(
            {name: {int(first): GroupResult(**one) for first, one in by.items()} for name, by in record.items()}
        )
    return found


def seconds_left(config: Config, plan: Plan, folder: Path, data_version: str) -> float | None:
    """Of training, by what it took in the folds that are done; None where none is, or none says so."""
    places = [_place(config, fold, folder, data_version) for fold in plan.folds]
    done = [place for place in places if (place / DONE).is_file()]
    took = [sum(usage.elapsed_s(place / bucket / usage.FILE) or 0.0 for bucket in BUCKETS) for place in done]
    told = [seconds for seconds in took if seconds]
    return (len(places) - len(done)) * float(np.mean(told)) if told else None


def path_rows(plan: Plan, found: Sequence[Outcome]) -> list[PathRow]:
    """Every strategy along every history."""
    rows = []
    for strategy in found[0]:
        for number, path in enumerate(plan.paths, start=1):
            pieces = [found[fold][strategy][group.first] for group, fold in zip(plan.groups, path, strict=True)]
            daily = np.concatenate([piece.daily_returns for piece in pieces])
            equity = np.concatenate(([1.0], np.cumprod(1.0 + daily)))
            rows.append(
                PathRow(
                    strategy=strategy,
                    path=number,
                    net_return=float(equity[-1] - 1.0),
                    sharpe=metrics.sharpe(daily, metrics.DAYS_PER_YEAR),
                    max_drawdown_frac=metrics.max_drawdown(equity).frac,
                    trades=sum(piece.trades for piece in pieces),
                )
            )
    return rows


def _place(config: Config, fold: Fold, folder: Path, data_version: str) -> Path:
    """A folder for all that a fold's result rests on."""
    spans = {"train": [asdict(span) for span in fold.train], "test": [asdict(span) for span in fold.test]}
    sections = {name: getattr(config, name).model_dump() for name in ("budget", "splits", "convergence")}
    judging = _judging_code()
    terms = {"data": data_version, "seed": config.seed, "judging": judging, **sections, **spans}
    return folder / settings_key([config], terms)


@cache
def _judging_code() -> str:
    """As this process began with it: a fold must be found after it was made, whatever is edited meanwhile."""
    return code_sha256((*JUDGING_CODE, "inference"), without=NO_PART_IN_JUDGING)


def plan_key(config: Config, plan: Plan, data_version: str) -> str:
    """Of all its folds."""
    places = [_place(config, fold, Path(), data_version).name for fold in plan.folds]
    return f"{plan.name}-{settings_key([], places)}"


def _trained(config: Config, data: MarketData, fold: Fold, place: Path) -> dict[str, dict[int, GroupResult]]:
    """The four buckets, each from what the one before it knows."""
    market = market_of(data, fold.train)
    splits = train_and_valid(market, config.splits, config.purge_bars)
    scaler = fit_scaler(market.features, splits.train)
    teacher, found = None, {}
    for bucket in BUCKETS:
        out = place / bucket
        if not (out / WEIGHTS).is_file():
            with whole(out) as draft, usage.sampled(draft / usage.FILE):
                train_bucket(market, splits, scaler, bucket, config, teacher, draft)
        teacher, settings = out, config.buckets[bucket]
        policy, rules = load_policy(out, bucket, config), make_rules(settings, config.market, config.risk)
        found[bucket] = {
            span.first: _tested(
                backtest(policy, data, span, settings, [rules], config.sizing, config.market.equity_usdt)[0]
            )
            for span in fold.test
        }
    return found


def _beside(config: Config, data: MarketData, fold: Fold) -> dict[str, dict[int, GroupResult]]:
    """Baselines that need no training, at the same costs."""
    found: dict[str, dict[int, GroupResult]] = {name: {} for name in BESIDE}
    rules, bars = {"judged": market_rules(config.market, config.market.costs)}, bar_arrays(data)
    for span in fold.test:
        did = run_rules_of_thumb(data, span, rules, config.market.equity_usdt, bars)
        for name in BESIDE:
            found[name][span.first] = _tested(did[name]["judged"])
    return found


def _tested(result: BacktestResult) -> GroupResult:
    return GroupResult(daily_returns=daily_returns(result).tolist(), trades=len(result.trades))
