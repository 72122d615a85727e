"""The gate: proven only where every check passes, and every check named with its number."""

from dataclasses import fields, replace
from typing import Any

import pytest

from btcai.evaluation.gate import DEFLATED_SHARPE, MAX_OVERFITTING, MAX_P_VALUE, UP_FOLDS, Figures, decide

GOOD = Figures(
    deflated_sharpe=0.97,
    overfitting=0.03,
    p_value=0.01,
    luck_p_value=0.0,
    difference_lows={"cash": 0.8, "buy_and_hold": 0.2},
    random_chance=0.01,
    up_folds_frac=0.75,
    net_at_higher_costs=0.2,
    net_with_delay=0.25,
    net_at_harshest_costs=0.3,
)


def test_what_passes_every_check_is_proven() -> None:
    outcome = decide(GOOD)
    assert outcome.edge == "proven"
    assert all(check.passed for check in outcome.checks)
    assert len(outcome.checks) == len(fields(Figures))  # one for both p-values, two for the baselines


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"deflated_sharpe": DEFLATED_SHARPE}, "deflated Sharpe ratio"),
        ({"overfitting": MAX_OVERFITTING}, "probability of overfitting"),
        ({"p_value": MAX_P_VALUE}, "chance of being no better than baselines and luck"),
        ({"luck_p_value": MAX_P_VALUE}, "chance of being no better than baselines and luck"),
        (
            {"p_value": 0.03, "luck_p_value": 0.03},
            "chance of being no better than baselines and luck",
        ),  # 1 - .97^2 = .0591
        ({"difference_lows": {"cash": 0.8, "buy_and_hold": 0.0}}, "Sharpe ratio over buy_and_hold, lower end"),
        ({"difference_lows": {}}, "Sharpe ratio over a baseline"),
        ({"random_chance": MAX_P_VALUE}, "chance that random times do as well"),
        ({"up_folds_frac": UP_FOLDS - 0.01}, "share of folds up"),
        ({"net_at_higher_costs": 0.0}, "net return at 1.5 times the costs"),
        ({"net_with_delay": -0.1}, "net return one bar later"),
        ({"net_at_harshest_costs": -0.1}, "net return under the harshest costs"),
    ],
)
def test_one_check_that_fails_is_enough_and_is_named(change: dict[str, Any], name: str) -> None:
    outcome = decide(replace(GOOD, **change))
    assert outcome.edge == "none"
    assert [check.name for check in outcome.checks if not check.passed] == [name]


@pytest.mark.parametrize("field", [field.name for field in fields(Figures)])
def test_what_is_not_known_never_passes(field: str) -> None:
    unknown: Any = {"cash": float("nan")} if field == "difference_lows" else float("nan")
    outcome = decide(replace(GOOD, **{field: unknown}))
    assert outcome.edge == "none"
    assert sum(not check.passed for check in outcome.checks) == 1


def test_who_has_no_random_twins_is_not_asked_for_them() -> None:
    outcome = decide(replace(GOOD, random_chance=None))
    assert outcome.edge == "proven"
    assert "chance that random times do as well" not in {check.name for check in outcome.checks}


def test_three_of_five_folds_are_enough() -> None:
    assert decide(replace(GOOD, up_folds_frac=3 / 5)).edge == "proven"


def test_checks_give_value_and_threshold() -> None:
    deflated, luck, *_ = decide(replace(GOOD, luck_p_value=0.02)).checks
    assert (deflated.value, deflated.threshold) == (0.97, DEFLATED_SHARPE)
    assert (luck.value, luck.threshold) == (pytest.approx(1 - 0.99 * 0.98), MAX_P_VALUE)
