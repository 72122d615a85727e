"""The champion on disk beside the record: what differs is named and mended; what was put there by hand stays."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from export_fakes import frame
from registry_fakes import project, register
from registry_kept import BUCKET, KeptRegistry, kept_registry
from rich.console import Console, RenderableType

from btcai import paths
from btcai.doctor import checkup, services
from btcai.errors import ArtifactError
from btcai.records import promotions
from btcai.records import versions as terms
from btcai.records.champions import is_whole
from btcai.records.promotions import Change, Seats
from btcai.registry import promotion, recording, self_check, succession, tracing, tracking, verification, view
from btcai.registry.garbage import Plan
from btcai.registry.verification import Check

CHANGE = Change(
    kind="promote",
    bucket=BUCKET,
    before=Seats(champion=1),
    after=Seats(champion=2, previous=1, pinned=2),
    because="it trades less",
    model_version="m" * 12,
    manifest_sha256="f" * 64,
    who="ops",
    id="0123456789ab",
    began_unix_s=1_700_000_000,
)


def printed(view: RenderableType) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_the_views_say_who_why_and_what_is_wrong() -> None:
    entries = [promotions.Entry(change=CHANGE, outcome=outcome) for outcome in ("done", None, None)]
    lines = printed(view.history_view(entries)).splitlines()
    row = "2023-11-14 22:13:20 short promote 1 2 ops it trades less done"
    assert row in {" ".join(line.split()) for line in lines}
    assert ["not on record" in line for line in lines if "it trades less" in line] == [False, True, False]
    assert ["interrupted: btcai registry verify --mend" in line for line in lines][-3:].count(True) == 1
    checks = [
        Check(bucket="short", what="files", ok=False, said="must hold"),
        Check(bucket="s", what="w", ok=True, said=""),
    ]
    text = printed(view.checks_view(checks))
    assert "wrong" in text
    assert "must hold" in text
    empty = printed(view.garbage_view(Plan(drop=(), stay=(), cache=((Path("x"), 2_500_000),)), dry=True))
    assert "0 runs and 1 files of DVC's cache (2.5 MB): 2.5 MB" in empty


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with version 2 as champion, held by nobody."""
    client = kept_registry(tmp_path, {1: 0.1, 2: 0.2}, {"champion": 1, "challenger": 2})
    succession.install(client, tmp_path, succession.version(client, BUCKET, 2), kind="rule", because="best", pin=None)
    monkeypatch.setattr(tracking, "read_client", KeptRegistry)
    return tmp_path


def wrong(root: Path) -> dict[str, str]:
    return {check.what: check.said for check in verification.verify(root, BUCKET) if not check.ok}


def test_a_right_champion_passes_every_check_and_mending_does_nothing(placed: Path) -> None:
    assert wrong(placed) == {}
    assert verification.mend(placed, BUCKET) == []
    assert len(promotion.history(placed)) == 1


def test_a_damaged_graph_is_named_and_brought_back(placed: Path) -> None:
    folder = placed / paths.CHAMPION / BUCKET
    (folder / "head.onnx").write_bytes(b"cut")
    found = wrong(placed)
    assert "different: head.onnx; mend it with: btcai registry verify --mend" in found["files"]
    assert found.keys() == {"files", "opens"}
    assert verification.mend(placed, BUCKET) == ["short: the files of version 2 are back from the record"]
    assert wrong(placed) == {}
    assert promotion.history(placed)[-1].change.kind == "restore"


def test_another_versions_files_are_named_and_replaced(placed: Path) -> None:
    client = KeptRegistry(placed)
    client.set_registered_model_alias("btcai-short", "champion", "1")  # on MLflow's page, behind our back
    assert wrong(placed)["on disk"].endswith(
        "must hold version 1, holds version 2; mend it with: btcai registry verify --mend"
    )
    verification.mend(placed, BUCKET)
    assert wrong(placed) == {}


def test_an_interrupted_change_is_named_and_ended(placed: Path) -> None:
    promotions.begin(placed / paths.PROMOTIONS, CHANGE)
    assert wrong(placed)["record"].startswith("every change must be ended, the promote to version 2 was interrupted")
    (said,) = verification.mend(placed, BUCKET)
    assert said == "promote of short to version 2 by ops is done, after an interruption"
    assert wrong(placed) == {}
    assert succession.seats(KeptRegistry(placed), BUCKET) == CHANGE.after


