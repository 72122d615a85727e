"""The page's third part: what each bucket was handed, trained and came to read, and what every choice is worth."""

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from btcai.report.agreement import WORDS, agreement, shown_first
from btcai.report.curves import MEASURES
from btcai.report.drawing import Picture
from btcai.report.evidence import Evidence
from btcai.report.formats import UNDEFINED, between, percent, ratio
from btcai.report.learning_figures import handed_frac
from btcai.report.markup import Section, aside, cell, picture, row, section, table

_READ_TRAINING = """<p>Every update of every phase, in order. Kept are the latest weights that score no worse on the
validation span than the best ones by a standard error, returns that no forecast knew left out; consolidation is kept
only where it scores better. The test span plays no part.</p>"""

_TOP = 8
"""Features that are shown of each bucket."""

_READ_GATES = f"""<p>The {_TOP} features that each judged network lets in most, each with its share of the learned
selection; the shares of all features add up to 100 %. A share says how much of a feature the network reads, not what
it earns by it; features that tell the same share one place.</p>"""

_READ_MEASURES = """<p>Gates: the share of its learned selection that the network gives a feature. Permutation: how much
the prediction loss on the validation span rises when the feature's column comes from another time, the rest staying
where it is. Integrated gradients: how much of the shortest horizon's mean forecast is due to the feature, against one
at its mean; whatever its sign, on average over validation windows.</p>"""

_READ_TRANSFER = """<p>Each bucket starts from what the one before it knows. The loss is the Student-t's and the pinball
loss of the forecasts on the validation span; what the hand-over alone takes off it needs no training.</p>"""

_NO_ABLATION = "Nothing was compared here yet: btcai ablate trains what is configured beside each choice changed."
_NO_MEASURES = "Permutation and integrated gradients were not measured: make them with btcai stage consolidate."


