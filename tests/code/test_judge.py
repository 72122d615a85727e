"""The verdict: what is called an edge, and what is said of strategies that have none."""

import re
from dataclasses import replace

import numpy as np
import pytest
from report_fakes import FOLDS, baselines, buckets_of, earned, everywhere, judge, losing_buckets, noise

from btcai.evaluation import metrics
from btcai.evaluation.judge import Judgement, Results, Trials
from btcai.evaluation.rows import daily_returns
from btcai.evaluation.significance import deflated_sharpe, luck_p_value
from btcai.evaluation.statistics import bootstrapped
from btcai.evaluation.twins import Rank, Ranks
from btcai.report.formats import flag
from btcai.schema import BARS_PER_DAY, BUCKETS, Span


@pytest.fixture(scope="module")
def buckets() -> Results:
    return losing_buckets()


@pytest.fixture(scope="module")
def judgement(buckets: Results) -> Judgement:
    return judge(buckets, baselines(), FOLDS)


def among_noise(returns: np.ndarray) -> Results:
    """One bucket that earns this, three that earn nothing."""
    return buckets_of([returns, *(noise(seed) for seed in (21, 22, 23))], trades=9)


def test_an_oracle_has_an_edge_and_is_called_so() -> None:
    verdict = judge(among_noise(np.abs(noise(5)) + 0.002), baselines(), FOLDS).verdicts[0]
    assert verdict.edge == "proven"
    assert verdict.text.startswith("edge shown: net +")
    assert "4 of 4 folds up; all 11 checks passed, 4 trials counted" in verdict.text
    assert all(low > 0 for _, low, _ in verdict.differences)
    assert [check.passed for check in verdict.checks] == [True] * 11
    assert 0.0 < verdict.smallest_edge.sharpe < 30.0


def test_a_bucket_that_never_traded_has_no_edge_and_is_flagged(judgement: Judgement) -> None:
    row = next(row for row in judgement.judged_rows() if row.strategy == "long")
    verdict = judgement.verdicts[3]
    assert row.did_not_trade
    assert flag(row) == "did not trade"
    assert (row.net_return, row.trades, row.walk_forward_score) == (0.0, 0, 0.0)
    assert np.isnan([row.sharpe, row.win_rate, row.calmar]).all()
    assert (verdict.bucket, verdict.edge) == ("long", "none")
    assert "did not trade" in verdict.text
    assert "recommended: stay in cash or hold the volatility-targeted" in verdict.text


def test_cash_is_not_flagged_for_doing_its_job(judgement: Judgement) -> None:
    row = next(row for row in judgement.judged_rows() if row.strategy == "cash")
    assert row.did_not_trade
    assert flag(row) == ""


def test_noise_has_no_edge_and_the_verdict_gives_its_numbers(judgement: Judgement) -> None:
    verdict = judgement.verdicts[0]
    assert verdict.edge == "none"
    numbers = r"net -\d+\.\d% after pessimistic costs, Sharpe -?[\d.]+, \d of 4 folds up"
    assert re.match("no edge shown: " + numbers, verdict.text)
    assert re.search(r"\d+ of 11 checks failed, 4 trials counted: deflated Sharpe ratio 0\.\d+", verdict.text)
    assert "a span this short could only have distinguished a Sharpe ratio of" in verdict.text


def test_luck_in_one_fold_is_not_an_edge() -> None:
    lucky = np.concatenate([np.full(90, -0.0001), np.full(30, 0.05)]) + 1e-4 * noise(3)
    verdict = judge(among_noise(lucky), {"cash": baselines()["cash"]}, FOLDS).verdicts[0]
    assert verdict.edge == "none"
    assert "1 of 4 folds up" in verdict.text
    assert "share of folds up 0.25 (needs at least 0.6)" in verdict.text


def test_an_edge_over_most_baselines_is_none_when_one_is_as_good() -> None:
    good = noise(5, mean=0.012)
    rivals = {**baselines(), "buy_and_hold": everywhere(earned(good))}
    verdict = judge(among_noise(good), rivals, FOLDS).verdicts[0]
    assert verdict.edge == "none"
    assert "Sharpe ratio over buy and hold, lower end 0 (needs over 0)" in verdict.text
    assert judge(among_noise(good), baselines(), FOLDS).verdicts[0].edge == "proven"


