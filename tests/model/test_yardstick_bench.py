"""`btcai bench yardstick` at a small size: every market and baseline has its line, and goals are computed."""

from pathlib import Path

import pytest

from bench.line import Line
from bench.stopwatch import Stopwatch
from bench.yardstick import Size, bucket_markets, lines, markets
from btcai.params import load_config


@pytest.fixture(scope="module")
def printed(root: Path) -> dict[str, Line]:
    size = Size(decisions=20_000, score_paths=4, train_paths=4, proof_paths=16)
    found = lines(Stopwatch(1, patience_s=0), load_config(root / "params.yaml"), root, size)
    return {line.name: line for line in found}


@pytest.mark.slow
def test_every_market_has_its_optimum_its_proof_and_its_baselines(printed: dict[str, Line]) -> None:
    assert {f"{name}: optimum" for name in markets()} <= printed.keys()
    for name in markets() | bucket_markets({"scalping": 1, "long": 28}):
        for part in ("simulated optimum", "cash", "always long", "moving averages", "linear regression"):
            assert f"{name}: {part}" in printed
    assert [name for name in printed if "search" in name] == ["interaction: linear rule by search"]


@pytest.mark.slow
def test_goals_are_on_what_can_miss_them(printed: dict[str, Line]) -> None:
    for part in ("cash", "always long"):
        assert printed[f"hard, hidden: {part}"].goal is None
    assert printed["hard, hidden: moving averages"].goal == "ratio <= 1"
    assert printed["interaction: linear regression"].goal == "ratio <= 0.01"
    assert printed["interaction: linear rule by search"].goal == "ratio <= 0.02"


@pytest.mark.slow
def test_cash_is_worth_nothing_and_hidden_levels_agree_with_the_study(printed: dict[str, Line]) -> None:
    assert printed["hard, hidden: cash"].ratio == 0.0
    assert printed["hard, hidden: optimum"].reference_value == 1.427
    assert printed["hard, hidden: optimum"].met is True
    assert printed["hard, shown: optimum"].met is None


def test_a_bucket_that_decides_every_bar_needs_no_market_of_its_own() -> None:
    assert bucket_markets({"scalping": 1}) == {}
    assert len(bucket_markets({"scalping": 1, "short": 2})) == 7  # four levels, two scales twice, interaction
