"""Drift: distances against scipy, windows against each other, forecasts, what follows, and the command."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_fakes import BAR_SIGMA, FakePolicy, make_market
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from typer.testing import CliRunner

from btcai import cli, outputs, paths, stages
from btcai.config import DriftConfig
from btcai.errors import ArtifactError, DataError
from btcai.inference.bundle import Encoded
from btcai.params import load_config, set_param
from btcai.schema import (
    BAR_NS,
    BARS_PER_DAY,
    BARS_PER_YEAR,
    QUANTILE_LEVELS,
    Float32Array,
    FloatArray,
    MarketData,
    Span,
)
from btcai.watch.drift import Drift, ks, measure_drift, psi
from btcai.watch.fit import Fit, measure_fit
from btcai.watch.report import by_distance, read_verdict, text, write_finding
from btcai.watch.verdict import Finding, judge

WINDOW, TRAIN = 200, Span(100, 2100)
T = 2500
NAMES = ("a", "b", "mask")
ROOT = Path(__file__).resolve().parents[2]
LIMITS = DriftConfig(window_days=1, usual_quantile=1.0, stop_ks=0.9, stop_psi=20.0, stop_volatility=9.0)
UNKNOWN = Fit(note="no agent has been exported yet")


def market(seed: int) -> tuple[Float32Array, FloatArray]:
    """Features and mark of bars that are all alike."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.standard_normal((T, 2)), np.ones(T)]).astype(np.float32)
    return features, 100.0 * np.exp(np.cumsum(1e-3 * rng.standard_normal(T)))


def measured(features: Float32Array, mark: FloatArray) -> Drift:
    return measure_drift(features, NAMES, mark, TRAIN, WINDOW)


def judged(drift: Drift, fit: Fit = UNKNOWN, limits: DriftConfig = LIMITS) -> Finding:
    return judge(drift, fit, limits, "two days")


samples = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=40).map(np.array)


@given(samples, samples)
def test_distance_is_scipys(one: FloatArray, other: FloatArray) -> None:
    assert ks(one, other) == pytest.approx(ks_2samp(one, other, method="asymp").statistic)


def test_stability_index_by_hand() -> None:
    """Deciles of 1 .. 100; all of the newest in the lowest: .9 ln 10 + 9 (.1 - .0001) ln 1000. The same: 0."""
    reference = np.arange(1.0, 101.0)
    assert psi(reference, reference) == pytest.approx(0.0)
    assert psi(reference, np.full(50, 3.0)) == pytest.approx(0.9 * np.log(10) + 9 * (0.1 - 1e-4) * np.log(1000))


def test_values_that_hardly_differ_fall_into_fewer_bins() -> None:
    """Half zeros, half ones, against zeros alone: .5 ln 2 + (.5 - .0001) ln 5000."""
    expected = 0.5 * np.log(2) + (0.5 - 1e-4) * np.log(5000)
    assert psi(np.repeat([0.0, 1.0], 50), np.zeros(10)) == pytest.approx(expected)


def test_a_steady_market_is_called_drifted_about_as_often_as_it_says() -> None:
    """Ten windows: the score 1 time in 11, the volatility 2 in 11."""
    found = [measured(*market(seed)) for seed in range(60)]
    largest = np.mean([drift.score > max(drift.window_scores) for drift in found])
    outside = np.mean(["volatility" in " ".join(judged(drift).reasons) for drift in found])
    assert 0.01 < largest < 0.25
    assert 0.05 < outside < 0.35
    assert np.mean([drift.chance for drift in found]) == pytest.approx(0.5, abs=0.15)


def test_a_feature_that_has_moved_is_named() -> None:
    features, mark = market(1)
    features[-WINDOW:, 1] += 1.0
    drift = measured(features, mark)
    finding = judged(drift)
    assert finding.verdict == "retrain"
    assert len(finding.reasons) == 1
    assert drift.chance == 1 / 11
    assert [found.name for found in by_distance(drift)] == ["b", "a"]
    assert [found.is_unusual for found in by_distance(drift)] == [True, False]
    assert text(finding).startswith("drifted, train again (mean distance ")
    assert "1 of 2 features are further off" in text(finding)
    assert text(finding).endswith("forecasts not judged: no agent has been exported yet")


