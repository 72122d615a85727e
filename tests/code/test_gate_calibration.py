"""The gate calibrated both ways: luck among thousands of rules is no edge, and a true edge among them is found."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from btcai.evaluation.gate import MAX_P_VALUE, Figures, Outcome, decide
from btcai.evaluation.metrics import DAYS_PER_YEAR
from btcai.evaluation.overfitting import overfitting
from btcai.evaluation.significance import deflated_sharpe
from btcai.evaluation.statistics import sharpe_difference_interval
from btcai.evaluation.superiority import superiority

RULES = 2_000
YEARS = 3
EDGE = 2.5
"""Annual net Sharpe ratio of the planted rule."""
FOLDS = 6


def judged(returns: np.ndarray, baselines: dict[str, np.ndarray], seed: int) -> tuple[int, Outcome]:
    """The best of all rules (m, k) by Sharpe ratio, and what the gate says of it; costs are in the returns."""
    sharpes = returns.mean(axis=0) / returns.std(axis=0, ddof=1) * DAYS_PER_YEAR**0.5
    best = int(np.nanargmax(sharpes))
    ours = returns[:, best]
    net = float(np.prod(1.0 + ours) - 1.0)
    folds = [np.prod(1.0 + part) > 1.0 for part in np.array_split(ours, FOLDS)]
    p_value = max(
        float(superiority(returns, one, seed=seed, resamples=500).candidate_p_values[best])
        for one in baselines.values()
    )
    figures = Figures(
        deflated_sharpe=deflated_sharpe(ours, DAYS_PER_YEAR, trial_sharpes=sharpes),
        overfitting=overfitting(returns).probability if p_value < MAX_P_VALUE else float("nan"),  # slow, and no matter
        p_value=p_value,
        luck_p_value=0.0,  # no trial but those whose returns are here
        difference_lows={
            name: sharpe_difference_interval(ours, one, DAYS_PER_YEAR, seed=seed, resamples=2_000).low
            for name, one in baselines.items()
        },
        up_folds_frac=float(np.mean(folds)),
        net_at_higher_costs=net,
        net_with_delay=net,
        net_at_harshest_costs=net,
    )
    return best, decide(figures)


def settings_of_rules(rng: np.random.Generator, families: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Daily returns (m, RULES) of settings of long-or-flat rules without skill, and those of the market (m,).

    Tails of Student's t with 4 degrees, 1.5 % a day. Two settings of one rule correlate at .8 to .98, those of two
    rules at .4 to .8, which is what they have of the market (random rules on the real bars: .5).
    """
    days, each = YEARS * DAYS_PER_YEAR, RULES // families
    market, own = (np.repeat(rng.uniform(*ends, families), each) for ends in ((0.4, 0.8), (0.8, 0.98)))
    parts = [rng.standard_t(4, (days, n)) / 2**0.5 for n in (1, families, RULES)]
    returns = np.sqrt(market) * parts[0] + np.sqrt(1.0 - own) * parts[2]
    returns += np.sqrt(np.maximum(0.0, own - market)) * np.repeat(parts[1], each, axis=1)
    return 0.015 * returns, 0.015 * parts[0][:, 0]


def alarm_and_find(seed: int) -> tuple[bool, bool]:
    """Whether the gate calls an edge proven among rules without skill; whether it finds one that has it among them."""
    returns, market = settings_of_rules(np.random.default_rng(seed))
    baselines = {"cash": np.zeros(len(market)), "market": market}
    _, outcome = judged(returns, baselines, seed)
    returns[:, 0] += EDGE / DAYS_PER_YEAR**0.5 * 0.015
    best, found = judged(returns, baselines, seed)
    return outcome.edge == "proven", best == 0 and found.edge == "proven"


@pytest.mark.slow
def test_a_true_edge_among_two_thousand_rules_is_found_and_luck_is_not_called_one() -> None:
    with threadpool_limits(1), ThreadPoolExecutor(2) as threads:  # numpy holds no GIL while it computes
        alarms, finds = zip(*threads.map(alarm_and_find, range(200)), strict=True)
    assert sum(alarms) <= 10
    assert sum(finds) >= 160


def random_rules(closes: np.ndarray, per_day: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Daily returns (m, RULES) of rules that are long or flat at random, and those of the market (m,).

    In the market for .2 to .8 of the time, for 1 to 60 days each time; decided at one of closes, held to the next;
    11.5 bp for every change.
    """
    steps = closes[1:] / closes[:-1] - 1.0
    steps = steps[: len(steps) // per_day * per_day]
    share, hold = rng.uniform(0.2, 0.8, RULES), per_day * np.exp(rng.uniform(0.0, np.log(60.0), RULES))
    leave, enter = 1.0 / hold, np.minimum(1.0, share / (1.0 - share) / hold)
    held, wealth = np.zeros(RULES, np.bool_), np.ones((len(steps) // per_day, RULES))
    for number, step in enumerate(steps):
        chance, before = rng.random(RULES), held
        held = np.where(before, chance >= leave, chance < (enter if number else share))
        wealth[number // per_day] *= (1.0 + held * step) * (1.0 - 0.00115 * (held != before))
    return wealth - 1.0, np.prod(1.0 + steps.reshape(-1, per_day), axis=1) - 1.0


def real_closes(path: Path, hours: int) -> np.ndarray:
    bars = pd.read_parquet(path, columns=["timestamp", "close"])
    stamps = pd.to_datetime(bars["timestamp"], unit="ms", utc=True)
    return bars.set_index(stamps)["close"].resample(f"{hours}h").last().ffill().to_numpy(np.float64)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("hours", [4, 24])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_two_thousand_random_rules_on_real_bars_has_no_edge(
    real_bars_path: Path, hours: int, seed: int
) -> None:
    returns, market = random_rules(real_closes(real_bars_path, hours), 24 // hours, np.random.default_rng(seed))
    assert returns.shape == (1185, RULES)
    correlations = np.corrcoef(returns[:, :200].T)[np.triu_indices(200, 1)]
    assert 0.4 < correlations.mean() < 0.6  # what settings_of_rules says of them
    best, outcome = judged(returns, {"cash": np.zeros(1185), "market": market}, seed)
    assert outcome.edge == "none"
    assert returns[:, best].mean() > 0.0  # it looks like a gain
    passed = {check.name: check.passed for check in outcome.checks}
    assert not passed["chance of being no better than baselines and luck"]