def test_the_doctor_names_a_damaged_champion_and_mends_it(placed: Path) -> None:
    folder = placed / paths.CHAMPION / BUCKET
    (sound,) = services._verified(placed)
    assert (sound.check, sound.said) == ("champion short", "version 2, as on record")
    (folder / "manifest.json").unlink()
    found = list(services._verified(placed))
    assert {one.status for one in found} == {"error"}
    assert {one.remedy for one in found} == {"btcai registry verify short --mend"}
    checkup.mend(found)
    assert [one.status for one in services._verified(placed)] == ["ok"]


@pytest.mark.slow
def test_a_bundle_that_decides_otherwise_is_named(placed: Path) -> None:

    folder = placed / paths.CHAMPION / BUCKET
    answer = self_check.pyfunc._load_pyfunc(str(folder)).predict(frame().tail(4000))
    kept = placed / "run2" / self_check.FOLDER
    self_check.write(kept, frame().tail(4000), answer)
    assert wrong(placed) == {}
    on_record = json.loads((kept / self_check.ANSWER).read_text(encoding="utf-8"))
    assert len(on_record) > 20
    on_record["p_hold"] += 0.001
    (kept / self_check.ANSWER).write_text(json.dumps(on_record), encoding="utf-8")
    assert "must decide as it did when it was registered: p_hold was" in wrong(placed)["decides"]


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from registry_kept import KeptRegistry
    from btcai.registry import promotion, tracking
    tracking.read_client = KeptRegistry
    root = Path({root!r})
    promotion.promote(root, "short", 1, "now everything is imported")
    print("ready", flush=True)
    while True:
        promotion.promote(root, "short", 1, "to and fro")
        promotion.rollback(root, "short", "to and fro")
"""


@pytest.mark.slow
def test_sigkills_in_the_middle_of_changes_leave_one_whole_champion(placed: Path) -> None:
    tests = str(Path(__file__).resolve().parents[1])
    script = textwrap.dedent(KILLED.format(tests=tests, root=str(placed)))
    for after_s in (0.31, 0.77, 1.13):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(after_s)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert is_whole(placed / paths.CHAMPION / BUCKET)
        verification.mend(placed, BUCKET)
        assert wrong(placed) == {}
        assert all(entry.outcome is not None for entry in promotion.history(placed))
    assert len(promotion.history(placed)) > 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_what_was_put_there_by_hand_outlives_runs_until_it_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (recording, tracking):
        monkeypatch.setattr(module, "BUCKETS", (BUCKET,))
    monkeypatch.setattr(terms, "judged_on", lambda config, data_version: "terms")
    config = project(tmp_path)
    register(tmp_path, config, 0.1)
    project(tmp_path, weight=2.0)
    register(tmp_path, config, 0.2)
    promotion.promote(tmp_path, BUCKET, 1, "version 2 trades too much")
    assert [check.said for check in verification.verify(tmp_path, BUCKET) if not check.ok] == []
    assert verification.verify(tmp_path, BUCKET)[-1].said == "35 numbers as registered"

    project(tmp_path, weight=3.0)
    report = register(tmp_path, config, 0.3)["buckets"][BUCKET]
    assert (report["aliases"], report["pinned"]) == ({"champion": 1, "challenger": 3, "previous": 2}, 1)
    said = (
        "version 1 is held by .* (version 2 trades too much), the rule would choose 3; release it with: btcai registry"
    )
    assert said.replace(".*", promotions.user()) in report["reason"]
    assert report["reason"] in caplog.text

    done = promotion.unpin(tmp_path, BUCKET, "version 3 trades less")
    assert (done.champion.version, done.change.after) == (3, Seats(champion=3, previous=1))
    assert [check.said for check in verification.verify(tmp_path, BUCKET) if not check.ok] == []

    used = {
        what: [use.entry.version for use in tracing.using(tmp_path, what)]
        for what in ("simulated", "ppo.clip=0.3", "ppo.clip=9", "0123456", done.change.manifest_sha256[:8])
    }
    assert used == {
        "simulated": [3, 2, 1],
        "ppo.clip=0.3": [3, 2, 1],
        "ppo.clip=9": [],
        "0123456": [3, 2, 1],
        done.change.manifest_sha256[:8]: [3],
    }
    with pytest.raises(ArtifactError, match="its first 6 digits or more, was 'abc'"):
        tracing.using(tmp_path, "abc")