def test_twice_the_volatility_is_outside_whatever_the_features_say() -> None:
    features, mark = market(2)
    moves = np.diff(np.log(mark), prepend=np.log(mark[0]))
    moves[-WINDOW + 1 :] *= 2.0
    drift = measured(features, 100.0 * np.exp(np.cumsum(moves)))
    (reason,) = judged(drift).reasons
    assert reason.startswith("volatility ")
    assert drift.volatility == pytest.approx(2e-3 * np.sqrt(BARS_PER_YEAR), rel=0.15)


def test_rows_of_missing_bars_count_nowhere() -> None:
    features, mark = market(3)
    before = measured(features, mark)
    wild = features.copy()
    wild[[150, 500, T - 5]] = 0.0
    same = measured(wild, mark)
    wild[[150, 500, T - 5], :2] = 1e6
    assert measured(wild, mark) == same
    assert same.score == pytest.approx(before.score, abs=0.01)


def test_bars_between_the_training_span_and_the_newest_window_count_nowhere() -> None:
    features, mark = market(4)
    before = measured(features, mark)
    features[TRAIN.stop : T - WINDOW, :2] += 100.0
    assert measured(features, mark) == before


def test_the_time_of_day_does_not_drift() -> None:
    features, mark = market(9)
    drift = measure_drift(features, ("a", "hour_sin", "mask"), mark, TRAIN, WINDOW)
    assert [found.name for found in drift.features] == ["a"]


@pytest.mark.parametrize("n_bars", [0, 600, 2100])
def test_too_few_windows_are_named(n_bars: int) -> None:
    features, mark = market(5)
    with pytest.raises(
        DataError, match=r"drift needs 4 windows of .* bars .* was 2,000 of 2,500 bars; lower drift.window_days"
    ):
        measure_drift(features, NAMES, mark, TRAIN, n_bars)


def test_windows_inside_a_gap_are_left_out() -> None:
    features, mark = market(6)
    features[TRAIN.first + 200 : TRAIN.first + 600] = 0.0
    drift = measured(features, mark)
    assert len(drift.window_scores) == 8
    assert np.isfinite([*drift.window_scores, *drift.window_volatilities]).all()


def test_a_window_without_bars_is_named() -> None:
    features, mark = market(6)
    features[-WINDOW:] = 0.0
    with pytest.raises(DataError, match="4 of the training span must hold bars, 10 of the span do"):
        measured(features, mark)


def test_a_score_in_the_middle_of_its_windows_has_a_chance_of_a_half() -> None:
    drift = measured(*market(8))
    middle = replace(
        drift, score=0.15, window_scores=(0.1, 0.2, 0.12, 0.18), window_volatilities=(1.0, 3.0), volatility=2
    )
    assert middle.chance == 3 / 5
    assert judged(middle).verdict == "steady"


STEADY = replace(
    measured(*market(8)), score=0.1, window_scores=(0.05, 0.1, 0.2, 0.3), volatility=0.5, window_volatilities=(0.4, 0.8)
)


