"""`btcai bench serve`: what it times, and that what was lost or wrong in a soak is found."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from export_fakes import exported, hand_made_bundle, loud_bundle, market, newest_bars
from serving_fakes import champion, cut

from bench import serve, serve_soak
from bench.line import Line
from bench.serve_http import accounts
from bench.serve_soak import Soak, Soaked
from bench.stopwatch import Stopwatch
from btcai import paths
from btcai.errors import ArtifactError
from btcai.inference.bundle import load_bundle, read_graphs
from btcai.inference.decision import decide
from btcai.params import load_config
from btcai.schema import BUCKETS, Action
from btcai.serving import shelf
from btcai.serving.service import answer
from btcai.serving.shelf import Placed
from btcai.summary import decision_json

SIZE = serve.Size(decisions=3, steps=2)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for bucket in BUCKETS:
        champion(root, bucket)
    return root


@pytest.fixture
def measured(project: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Line]]:
    monkeypatch.setattr(serve, "trading_market", lambda: ("small", market()))
    config = load_config(root / paths.PARAMS)
    return {
        part: list(serve.lines(Stopwatch(1, patience_s=0), config, project, (part,), SIZE))
        for part in ("decide", "live")
    }


@pytest.mark.slow
def test_decisions_are_held_against_the_bare_graphs_and_a_live_step_against_20_ms(
    measured: dict[str, list[Line]],
) -> None:
    names = [line.name for line in measured["decide"]]
    assert names[:6] == [
        "scalping, a decision, flat, median of 3",
        "scalping, a decision, flat, 99th percentile of 3",
        "scalping, a decision, one lot open, median of 3",
        "scalping, a decision, one lot open, 99th percentile of 3",
        "scalping, a decision, a lot bought, median of 3",
        "scalping, a decision, a lot bought, 99th percentile of 3",
    ]
    assert len(names) == 24
    for line in measured["decide"]:
        assert (line.reference, line.goal) == ("session.run of encoder and head", "ratio <= 1.2")
        assert line.ratio is not None
        assert line.ratio > 0
        assert line.more["torch_eager_ms"] is None  # no networks beside these champions
        assert "torch was not timed" in (line.note or "")
    steps = measured["live"]
    assert [line.name for line in steps[-2:]] == [
        "long, a bar's live step, median of 2",
        "long, a bar's live step, 99th percentile of 2",
    ]
    for line in steps:
        parts = [line.more[f"{part}_ms"] for part in ("features", "inference", "reasoning")]
        assert all(isinstance(part, float) and part > 0 for part in parts)
        assert line.goal == "value <= 20"


def test_the_buyer_buys_what_the_bundle_would_not_at_the_size_of_its_own_forecast(tmp_path: Path) -> None:
    bars = newest_bars(market().bars, 9000, 2400)
    asking = load_bundle(hand_made_bundle(tmp_path / "asking"))
    idle = load_bundle(hand_made_bundle(tmp_path / "idle", logits=(1.0, 0.0, 0.0, 0.0)))
    bought = decide(serve._Buyer(idle.folder, idle.manifest, read_graphs(idle.folder, idle.manifest)), bars)
    assert decide(idle, bars).action is Action.HOLD
    assert (bought.action, bought.size_frac) == (Action.BUY, decide(asking, bars).size_frac)
    assert bought.size_frac > 0


def test_without_a_champion_the_command_that_makes_one_is_named(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "_SWAP_S", 0.0)
    with pytest.raises(ArtifactError, match=r"no champion in .*champion/scalping; make one with: btcai run"):
        next(serve.lines(Stopwatch(1), load_config(root / paths.PARAMS), tmp_path, ("decide",), SIZE))


def answers_of(folder: Path, stop: int) -> tuple[Soaked, str]:
    """A soak in which that bundle answered one question."""
    bundle = load_bundle(folder)
    described = accounts(float(market().bars.close[8_000]))
    decision = decide(bundle, cut(market().bars, stop, 6_076), described[1])
    placed = Placed(bundle=bundle, standing=None, memory=None, weights=None, since_ns=0)
    found = Soaked()
    serve_soak._keep(found, "scalping", 1, json.loads(json.dumps(answer(decision, placed))))
    return found, decision_json(decision, None)


def checked(found: Soaked, one: Path, other: Path) -> list[str]:
    described = accounts(float(market().bars.close[8_000]))
    serve_soak._check(found, market().bars, {"scalping": (one, other)}, described)
    return found.faults


def test_a_soak_holds_every_answer_against_the_decision_of_its_version(tmp_path: Path) -> None:
    one, other = loud_bundle(tmp_path / "one", seed=0), loud_bundle(tmp_path / "other", seed=1)
    found, _ = answers_of(one, 9_000)
    assert checked(found, one, other) == []
    assert found.checked == 1
    found, text = answers_of(one, 9_000)
    (key,) = found.answers
    found.answers[key] = text.replace('"size_frac": ', '"size_frac": 1')
    assert "decides" in checked(found, one, other)[0]
    found, text = answers_of(one, 9_000)
    followed = json.loads(found.answers[key]) | {"intervals": "adaptive"}
    followed["forecasts"][0]["quantiles"] = [value - 1e-3 for value in followed["forecasts"][0]["quantiles"]]
    found.answers[key] = json.dumps(followed)
    assert checked(found, one, other) == []
    found.answers[key] = json.dumps(followed | {"intervals": "static"})
    assert "decides" in checked(found, one, other)[0]
    found, text = answers_of(one, 9_000)
    followed["forecasts"][0]["quantiles"].reverse()
    found.answers[key] = json.dumps(followed)
    assert "decides" in checked(found, one, other)[0]
    found, text = answers_of(one, 9_000)
    stranger = loud_bundle(tmp_path / "stranger", seed=2)
    assert "which was never its champion" in checked(found, other, stranger)[0]


def test_two_answers_to_one_question_and_an_error_are_faults(tmp_path: Path) -> None:
    found, text = answers_of(loud_bundle(tmp_path), 9_000)
    said = json.loads(text)
    serve_soak._keep(found, "scalping", 1, {**said, "value": said["value"] + 1})
    serve_soak._keep(found, "scalping", 1, {"bucket": "scalping", "error": "gone"})
    assert "two answers to one question" in found.faults[0]
    assert found.faults[1] == "scalping: gone"


def test_an_answer_that_is_none_is_noticed() -> None:
    with pytest.raises(AssertionError, match="503 busy"):
        serve_soak.told(httpx.Response(503, text="busy"))


def test_a_bundle_without_weights_to_vary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"head.onnx has no weights to vary"):
        serve_soak.varied(loud_bundle(tmp_path / "one"), tmp_path / "other")


@pytest.mark.slow
def test_a_varied_bundle_is_another_version_that_decides_otherwise(tmp_path: Path) -> None:
    one = exported("medium")[1]
    plain, other = load_bundle(one), load_bundle(serve_soak.varied(one, tmp_path / "other"))
    bars = cut(market().bars, 9_000, 6_000)
    assert plain.version != other.version
    assert decide(plain, bars).probabilities != decide(other, bars).probabilities
    assert decide(plain, bars).forecasts == decide(other, bars).forecasts


@pytest.mark.slow
def test_nothing_is_lost_in_25_seconds_under_load_with_swaps_and_broken_champions(tmp_path: Path) -> None:
    pairs = {
        bucket: tuple(loud_bundle(tmp_path / f"{bucket}-{seed}", bucket, seed=seed) for seed in (0, 1))
        for bucket in ("scalping", "short")
    }
    soak = Soak(seconds=25.0, bar_s=0.5, swap_s=0.7, corrupt_every=4)
    found = serve_soak.soaked(tmp_path, market().bars, pairs, soak)  # type: ignore[arg-type]
    assert found.faults == []
    assert found.requests > 200
    assert found.checked > 50
    assert len(found.by_version) == 4
    assert min(found.by_version.values()) > 20  # each version answered
    assert found.swapped >= 10
    assert found.refused >= 4
    assert found.rss_last_mb < found.rss_first_mb + 100


def test_a_soak_says_how_it_went() -> None:
    facts = replace(Soaked(), requests=3, took_ms=[1.0, 2.0, 9.0]).facts()
    assert (facts["requests"], facts["median_ms"]) == (3, 2.0)
