"""The report's small multiples: what is drawn, and what is said where there is nothing to draw."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from report_fakes import curves_of, forecast_record

from btcai.errors import ArtifactError
from btcai.pictures import png_bytes
from btcai.report.curves import read_ablation, read_curves, read_importance, read_measures, read_trained
from btcai.report.panels import calibration_figure, training_figure


def lines(axes: Axes) -> list[list[float]]:
    """The values of every line with any."""
    return [values.tolist() for line in axes.lines if len(values := np.asarray(line.get_ydata(), float))]


def said(axes: Axes) -> str:
    return " ".join(text.get_text() for text in axes.texts)


def training_panels(prediction: int, ppo: int, consolidation: int) -> list[Axes]:
    """Forecast loss, score, entropy and KL of one bucket."""
    figure = training_figure({"scalping": curves_of(prediction, ppo, consolidation)}, "title")
    assert png_bytes(figure).startswith(b"\x89PNG")
    return figure.axes


def test_every_phase_is_a_line_of_its_own() -> None:
    loss, score, entropy, kl = training_panels(3, 2, 2)
    assert lines(loss) == [pytest.approx([2.0, 1.9, 1.8]), [1.5], [1.5, 1.5], [1.5, 1.5]]
    assert lines(score) == [[-0.01], [0.0], [-0.01], [0.0]]  # of each phase the score, then the net return
    assert lines(entropy) == [[1.0, 1.0], [1.0, 1.0]]
    assert kl.get_yscale() == "log"
    # Updates count on from phase to phase: the last line is consolidation's two, after three and two.
    assert np.asarray(kl.lines[-1].get_xdata()).tolist() == [6, 7]
    assert loss.get_xlim() == (0.5, 7.5)


def test_a_score_of_zero_is_measured() -> None:
    _, score, *_ = training_panels(0, 2, 0)
    assert [0.0] in lines(score)
    assert "not measured" not in said(score)


def test_a_bucket_that_only_learned_to_predict_has_no_policy_curves() -> None:
    loss, *policy = training_panels(4, 0, 0)
    assert said(loss) == ""
    assert [said(axes) for axes in policy] == ["not measured"] * 3


def test_a_bucket_that_trained_nothing_says_so() -> None:
    assert [said(axes) for axes in training_panels(0, 0, 0)] == ["not measured"] * 4


def test_forecasts_with_few_outcomes_are_drawn_but_not_judged() -> None:
    horizons = tuple(forecast_record(h, apart) for h, apart in ((3, 900), (36, 29), (288, 0)))
    figure = calibration_figure({"scalping": horizons, "long": horizons[:1]}, "title")
    many, alone, few, absent_2, none, absent_3 = figure.axes
    assert said(many) == "15 min 900 outcomes apart\n90 % interval\nholds 90 %\nadaptive 90 %"
    assert said(few) == "3 h 29 outcomes apart:\ntoo few to judge"
    assert said(none) == "1 d no outcome ends\ninside the span"
    assert [len(axes.lines) for axes in (many, few, none)] == [3, 3, 1]  # the diagonal, what was seen of two forms
    assert alone.axison
    assert not absent_2.axison
    assert not absent_3.axison
    assert png_bytes(figure) == png_bytes(figure)


def test_curves_of_both_stages_follow_each_other(tmp_path: Path) -> None:
    train, consolidate = tmp_path / "train" / "short", tmp_path / "consolidate" / "short"
    for folder, text in (
        (train, "phase,update,forecast_loss,kl\nshort: prediction,1,2.0,\nshort: PPO,1,,0.01\n"),
        (consolidate, "phase,update,kl\nshort: consolidation 1,1,0.02\n"),
    ):
        folder.mkdir(parents=True)
        (folder / "curves.csv").write_text(text, encoding="utf-8")
    rows = read_curves(train, consolidate)
    assert rows["phase"].tolist() == ["prediction", "PPO", "consolidation 1"]
    assert rows["kl"].tolist()[1:] == [0.01, 0.02]
    assert rows.index.tolist() == [0, 1, 2]


def test_no_updates_at_all_give_empty_curves(tmp_path: Path) -> None:
    for name in ("train", "consolidate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "curves.csv").write_text("phase,update\n", encoding="utf-8")
    assert len(read_curves(tmp_path / "train", tmp_path / "consolidate")) == 0


def test_missing_curves_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="make it with: btcai stage train@short"):
        read_curves(tmp_path / "short", tmp_path)
    with pytest.raises(ArtifactError, match=r"importance\.csv not found; make it with: btcai stage consolidate"):
        read_importance(tmp_path)


def test_measures_are_read_where_they_were_made(tmp_path: Path) -> None:
    table = "feature,importance,permutation,permutation_error,integrated_gradients,twin,twin_correlation\n"
    (tmp_path / "importance.csv").write_text(table + "a,0.6,0.01,0.001,0.2,b,0.5\n", encoding="utf-8")
    assert read_importance(tmp_path) == {"a": 0.6}
    assert read_measures(tmp_path).to_dict("records")[0]["gates"] == 0.6
    (tmp_path / "importance.csv").write_text("feature,importance\na,0.6\n", encoding="utf-8")
    assert read_measures(tmp_path).empty


def test_what_was_trained_is_read_beside_what_consolidation_kept(tmp_path: Path) -> None:
    train, consolidate = tmp_path / "train" / "short", tmp_path / "consolidate" / "short"
    for folder, text in (
        (train, '{"rounds": 2, "valid_score": 0.1, "converged": null}'),
        (consolidate, '{"valid_score_before": 0.1, "valid_score": 0.3, "rounds_kept": 1.0}'),
    ):
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(text, encoding="utf-8")
    found = read_trained(train, consolidate)
    assert (found["rounds"], found["converged"], found["valid_score_after"]) == (2, None, 0.3)
    with pytest.raises(ArtifactError, match="make it with: btcai stage train@long"):
        read_trained(tmp_path / "train" / "long", consolidate)


def test_ablations_of_all_subjects_follow_each_other(tmp_path: Path) -> None:
    assert read_ablation(tmp_path).empty
    for subject in ("two-scale", "market", "empty"):
        (tmp_path / subject).mkdir()
        row = "" if subject == "empty" else f"{subject},all\n"
        (tmp_path / subject / "scores.csv").write_text(f"subject,bucket\n{row}", encoding="utf-8")
    assert read_ablation(tmp_path)["subject"].tolist() == ["market", "two-scale"]
