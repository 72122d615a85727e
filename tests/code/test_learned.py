"""What a version's explanations recall and weigh stays with it: over a rollback, and beside newer candidates."""

import json
from pathlib import Path

import pytest
from learned_fakes import learn
from registry_fakes import project, register
from registry_kept import BUCKET, KeptRegistry, kept_registry
from serving_fakes import app_of, new_service, raw_rows, talk

from btcai import paths
from btcai.inference.bundle import load_bundle
from btcai.reasoning.components import COMPONENTS
from btcai.records import versions as terms
from btcai.reflection import ADJUSTMENT, MEMORY, Learned, learned_for
from btcai.registry import promotion, recording, succession, tracking, verification
from btcai.serving.shelf import Shelf

CHAMPION = paths.CHAMPION / BUCKET


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 2 is champion after 1; 3, the newest, lost. Each learned something; the last run left what 3 did."""
    client = kept_registry(tmp_path, {1: 0.1, 2: 0.3, 3: 0.2}, {"champion": 1, "challenger": 3})
    for number in (1, 2, 3):
        run = tmp_path / f"run{number}"
        learn(run / paths.LEARNED, load_bundle(run / "bundle"), float(number))
    learn(tmp_path / paths.REFLECTION / BUCKET, load_bundle(tmp_path / "run3/bundle"), 3.0)
    for number in (1, 2):
        chosen = succession.version(client, BUCKET, number)
        succession.install(client, tmp_path, chosen, kind="rule", because="best", pin=None)
    monkeypatch.setattr(tracking, "read_client", KeptRegistry)
    return tmp_path


def shelf_of(root: Path) -> Shelf:
    shelf = Shelf(root, (BUCKET,))
    shelf.refresh()
    return shelf


def learned_by(shelf: Shelf) -> Learned:
    placed = shelf.placed(BUCKET)
    return Learned(placed.memory, placed.weights)


def mark_of(learned: Learned) -> float:
    """Of which version it is, by its first weight; its memory must be there too."""
    assert learned.memory is not None
    assert learned.weights is not None
    return learned.weights[COMPONENTS[0]]


def test_a_champion_recalls_what_it_learned_beside_a_newer_candidate_and_after_a_rollback(
    root: Path,
) -> None:
    shelf = shelf_of(root)
    assert mark_of(learned_by(shelf)) == 2.0
    for command, wanted in ((promotion.rollback, 1.0), (promotion.rollback, 2.0)):
        command(root, BUCKET, "it loses")
        shelf.refresh()
        found = learned_by(shelf)
        assert mark_of(found) == wanted
        assert found.memory is not None
        assert found.memory.model_version == shelf.placed(BUCKET).bundle.version
    promotion.promote(root, BUCKET, 3, "a try")
    shelf.refresh()
    assert mark_of(learned_by(shelf)) == 3.0


def test_after_a_rollback_a_decision_is_explained_with_the_memory_of_its_version(root: Path) -> None:
    promotion.rollback(root, BUCKET, "it loses")
    body = {"bucket": BUCKET, "explain": True, "bars": raw_rows(9_000, 2_400)}
    (response,) = talk(app_of(new_service(root, BUCKET)), ("POST", "/v1/decide", body))
    reasoning = response.json()["reasoning"]
    assert reasoning["model_version"] == load_bundle(root / "run1/bundle").version
    assert reasoning["recalled"] is not None


def test_what_was_learned_for_another_version_or_is_damaged_is_not_used_and_the_log_says_why(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = root / CHAMPION
    version, kept = load_bundle(folder).version, folder / paths.LEARNED
    assert mark_of(learned_for(version, folder)) == 2.0
    assert caplog.text == ""
    assert learned_for(load_bundle(root / "run1/bundle").version, folder) == Learned()
    assert (
        "short: explained without memory and with equal weights: nothing was kept with this version; make one"
        in caplog.text
    )
    learned = json.loads((kept / ADJUSTMENT).read_text(encoding="utf-8"))
    (kept / ADJUSTMENT).write_text(json.dumps(learned | {"after": learned["after"][1:]}), encoding="utf-8")
    assert learned_for(version, folder) == Learned()
    assert "7 components, 7 weights before and 6 after" in caplog.text
    (kept / MEMORY).write_bytes(b"torn")
    assert learned_for(version, folder) == Learned()


def test_what_is_damaged_is_named_and_mended_and_then_in_use_without_a_swap(root: Path) -> None:
    kept = root / CHAMPION / paths.LEARNED
    (kept / MEMORY).write_bytes(b"torn")
    events: list[tuple[str, str]] = []
    shelf = Shelf(root, (BUCKET,), lambda *event: events.append(event))
    shelf.refresh()
    held = shelf.placed(BUCKET)
    assert learned_by(shelf) == Learned()
    (found,) = [check.said for check in verification.verify(root, BUCKET) if not check.ok]
    assert f"different: {paths.LEARNED}/{MEMORY}; mend it with: btcai registry verify --mend" in found
    assert verification.mend(root, BUCKET) == ["short: the files of version 2 are back from the record"]
    shelf.refresh()
    assert mark_of(learned_by(shelf)) == 2.0
    assert shelf.placed(BUCKET).bundle is held.bundle
    assert events == []


def test_weights_of_other_components_than_this_btcais_cost_no_decision(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learn(root / CHAMPION / paths.LEARNED, load_bundle(root / CHAMPION), 2.0, ("astrology", *COMPONENTS[1:]))
    shelf = shelf_of(root)
    assert shelf.placed(BUCKET).bundle.version == load_bundle(root / CHAMPION).version
    assert learned_by(shelf) == Learned()
    assert "must weigh the components of this btcai, differs in astrology, " in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_a_run_keeps_what_each_version_learned_and_its_bundle_is_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (recording, tracking):
        monkeypatch.setattr(module, "BUCKETS", (BUCKET,))
    monkeypatch.setattr(terms, "judged_on", lambda config, data_version: "terms")
    left = tmp_path / paths.REFLECTION / BUCKET
    for weight, score in ((1.0, 0.2), (2.0, 0.1)):  # the second one loses
        config = project(tmp_path, weight=weight)
        learn(left, load_bundle(tmp_path / paths.CANDIDATE / BUCKET), weight)
        register(tmp_path, config, score)
        folder = tmp_path / CHAMPION
        assert mark_of(learned_for(load_bundle(folder).version, folder)) == 1.0
    parents = [register(tmp_path, config, score)["parent_run_id"] for _ in range(2)]
    learn(left, load_bundle(tmp_path / paths.CANDIDATE / BUCKET), 3.0)  # the same bundle learns anew
    parents.append(register(tmp_path, config, score)["parent_run_id"])
    assert parents[0] == parents[1] != parents[2]
    promotion.promote(tmp_path, BUCKET, 3, "it trades less")
    assert mark_of(learned_for(load_bundle(folder).version, folder)) == 3.0
    assert (folder / paths.LEARNED / MEMORY).read_bytes() == (left / MEMORY).read_bytes()
    for file in (tmp_path / paths.CANDIDATE / BUCKET).iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    assert [check.said for check in verification.verify(tmp_path, BUCKET) if not check.ok] == []
