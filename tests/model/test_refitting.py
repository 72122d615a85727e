"""Agents trained anew on every fold: each judged on what it never saw, each history whole, a killed call goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refitting_fakes import small

from btcai import paths, usage
from btcai.evaluation import metrics
from btcai.experiments import refitting, refitting_report
from btcai.experiments.refitting import BESIDE, GroupResult, PathRow, Plan, path_rows, plan_key
from btcai.experiments.report import about
from btcai.features.splits import Splits, make_splits
from btcai.params import load_config
from btcai.schema import BUCKETS, MarketData
from btcai.training.augmentation import WEEK
from btcai.training.pieces import least_bars, train_and_valid

GAP = (36, 0)


def test_a_forward_plan_is_one_history_and_a_combinatorial_one_several() -> None:
    _, _, splits = small()
    forward = Plan.forward(splits, 5, *GAP)
    assert (len(forward.folds), forward.paths) == (5, ((0, 1, 2, 3, 4),))
    assert all(max(span.stop for span in fold.train) <= fold.test[0].first - GAP[0] for fold in forward.folds)
    combined = Plan.combinatorial(splits, 6, 2, *GAP)
    assert (len(combined.folds), len(combined.paths)) == (15, 5)
    assert len(combined.groups) == 6
    assert max(group.stop for group in combined.groups) <= splits.test.stop


def test_a_history_joins_what_each_fold_did_on_its_group() -> None:
    _, _, splits = small()
    plan = Plan.combinatorial(splits, 3, 2, *GAP)  # folds test groups 01, 02, 12; histories 0 0 1 and 1 2 2
    assert plan.paths == ((0, 0, 1), (1, 2, 2))
    found = [
        {
            "rule": {
                group.first: GroupResult(daily_returns=[0.1 * fold + 0.01 * place] * 10, trades=fold)
                for place, group in enumerate(plan.groups)
                if group in plan.folds[fold].test
            }
        }
        for fold in range(3)
    ]
    first, second = path_rows(plan, found)
    daily = np.repeat([0.0, 0.01, 0.12], 10)
    assert first.net_return == pytest.approx(np.prod(1 + daily) - 1)
    assert first.sharpe == pytest.approx(metrics.sharpe(daily, 365))
    assert (first.trades, second.trades) == (0 + 0 + 1, 1 + 2 + 2)
    assert second.net_return == pytest.approx(1.1**10 * 1.21**10 * 1.22**10 - 1)


def test_a_first_day_that_falls_is_a_drawdown() -> None:
    _, _, splits = small()
    plan = Plan.forward(splits, 1, *GAP)
    group = plan.groups[0].first
    [row] = path_rows(plan, [{"rule": {group: GroupResult(daily_returns=[-0.5, 0.1], trades=1)}}])
    assert row.max_drawdown_frac == pytest.approx(0.5)


def test_the_table_and_the_picture_hold_every_strategy(tmp_path: Path) -> None:
    _, _, splits = small()
    plan = Plan.forward(splits, 2, *GAP)
    row = PathRow(strategy="scalping", path=1, net_return=0.1, sharpe=float("nan"), max_drawdown_frac=0.2, trades=3)
    rows = [row, replace(row, path=2, net_return=-0.3), replace(row, strategy="buy_and_hold", sharpe=1.5)]
    table, picture = refitting_report.write(rows, plan, tmp_path)
    assert table.read_text().splitlines()[0] == "strategy,path,net_return,sharpe,max_drawdown_frac,trades"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert refitting_report.view(rows).row_count == 2


def test_what_is_left_takes_as_long_a_fold_as_those_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _, splits = small()
    plan = Plan.forward(splits, 4, *GAP)
    places = [refitting._place(config, fold, tmp_path, "d1") for fold in plan.folds]
    assert refitting.seconds_left(config, plan, tmp_path, "d1") is None
    for place, seconds in zip(places, (60.0, 90.0, None, 7.0), strict=True):
        for bucket in BUCKETS if seconds else ():
            (place / bucket).mkdir(parents=True)
            rows = [",".join(usage.COLUMNS), *(f"0,{elapsed},0,0,0,0,0" for elapsed in (5.0, seconds))]
            (place / bucket / usage.FILE).write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert refitting.seconds_left(config, plan, tmp_path, "d1") is None  # no fold is done, whatever is trained of it
    for place in places[:2]:
        (place / refitting.DONE).touch()
    seconds = refitting.seconds_left(config, plan, tmp_path, "d1")
    assert seconds == 600.0  # four buckets took 240 and 360 s, two folds are left
    assert about(seconds) == ", about 10 minutes"


@pytest.mark.slow
def test_folds_are_trained_judged_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data, splits = small()
    plan = Plan.forward(splits, 1, config.purge_bars, config.splits.embargo_bars)
    trained: list[str] = []
    real = refitting.train_bucket

    def noted(market: MarketData, its: Splits, scaler: object, bucket: str, *rest: object) -> object:
        trained.append(bucket)
        assert len(market) <= plan.folds[0].train[0].stop
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(market, its, scaler, bucket, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(refitting, "train_bucket", noted)
    with pytest.raises(KeyboardInterrupt):
        list(refitting.refit(config, data, plan, tmp_path, "d1"))
    assert refitting.outcomes(config, plan, tmp_path, "d1") == [None]
    assert list(refitting.refit(config, data, plan, tmp_path, "d1")) == [0]
    assert trained == ["scalping", "short", "medium", "medium", "long"]
    [found] = refitting.outcomes(config, plan, tmp_path, "d1")
    assert found is not None
    assert list(found) == [*BUCKETS, *BESIDE]
    assert refitting.seconds_left(config, plan, tmp_path, "d1") == 0.0
    days = -(-len(plan.groups[0]) // 288)
    assert {len(by[plan.groups[0].first].daily_returns) for by in found.values()} <= {days, days + 1}
    assert list(refitting.refit(config, data, plan, tmp_path, "d1")) == [0]
    assert len(trained) == 5
    assert refitting.outcomes(config, plan, tmp_path, "d2") == [None]  # other bars are another result


@pytest.mark.parametrize("n_bars", [341_280, 341_552])
def test_the_shipped_settings_leave_every_fold_enough_to_train_and_validate_on(n_bars: int) -> None:
    config = load_config(Path(__file__).parents[2] / paths.PARAMS)
    splits = make_splits(n_bars, config.splits, config.purge_bars, 2016)
    gap = config.purge_bars, config.splits.embargo_bars
    least = least_bars(config, 2016)
    plans = Plan.forward(splits, 5, *gap, least + config.purge_bars), Plan.combinatorial(splits, 6, 2, *gap)
    for plan in plans:
        for fold in plan.folds:
            weeks = sum(piece.stop // WEEK - -(-max(piece.first, 1) // WEEK) for piece in fold.train)
            market: Any = Sized(weeks * WEEK)
            found = train_and_valid(market, config.splits, config.purge_bars)
            assert len(found.train) > config.purge_bars
            assert len(found.valid) > config.purge_bars


class Sized:
    """As long as a market, and nothing else of it."""

    warmup_bars = 2016

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n


def test_other_spans_other_bars_and_other_judging_are_other_results(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _, splits = small()
    plan = Plan.forward(splits, 1, *GAP)
    keys = {plan_key(config, plan, "d1"), plan_key(config, plan, "d2")}
    level = config.convergence.model_copy(update={"level": 0.5})
    keys.add(plan_key(config.model_copy(update={"convergence": level}), plan, "d1"))
    monkeypatch.setattr(refitting, "_judging_code", lambda: "another")
    keys.add(plan_key(config, plan, "d1"))
    assert len(keys) == 4