def test_trials_before_this_run_count_against_it() -> None:
    good = among_noise(noise(5, mean=0.006))
    before = Trials(sharpes=np.random.default_rng(0).normal(0.0, 1.8, 5_000))
    alone, among_many = (judge(good, baselines(), FOLDS, trials=trials).verdicts[0] for trials in (None, before))
    assert (alone.n_trials, among_many.n_trials) == (4, 5_004)
    deflated, luck = ([one.checks[k].value for one in (alone, among_many)] for k in (0, 1))
    assert deflated[1] < deflated[0]
    assert luck[1] > luck[0]
    assert among_many.smallest_edge.sharpe > alone.smallest_edge.sharpe


def test_without_earlier_trials_the_four_that_are_judged_count_as_trials_of_each_other() -> None:
    """Whoever has the best of four: its p-value is Sidak's 1 - (1 - p)^4, its ratio is held against luck of four."""
    good, cash = noise(5, mean=0.006), {"cash": baselines()["cash"]}
    alone, among = (judge(one, cash, FOLDS).verdicts[0] for one in (buckets_of([good]), among_noise(good)))
    assert (alone.n_trials, among.n_trials) == (1, 4)
    p = alone.checks[1].value
    assert 0.05 < p < 0.1
    assert among.checks[1].value == pytest.approx(1.0 - (1.0 - p) ** 4, abs=0.03)
    returns, nan = daily_returns(earned(good)), float("nan")
    luck = deflated_sharpe(returns, metrics.DAYS_PER_YEAR, trial_sharpes=np.array([nan, nan, nan, nan]))
    assert among.checks[0].value == pytest.approx(luck)
    assert luck < alone.checks[0].value


def test_differences_from_baselines_are_as_sure_as_four_buckets_ask_for() -> None:
    """Each lower end is wrong with probability .05 / 4, so that all are right at 95 %: an interval of 97.5 %."""
    ours, rivals = among_noise(noise(5, mean=0.003)), baselines()
    every = [daily_returns(by["pessimistic"]) for by in (*ours.values(), *rivals.values())]
    drawn = bootstrapped(np.stack(every, axis=1), metrics.DAYS_PER_YEAR, seed=7, resamples=200)
    for place, verdict in enumerate(judge(ours, rivals, FOLDS).verdicts):
        for number, (name, low, high) in enumerate(verdict.differences):
            asked, narrower = (drawn.difference("sharpe", place, 4 + number, level=level) for level in (0.975, 0.95))
            assert (name, low, high) == (list(rivals)[number], *asked)
            assert low < narrower.low


def test_the_judged_ratio_is_one_of_those_that_luck_chose_among() -> None:
    """Of a ledger's best what is left has a smaller mean and spread: eleven trials that it was chosen among."""
    returns = daily_returns(earned(noise(5, mean=0.005)))
    before = Trials(sharpes=np.random.default_rng(1).normal(0.0, 1.0, 11))
    good = among_noise(noise(5, mean=0.005))
    alone, among = (judge(good, baselines(), FOLDS, trials=trials).verdicts[0] for trials in (None, before))
    own = metrics.sharpe(returns, metrics.DAYS_PER_YEAR)
    luck = luck_p_value(returns, metrics.DAYS_PER_YEAR, trial_sharpes=np.append(before.sharpes, own))
    without = luck_p_value(returns, metrics.DAYS_PER_YEAR, trial_sharpes=before.sharpes)
    assert own > before.sharpes.max()
    assert without < 0.6 * luck
    assert among.checks[1].value == pytest.approx(1.0 - (1.0 - alone.checks[1].value) * (1.0 - luck))


def test_random_twins_are_shown_and_are_no_rivals() -> None:
    twins = {**baselines(), "random_short": everywhere(earned(noise(9)))}
    found = judge(buckets_of([noise(5)]), twins, FOLDS)
    assert "random_short" in {row.strategy for row in found.rows}
    assert "random_short" not in {name for name, *_ in found.verdicts[0].differences}


def test_who_does_no_better_than_random_twins_is_not_proven() -> None:
    oracle = among_noise(np.abs(noise(5)) + 0.002)
    better, not_better = (Rank(0.5, -0.2, 0.0, 0.2, chance) for chance in (0.005, 0.05))
    for sharpe, edge in ((better, "proven"), (not_better, "none")):
        ranks = {"scalping": Ranks(net_return=better, sharpe=sharpe, twins=200)}
        found = judge(oracle, baselines(), FOLDS, ranks=ranks).verdicts
        assert (found[0].edge, found[0].ranks) == (edge, ranks["scalping"])
        assert found[1].ranks is None
    assert "chance that random times do as well 0.05 (needs under 0.05)" in found[0].text