def learning_sections(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[Section]:
    """Hand-over, training, features, ablation."""
    return [
        section("What was trained", *_trained(evidence, pictures)),
        section("Learning curves", _READ_TRAINING, picture(pictures.get("training.png"))),
        section("Features", *_features(evidence, pictures)),
        section("Ablation", *_ablation(evidence.ablation, pictures)),
    ]


def _trained(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[str]:
    if not evidence.trained:
        return []
    return [_READ_TRANSFER, picture(pictures.get("figures/transfer.png")), _effort(evidence.trained)]


def _effort(trained: Mapping[str, Mapping[str, Any]]) -> str:
    """What each bucket trained, whether that converged, and what its forecasts lose."""
    heads = (
        "bucket",
        "rounds",
        "converged",
        "updates: prediction + PPO",
        "decision times",
        "env steps",
        "loss from scratch",
        "as handed over",
        "trained",
        "hand-over's share",
        "consolidation kept: validation score",
    )
    return table(heads, [row(bucket, _effort_cells(found)) for bucket, found in trained.items()])


def _effort_cells(found: Mapping[str, Any]) -> list[str]:
    converged = {None: "not asked", 0.0: "no", 1.0: "yes"}[found.get("converged")]
    updates = (_number(found.get(f"{phase}_updates"), 0) for phase in ("pretrain", "ppo"))
    losses = ("valid_forecast_loss_fresh", "valid_forecast_loss_handed_over", "valid_forecast_loss")
    return [
        cell(_number(found.get("rounds"), 0)),
        cell(converged),
        cell(" + ".join(updates)),
        *(cell(_number(found.get(name), 0)) for name in ("decision_times", "env_steps")),
        *(cell(_number(found.get(name), 4)) for name in losses),
        cell(percent(handed_frac(found), 0)),
        _consolidated(found),
    ]


def _consolidated(found: Mapping[str, Any]) -> str:
    """Rounds that were kept and what the score became, "1: -0.0100 to 0.0200"; "none" where none was."""
    kept, before, after = (found.get(name) for name in ("rounds_kept", "valid_score_before", "valid_score_after"))
    if not kept or before is None or after is None:
        return cell("none" if kept == 0.0 else UNDEFINED)
    return cell(f"{kept:.0f}: {ratio(before, 4)} to {ratio(after, 4)}", float(after) - float(before))


def _number(value: float | None, digits: int) -> str:
    return UNDEFINED if value is None else ratio(value, digits)


def _features(evidence: Evidence, pictures: Mapping[str, Picture]) -> list[str]:
    measured = {bucket: rows for bucket, rows in evidence.measures.items() if len(rows)}
    if not measured:
        return [_READ_GATES, _gates(evidence.importance), aside(_NO_MEASURES)]
    words = "".join(
        f"<dt>{escape(bucket)}</dt><dd>{escape(agreement(rows).text)}</dd>" for bucket, rows in measured.items()
    )
    return [
        _READ_MEASURES,
        picture(pictures.get("figures/importance.png")),
        f"<h3>Do they agree?</h3><dl>{words}</dl>",
        *(f"<h3>{escape(bucket)}</h3>{_measured(rows)}" for bucket, rows in measured.items()),
    ]


def _measured(rows: pd.DataFrame) -> str:
    """The features with the largest mean share; the loss that permutation adds is green where surely above chance."""
    costly = agreement(rows).costly
    body = []
    for one in shown_first(rows, _TOP).to_dict("records"):
        surely = float(one["feature"] in costly)
        cost = f"{ratio(1e4 * one['permutation'], 1)} +- {ratio(1e4 * one['permutation_error'], 1)}"
        cells = [
            cell(percent(one["gates"])),
            cell(cost, surely),
            cell(ratio(100 * one["integrated_gradients"], 2)),
            cell(f"{one['twin']} ({ratio(one['twin_correlation'])})"),
        ]
        body.append(row(str(one["feature"]), cells))
    heads = (
        "feature",
        f"{WORDS[MEASURES[0]]}, share",
        "loss added by permutation, 1/10,000",
        "integrated gradients, 1/100 of sigma x root of horizon",
        "feature most like it (correlation)",
    )
    return table(heads, body)


def _gates(buckets: Mapping[str, Mapping[str, float]]) -> str:
    """A column per bucket, its strongest features from the top, each on a bar of its share; features alike by name."""
    tops = {
        bucket: sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
        for bucket, shares in buckets.items()
    }
    most = max((share for top in tops.values() for _, share in top), default=1.0)
    heads = [f"{bucket} (each alike: {percent(1 / len(shares))})" for bucket, shares in buckets.items()]
    body = []
    for place in range(max(map(len, tops.values()), default=0)):
        cells = (_bar(*top[place], most) if place < len(top) else "<td></td>" for top in tops.values())
        body.append(row(str(place + 1), cells))
    return table(["", *heads], body)


def _bar(name: str, share: float, most: float) -> str:
    return f'<td class="bar" style="--share: {100 * share / most:.1f}%">{escape(name)} {percent(share)}</td>'


def _ablation(scores: pd.DataFrame, pictures: Mapping[str, Picture]) -> list[str]:
    """The picture, and every row with the largest budget of its subject."""
    if scores.empty:
        return [aside(_NO_ABLATION)]
    most = scores[scores["share"] == scores.groupby("subject")["share"].transform("max")]
    body = []
    for one in most.to_dict("records"):
        gain, low, high = (float(one[name]) for name in ("gain", "gain_low", "gain_high"))
        sign = {"better": 1.0, "worse": -1.0}.get(str(one["verdict"]), 0.0)
        cells = [
            cell(str(one["bucket"])),
            cell(str(one["arm"])),
            cell(f"{one['seeds']:.0f}"),
            cell(ratio(float(one["score"]), 3)),
            cell(f"{ratio(gain, 3)} ({between(low, high, 3)})" if gain == gain else UNDEFINED, sign),
            cell(UNDEFINED if pd.isna(one["verdict"]) else str(one["verdict"])),
        ]
        body.append(row(str(one["subject"]), cells))
    heads = ("on", "bucket", "arm", "seeds", "score", "gain (95 %)", "verdict")
    return [picture(pictures.get("figures/ablation.png")), table(heads, body)]