@pytest.mark.parametrize(
    ("changes", "limits", "verdict", "reason"),
    [
        ({}, {}, "steady", ""),
        ({"score": 0.3}, {}, "steady", ""),
        ({"score": 0.31}, {}, "retrain", "mean distance 0.310 is above 0.300"),
        ({"score": 0.25}, {"usual_quantile": 2 / 3}, "retrain", "mean distance 0.250 is above 0.200"),
        ({"volatility": 0.81}, {}, "retrain", "volatility 81% is outside 40% to 80%"),
        ({"volatility": 0.39}, {}, "retrain", "volatility 39% is outside 40% to 80%"),
        ({"score": 0.91}, {}, "look_first", "mean distance 0.910 is above drift.stop_ks 0.9"),
        ({}, {"stop_ks": 0.09}, "look_first", "mean distance 0.100 is above drift.stop_ks 0.09"),
        ({}, {"stop_psi": 1e-6}, "look_first", "above drift.stop_psi 1e-06"),
        ({"volatility": 1.61}, {"stop_volatility": 2.0}, "look_first", "volatility 161% is over drift.stop_volatility"),
        ({"volatility": 0.19}, {"stop_volatility": 2.0}, "look_first", "volatility 19% is over drift.stop_volatility"),
        ({"volatility": 1.59}, {"stop_volatility": 2.0}, "retrain", "volatility 159% is outside"),
    ],
)
def test_limits_start_and_stop_a_training(
    changes: dict[str, float], limits: dict[str, float], verdict: str, reason: str
) -> None:
    finding = judged(replace(STEADY, **changes), limits=LIMITS.model_copy(update=limits))  # type: ignore[arg-type]
    assert finding.verdict == verdict
    assert reason in "; ".join(finding.reasons)
    assert bool(finding.reasons) == (verdict != "steady")


@pytest.mark.parametrize(("score", "verdict"), [(1.0, "steady"), (1.01, "retrain")])
def test_forecasts_worse_than_in_every_window_start_a_training(score: float, verdict: str) -> None:
    assert judged(STEADY, Fit(score=score, window_scores=(0.0, 0.4, 1.0))).verdict == verdict


DAY = BARS_PER_DAY
FIRST = 3000
FITTED, TESTED = Span(144, FIRST), Span(FIRST, FIRST + 3 * DAY)
LENGTH = FIRST + 5 * DAY


@dataclass(kw_only=True)
class Normal(FakePolicy):
    """Predicts normal quantiles as wide as the feature log_sigma says."""

    def encode(self, features: Float32Array) -> Encoded:
        encoded = super().encode(features)
        levels = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])
        sigma = np.exp(features[self.lookback_bars - 1 :: self.patch_bars, 1], dtype=np.float64)
        scale = sigma[:, None] * np.sqrt(self.horizons_bars)
        return replace(encoded, quantiles=(scale[..., None] * levels).astype(np.float32))


def rising(train_step: float = 1.0, tested_step: float = 3.0, newest_step: float = 2.0) -> MarketData:
    """A market that rises by so many sigma a bar: outcomes over h bars are step * sqrt(h)."""
    data = make_market(LENGTH)
    steps = np.full(LENGTH, tested_step)
    steps[:FIRST], steps[-DAY:] = train_step, newest_step
    return replace(data, mark=100.0 * np.exp(BAR_SIGMA * np.cumsum(steps)))


def test_loss_of_a_forecast_of_nothing_by_hand() -> None:
    """A quantile loses half of what it misses by, on average over levels.

    One that says 0 misses steps of 3 by 3, and then of 2 by 2; one that knows that steps were 1 by 2, and then by 1.
    """
    fit = measure_fit([FakePolicy()], rising(), FITTED, TESTED, DAY)
    (scalping,) = fit.buckets
    assert (scalping.horizons_bars, scalping.coverage_frac) == ((3, 12, 36), 0.0)
    assert scalping.loss == pytest.approx(2.0 / 1.0)
    assert (scalping.usual_loss, scalping.largest_loss) == (pytest.approx(3.0 / 2.0), pytest.approx(3.0 / 2.0))
    assert scalping.is_unusual
    assert len(fit.window_scores) == 3
    assert fit.score > max(fit.window_scores)


def test_outcomes_at_missing_bars_count_on_neither_side() -> None:
    """With every seventh bar missing the same ratios: a loss of 3/2 by 1/2 in the test span, of 2/2 by 1/2 after it."""
    data = rising()
    present = np.arange(LENGTH) % 7 > 0
    fit = measure_fit([FakePolicy()], replace(data, bars=replace(data.bars, present=present)), FITTED, TESTED, DAY)
    (scalping,) = fit.buckets
    assert scalping.loss == pytest.approx(2.0)
    assert (scalping.usual_loss, scalping.largest_loss) == (pytest.approx(1.5), pytest.approx(1.5))