def test_a_champion_is_shown_with_its_difference_and_decides_nothing() -> None:
    good = noise(5, mean=0.012)
    beside = {"champion_scalping": everywhere(earned(good)), "champion_short": everywhere(earned(noise(77)))}
    alone_judged, judged = (judge(among_noise(good), baselines(), FOLDS, beside=one) for one in (None, beside))
    alone, found = alone_judged.verdicts, judged.verdicts
    rows = [row for row in judged.rows if row.strategy not in beside]
    assert repr(rows) == repr(list(alone_judged.rows))  # nan is not nan
    assert found[0].edge == "proven"  # as good as its champion, and no better
    assert found[0].over_champion == (0.0, 0.0)
    other = found[1].over_champion
    assert other is not None
    assert other.low < other.high
    assert found[2].over_champion is None
    assert [replace(one, over_champion=None) for one in found] == list(alone)  # to the bit, whoever is champion


def test_what_stands_beside_has_rows_and_no_verdict() -> None:
    buckets = buckets_of([noise(5), noise(6)])
    found = judge(buckets, baselines(), FOLDS, beside={"portfolio": everywhere(earned(noise(8)))})
    assert [row.strategy for row in found.judged_rows()][:3] == ["scalping", "short", "portfolio"]
    assert [verdict.bucket for verdict in found.verdicts] == ["scalping", "short"]
    assert "portfolio" not in {name for name, *_ in found.verdicts[0].differences}


def test_a_gain_that_harsher_costs_eat_is_not_an_edge() -> None:
    good, eaten = earned(np.abs(noise(5)) + 0.002, trades=9), earned(-np.abs(noise(5)), trades=9)
    by = {**everywhere(good), "pessimistic": eaten}
    verdict = judge({**among_noise(noise(5)), "short": by}, baselines(), FOLDS, severity="base").verdicts[1]
    assert verdict.edge == "none"
    assert re.search(r"net return under the harshest costs -[\d.]+ \(needs over 0\)", verdict.text)


def test_fold_figures_by_hand() -> None:
    gains = np.repeat([0.01, -0.01, 0.0, 0.02], 30)
    row = judge(buckets_of([gains]), baselines(), FOLDS).rows[0]
    assert row.fold_returns == pytest.approx([1.01**30 - 1, 0.99**30 - 1, 0.0, 1.02**30 - 1])
    # Constant returns have no variance (the bars' sums may leave some rounding), so every fold counts as 0.
    assert np.isnan(row.fold_sharpes).all()
    assert row.walk_forward_score == 0.0


def test_walk_forward_score_is_the_mean_of_the_folds_ratios(judgement: Judgement) -> None:
    row = judgement.rows[0]
    assert row.walk_forward_score == pytest.approx(np.mean(row.fold_sharpes))
    assert len(row.fold_sharpes) == 4


def test_folds_outside_the_tested_span_are_refused(buckets: Results) -> None:
    with pytest.raises(ValueError, match="folds must lie inside the tested span"):
        judge(buckets, baselines(), [Span(0, 500)])


def test_longest_wait_holding_time_and_days_needed_stand_in_the_rows(judgement: Judgement) -> None:
    row, cash = (next(one for one in judgement.judged_rows() if one.strategy == name) for name in ("scalping", "cash"))
    assert row.holding_bars == 5.0  # as report_fakes closes its lots
    assert row.underwater_bars >= row.drawdown_bars > 0
    assert row.sharpe < 0.0
    assert np.isnan([row.needed_days, cash.holding_bars, cash.needed_days]).all()
    assert cash.underwater_bars == 0
    gains = judge(among_noise(noise(5, mean=0.006)), baselines(), FOLDS).rows[0]
    # a day's ratio s has an error of sqrt((1 + s^2 / 2) / days), and 1.645 of them are asked for
    day = gains.sharpe / 365**0.5
    assert gains.needed_days == pytest.approx(1 + 1.645**2 * (1 + day**2 / 2) / day**2, rel=0.2)


def test_rows_come_in_the_order_of_the_table(judgement: Judgement) -> None:
    order = [row.strategy for row in judgement.judged_rows()]
    assert order == [*BUCKETS, "cash", "buy_and_hold", "volatility_targeted", "momentum_90d"]
    assert len(judgement.rows) == 5 * 8


def test_too_few_days_give_dashes_not_numbers() -> None:
    short = Span(1000, 1000 + 10 * BARS_PER_DAY)
    result = replace(earned(noise(1)[:10]), span=short)
    row = judge({"short": {"pessimistic": result}}, {}, [short]).rows[0]
    assert np.isnan([row.sharpe, row.sharpe_low, row.cagr, row.sortino]).all()
    assert row.walk_forward_score == 0.0
