"""Curves of a training: what a line says, a collapse told once, what is written."""

import csv
from dataclasses import asdict
from pathlib import Path

import pytest
from training_fakes import judged_as, read_metrics

from btcai.training import curves
from btcai.training.trainer import Row


def test_a_line_of_training_tells_validation_from_training_and_knows_no_minus_zero() -> None:
    row: Row = {"forecast_loss": 1.5, "valid_forecast_loss": 1.25, "valid_hold_bias": -0.0, "valid_share_hold": 1.0}
    assert curves._validated(row) == "valid_forecast_loss 1.25 valid_hold_bias 0"


def test_a_collapsed_policy_is_in_the_curves_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    kept: curves.Curves = []
    flat, trading = judged_as(0.0, share_hold=1.0, long_frac=0.0), judged_as(1.0)
    seen = [flat, flat, trading, judged_as(0.5, long_frac=1.0)]
    rows: list[Row] = [{f"valid_{name}": value for name, value in asdict(one).items()} for one in seen]
    with caplog.at_level("INFO"):
        curves.record(kept, [{"loss": 1.0}, *rows], "short: PPO", 5)
    assert [row.get("collapsed") for row in kept] == [None, "flat", "flat", "", "always long"]
    told = [(one.levelname, one.message) for one in caplog.records if "##" not in one.message]  # no bars
    assert told == [
        ("INFO", "short: PPO: trades nothing yet by update 2"),
        ("WARNING", "short: PPO: the policy has collapsed by update 5: always long"),
    ]


def test_collapse_is_a_name_or_null_in_the_metrics(tmp_path: Path) -> None:
    for long_frac, expected in ((0.5, None), (0.0, "flat")):
        curves.write(tmp_path, {"valid_ic_h1": float("nan")}, judged_as(0.0, long_frac=long_frac), [])
        assert read_metrics(tmp_path) == {"valid_ic_h1": None, "collapsed": expected}


def test_curves_keep_what_was_rolled_back(tmp_path: Path) -> None:
    kept: curves.Curves = []
    rows: list[Row] = [{"update": k, "loss": 1.0} for k in (1, 2, 3)]
    again: Row = {"update": 3, "loss": 2.0, "rolled_back_from": 4, "rate_share": 0.5}
    curves.record(kept, [*rows, again], "short: PPO", 4)
    curves.write(tmp_path, {}, judged_as(0.0), kept)
    with (tmp_path / "curves.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["update"], row["rolled_back_from"], row["rate_share"]) for row in found] == [
        ("1", "", ""), ("2", "", ""), ("3", "", ""), ("3", "4", "0.5"),
    ]  # fmt: skip