def test_forecasts_fit_a_steady_market() -> None:
    fit = measure_fit([Normal()], make_market(LENGTH, seed=4), FITTED, TESTED, DAY)
    assert fit.buckets[0].loss == pytest.approx(1.0, abs=0.05)
    assert fit.buckets[0].coverage_frac == pytest.approx(QUANTILE_LEVELS[-1] - QUANTILE_LEVELS[0], abs=0.08)


def test_forecasts_twice_too_wide_start_a_training() -> None:
    data = make_market(LENGTH, seed=4)
    data.features[-DAY:, 1] += np.log(2.0)
    fit = measure_fit([Normal()], data, FITTED, TESTED, DAY)
    assert fit.buckets[0].is_unusual
    assert fit.buckets[0].coverage_frac > 0.97
    finding = judged(STEADY, fit)
    assert finding.verdict == "retrain"
    assert finding.reasons[0].startswith("forecast misfit ")


def test_how_much_worse_forecasts_fit_is_said_on_the_scale_of_the_test_spans_windows() -> None:
    finding = judged(STEADY, Fit(score=0.754, window_scores=(0.0, 0.3, 0.54)))
    assert finding.reasons == ("forecast misfit 0.75 is above 0.54",)
    assert text(finding).endswith(
        "forecast misfit 0.75, of windows up to 0.54 (mean of the buckets, each 0 on its usual window of the test span "
        "and 1 on its worst)"
    )
    assert text(finding).count("usual") == 1


def test_a_score_that_is_not_a_number_is_none_that_is_usual() -> None:
    assert judged(STEADY, Fit(score=np.nan, window_scores=(0.0, 0.54))).reasons == (
        "forecast misfit nan is above 0.54",
    )
    assert judged(replace(STEADY, score=np.nan), Fit()).verdict == "look_first"
    unknown = replace(STEADY, features=(replace(STEADY.features[0], psi=np.nan), *STEADY.features[1:]))
    assert judged(unknown, Fit()).verdict == "look_first"


def test_a_market_gone_wild_is_not_blamed_on_forecasts_that_know_no_less_than_sigma() -> None:
    data = make_market(LENGTH, seed=4)
    moves = np.diff(np.log(data.mark), prepend=np.log(data.mark[0]))
    moves[-DAY:] *= 2.0
    fit = measure_fit([Normal()], replace(data, mark=100.0 * np.exp(np.cumsum(moves))), FITTED, TESTED, DAY)
    assert fit.buckets[0].loss == pytest.approx(1.0, abs=0.05)
    assert fit.buckets[0].coverage_frac < 0.75


def test_a_horizon_that_a_window_hardly_holds_is_left_out() -> None:
    fit = measure_fit([FakePolicy(horizons_bars=(36, 72, 73))], rising(), FITTED, TESTED, DAY)
    assert fit.buckets[0].horizons_bars == (36, 72)


def test_every_bucket_counts_the_same_whatever_its_noise() -> None:
    data = make_market(LENGTH, seed=4)
    one, other = Normal(), Normal(bucket="short", patch_bars=2, horizons_bars=(24, 72))
    scores = [measure_fit([policy], data, FITTED, TESTED, DAY).score for policy in (one, other)]
    fit = measure_fit([one, other], data, FITTED, TESTED, DAY)
    assert fit.score == pytest.approx(np.mean(scores))
    assert [found.bucket for found in fit.buckets] == ["scalping", "short"]


