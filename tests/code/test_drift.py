"""Drift: distances against scipy, windows against each other, and the command."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from typer.testing import CliRunner

from btcai import cli, paths, stages
from btcai.errors import DataError
from btcai.schema import BAR_NS, BARS_PER_YEAR, Float32Array, FloatArray, Span
from btcai.watch.drift import Drift, ks, measure_drift, psi
from btcai.watch.report import by_distance, verdict

WINDOW, TRAIN = 200, Span(100, 2100)
T = 2500
NAMES = ("a", "b", "mask")


def market(seed: int) -> tuple[Float32Array, FloatArray]:
    """Features and mark of bars that are all alike."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([rng.standard_normal((T, 2)), np.ones(T)]).astype(np.float32)
    return features, 100.0 * np.exp(np.cumsum(1e-3 * rng.standard_normal(T)))


def measured(features: Float32Array, mark: FloatArray) -> Drift:
    return measure_drift(features, NAMES, mark, TRAIN, WINDOW)


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
    outside = np.mean([drift.is_outside for drift in found])
    assert 0.01 < largest < 0.25
    assert 0.05 < outside < 0.35
    assert np.mean([drift.chance for drift in found]) == pytest.approx(0.5, abs=0.15)


def test_a_feature_that_has_moved_is_named() -> None:
    features, mark = market(1)
    features[-WINDOW:, 1] += 1.0
    drift = measured(features, mark)
    assert drift.has_drifted
    assert drift.chance == 1 / 11
    assert [found.name for found in by_distance(drift)] == ["b", "a"]
    assert [found.is_unusual for found in by_distance(drift)] == [True, False]
    assert "1 of 2 features are further off" in verdict(drift)


def test_twice_the_volatility_is_outside_whatever_the_features_say() -> None:
    features, mark = market(2)
    moves = np.diff(np.log(mark), prepend=np.log(mark[0]))
    moves[-WINDOW + 1 :] *= 2.0
    drift = measured(features, 100.0 * np.exp(np.cumsum(moves)))
    assert drift.is_outside
    assert drift.has_drifted
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
        DataError, match=r"drift needs 4 windows of .* bars .* was 2,000 of 2,500 bars; take fewer days"
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


def test_the_command_reports_and_its_exit_code_tells_a_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, mark = market(7)
    days = 288
    features, mark = np.resize(features, (20 * days, 3)), np.resize(mark, 20 * days)
    moved = features.copy()
    moved[-days:, 0] += 3.0
    bars = SimpleNamespace(close_ts_ns=np.arange(20 * days, dtype=np.int64) * BAR_NS)
    data = SimpleNamespace(features=features, feature_names=NAMES, mark=mark, bars=bars)
    splits = SimpleNamespace(train=Span(0, 15 * days))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "load_features", lambda root: (data, splits, None))
    steady = CliRunner().invoke(cli.app, ["drift", "--days", "1"])
    assert steady.exit_code == 0, steady.output
    data.features = moved
    assert CliRunner().invoke(cli.app, ["drift", "--days", "1"]).exit_code == 0
    drifted = CliRunner().invoke(cli.app, ["drift", "--days", "1", "--check"])
    assert drifted.exit_code == 3
    assert "drifted: 1 of 2 features" in drifted.output
    record = json.loads((tmp_path / paths.DRIFT / "metrics.json").read_text())
    assert (record["drifted"], record["unusual_features"], record["days"]) == (True, 1, "1970-01-20 to 1970-01-20")
    table = (tmp_path / paths.DRIFT / "table.csv").read_text()
    assert table.startswith("name,psi,ks,usual_ks,largest_ks,is_unusual\na,")
    assert (tmp_path / paths.DRIFT / "drift.png").read_bytes().startswith(b"\x89PNG")


def test_a_score_in_the_middle_of_its_windows_has_a_chance_of_a_half() -> None:
    drift = measured(*market(8))
    middle = replace(drift, score=1.5, window_scores=(1.0, 2.0, 1.2, 1.8))
    assert middle.chance == 3 / 5
    assert not replace(middle, volatility=float(np.median(drift.window_volatilities))).has_drifted