@pytest.mark.parametrize(
    ("policies", "tested", "note"),
    [
        ([], TESTED, "no agent has been exported yet"),
        ([FakePolicy()], Span(FIRST, FIRST - 1 + 2 * DAY), "the test span holds 575 bars, fewer than 2 windows"),
        ([FakePolicy(horizons_bars=(73,))], TESTED, "every horizon is longer than a 4th of the window of 288 bars"),
    ],
)
def test_why_forecasts_are_not_judged_is_told(policies: list[FakePolicy], tested: Span, note: str) -> None:
    fit = measure_fit(policies, rising(), FITTED, tested, DAY)
    assert fit.note == note
    assert judged(STEADY, fit).verdict == "steady"


def test_a_newest_window_without_outcomes_is_told() -> None:
    data = make_market(LENGTH, missing=tuple(range(LENGTH - DAY, LENGTH)))
    assert "scalping has no outcome" in measure_fit([FakePolicy()], data, FITTED, TESTED, DAY).note


def test_a_finding_is_the_same_bytes_each_time_and_its_verdict_is_read_back(tmp_path: Path) -> None:
    fit = measure_fit([FakePolicy()], rising(), FITTED, TESTED, DAY)
    finding = judged(STEADY, fit)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_finding(tmp_path / name, finding)
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    assert read_verdict(tmp_path / "one") == ("retrain", "; ".join(finding.reasons))
    header, row = files["forecasts.csv"].decode().splitlines()
    assert header == "bucket,horizons_bars,loss,usual_loss,largest_loss,coverage_frac,is_unusual"
    assert row.startswith('scalping,"(3, 12, 36)",')
    assert row.endswith(",True")
    with pytest.raises(ArtifactError, match="btcai stage drift"):
        read_verdict(tmp_path / "none")


def test_the_command_reports_and_its_exit_code_tells_a_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, mark = market(7)
    features, mark = np.resize(features, (20 * DAY, 3)), np.resize(mark, 20 * DAY)
    moved = features.copy()
    moved[-DAY:, 0] += 3.0
    bars = SimpleNamespace(close_ts_ns=np.arange(20 * DAY, dtype=np.int64) * BAR_NS)
    data = SimpleNamespace(features=features, feature_names=NAMES, mark=mark, bars=bars)
    splits = SimpleNamespace(train=Span(0, 15 * DAY), test=Span(15 * DAY, 18 * DAY))
    shutil.copy(ROOT / paths.PARAMS, tmp_path)
    for key, value in LIMITS.model_dump().items():
        set_param(tmp_path / paths.PARAMS, f"drift.{key}", str(value))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outputs, "load_whole", lambda root: (data, splits, None))
    steady = CliRunner().invoke(cli.app, ["drift"])
    assert steady.exit_code == 0, steady.output
    data.features = moved
    assert CliRunner().invoke(cli.app, ["drift"]).exit_code == 0
    drifted = CliRunner().invoke(cli.app, ["drift", "--check"])
    assert drifted.exit_code == 3
    assert "forecasts not judged: no agent has been exported yet" in drifted.output
    record = json.loads((tmp_path / paths.DRIFT / "metrics.json").read_text())
    assert (record["verdict"], record["unusual_features"]) == ("retrain", 1)
    assert record["days"] == "1970-01-20 .. 1970-01-20, 288 bars"
    assert not [name for name in record if "loss" in name]  # what forecasts earn on sealed bars is no metric to compare
    table = (tmp_path / paths.DRIFT / "table.csv").read_text()
    assert table.startswith("name,psi,ks,usual_ks,largest_ks,is_unusual\na,")
    assert (tmp_path / paths.DRIFT / "drift.png").read_bytes().startswith(b"\x89PNG")
    shown = {path.name: path.read_bytes() for path in (tmp_path / paths.DRIFT).iterdir()}
    stages.run_stage("drift", load_config(tmp_path / paths.PARAMS), tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / paths.DRIFT).iterdir()} == shown
    set_param(tmp_path / paths.PARAMS, "drift.stop_ks", "0.3")
    stopped = CliRunner().invoke(cli.app, ["drift", "--check"])
    assert stopped.exit_code == 4
    assert "look at them before anything is trained" in stopped.output
