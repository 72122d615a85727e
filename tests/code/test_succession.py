"""A change of champion is whole or not at all, on record with its reason, and mended after a kill at any step."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_fakes import change_manifest
from registry_kept import BUCKET, NAME, KeptRegistry, kept_registry
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from btcai import cli, files, paths, summary
from btcai.errors import ArtifactError, ConfigError
from btcai.features.table import FEATURE_NAMES
from btcai.records import champions, promotions
from btcai.records.champions import MODEL_CARD, is_whole, read_standing
from btcai.records.promotions import Seats
from btcai.registry import promotion, succession, tracking

SCORES = {1: 0.1, 2: 0.3, 3: 0.2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project where version 2 is champion by the rule, 3 the newest; version 1 was champion before."""
    root = tmp_path_factory.mktemp("made")
    client = kept_registry(root, SCORES, {"champion": 1, "challenger": 3})
    first = succession.version(client, BUCKET, 1)
    succession.install(client, root, first, kind="restore", because="the first", pin=None)
    succession.install(client, root, succession.version(client, BUCKET, 2), kind="rule", because="best", pin=None)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.setattr(tracking, "read_client", KeptRegistry)
    return folder


def champion_on_disk(root: Path) -> int:
    """The version in models/champion/BUCKET, which must be whole."""
    folder = root / paths.CHAMPION / BUCKET
    assert is_whole(folder)
    standing = read_standing(folder)
    assert standing is not None
    return standing.version


def seats(root: Path) -> Seats:
    return succession.seats(KeptRegistry(root), BUCKET)


def test_promoting_changes_files_aliases_and_the_record_together(root: Path) -> None:
    done = promotion.promote(root, BUCKET, 3, "the newest is\nbetter live")
    assert (done.champion.version, done.before.version if done.before else None) == (3, 2)
    assert champion_on_disk(root) == 3
    assert seats(root) == Seats(champion=3, previous=2, pinned=3)
    folder = root / paths.CHAMPION / BUCKET
    assert (folder / MODEL_CARD).read_text(encoding="utf-8") == "card of 3"
    entry = promotion.history(root, BUCKET)[-1]
    assert (entry.outcome, entry.change.kind, entry.change.because) == ("done", "promote", "the newest is better live")
    assert entry.change.before == Seats(champion=2, previous=1)
    assert entry.change.who == promotions.user()
    assert entry.change.manifest_sha256 == succession._manifest(folder)


def test_rolling_back_twice_ends_where_it_began(root: Path) -> None:
    first = promotion.rollback(root, BUCKET, "it loses")
    assert (champion_on_disk(root), seats(root)) == (1, Seats(champion=1, previous=2, pinned=1))  # the rule wants 2
    second = promotion.rollback(root, BUCKET, "it lost less")
    assert (champion_on_disk(root), seats(root)) == (2, Seats(champion=2, previous=1))  # what the rule wants anyway
    assert [first.change.kind, second.change.kind] == ["rollback", "rollback"]


def test_rolling_back_a_promotion_by_hand_to_another_by_hand_keeps_a_pin(root: Path) -> None:
    promotion.promote(root, BUCKET, 3, "a")
    promotion.promote(root, BUCKET, 1, "b")
    promotion.rollback(root, BUCKET, "c")
    assert seats(root) == Seats(champion=3, previous=1, pinned=3)


def test_releasing_a_pin_asks_the_rule_at_once(root: Path) -> None:
    promotion.promote(root, BUCKET, 3, "a try")
    assert promotions.pins(root / paths.PROMOTIONS)[BUCKET].because == "a try"
    done = promotion.unpin(root, BUCKET, "the try is over")
    assert done.champion.version == champion_on_disk(root) == 2
    assert seats(root) == Seats(champion=2, previous=3)
    assert promotions.pins(root / paths.PROMOTIONS) == {}
    with pytest.raises(ArtifactError, match="short must be held by hand to be released, was not"):
        promotion.unpin(root, BUCKET, "again")


def test_promoting_the_champion_only_pins_it(root: Path) -> None:
    promotion.promote(root, BUCKET, 2, "keep it")
    assert seats(root) == Seats(champion=2, previous=1, pinned=2)


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_change_without_a_reason(root: Path, text: str) -> None:
    before = (root / paths.PROMOTIONS).read_bytes()
    for command in (promotion.rollback, promotion.unpin):
        with pytest.raises(ConfigError, match="needs a reason"):
            command(root, BUCKET, text)
    with pytest.raises(ConfigError, match="needs a reason"):
        promotion.promote(root, BUCKET, 3, text)
    assert (root / paths.PROMOTIONS).read_bytes() == before


def damaged_graph(bundle: Path) -> None:
    (bundle / "head.onnx").write_bytes(b"cut")


def other_features(bundle: Path) -> None:
    change_manifest(bundle, feature_names=["return_one", *FEATURE_NAMES[1:]])


def other_warmup(bundle: Path) -> None:
    change_manifest(bundle, warmup_bars=2017)


def other_costs(bundle: Path) -> None:
    """A manifest that opens and is not the one on record."""
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")


def another_bundle(bundle: Path) -> None:
    shutil.rmtree(bundle)
    shutil.copytree(bundle.parents[1] / "run1" / "bundle", bundle)


def no_bundle(bundle: Path) -> None:
    shutil.rmtree(bundle)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damaged_graph, "head.onnx is missing or not the file its manifest names"),
        (other_features, "must be made for this btcai's"),
        (other_warmup, "must be made for this btcai's"),
        (other_costs, "must have the manifest_sha256 on record"),
        (another_bundle, "must have the model_version on record"),
        (no_bundle, "short version 3 has no bundle in run run3"),
    ],
)
def test_a_version_whose_bundle_cannot_be_proven_is_refused(
    root: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(root / "run3" / "bundle")
    before, record = seats(root), (root / paths.PROMOTIONS).read_bytes()
    with pytest.raises(ArtifactError, match=said) as refused:
        promotion.promote(root, BUCKET, 3, "try")
    assert "short version 3" in str(refused.value)
    assert tempfile.gettempdir() not in str(refused.value)  # the folder that it was tried in is gone
    assert (champion_on_disk(root), seats(root)) == (2, before)
    assert (root / paths.PROMOTIONS).read_bytes() == record


def test_unknown_versions_and_buckets_are_named(root: Path) -> None:
    with pytest.raises(ArtifactError, match=r"short must have the version, was 9, registered are: 1, 2, 3"):
        promotion.promote(root, BUCKET, 9, "try")
    with pytest.raises(ArtifactError, match="must be one of scalping, short, medium, long, was shrt"):
        promotion.promote(root, "shrt", 1, "try")
    with pytest.raises(ArtifactError, match="nothing of long is registered"):
        promotion.rollback(root, "long", "try")


def test_the_rule_passes_over_a_version_that_does_not_open(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = KeptRegistry(root)
    newest = succession.version(client, BUCKET, 3)
    damaged_graph(root / "run2" / "bundle")
    chosen, _ = succession.rule(client, BUCKET, newest, succession.champion(client, BUCKET))
    assert chosen == newest  # .2 is the best that is left
    assert "version 2 cannot be champion" in caplog.text


def test_a_pin_of_a_deleted_version_holds_nothing(root: Path) -> None:
    client = KeptRegistry(root)
    client.set_registered_model_tag(NAME, succession.PINNED, "9")
    assert seats(root).pinned is None


def test_a_second_process_waits_and_then_says_so(root: Path) -> None:
    with succession.alone(root), pytest.raises(ArtifactError, match="another btcai has been changing the registry"):
        with succession.alone(root, wait_s=0.05):
            pass


def test_a_torn_line_of_the_record_is_no_change(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = root / paths.PROMOTIONS
    with ledger.open("ab") as file:
        file.write(b'{"event": "intent", "id": "12')  # killed while it was written: nothing was done
    assert succession.mend(KeptRegistry(root), root, BUCKET) is None
    assert "is torn or damaged and is skipped" in caplog.text
    promotion.promote(root, BUCKET, 3, "after it")
    assert [entry.outcome for entry in promotion.history(root)] == ["done"] * 3


KILLED = 77
WRITES = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "ctypes.dlsym", "shutil.copyfile")


def killed_at(step: int, work: Callable[[], Any]) -> bool:
    """Do the work in a process that ends, with nothing cleaned up, before its step-th change of a file; was it?"""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in WRITES and (event != "open" or not reads(arguments)):
                left -= 1
                if left == 0:
                    os._exit(KILLED)

        sys.addaudithook(count)
        try:
            work()
        except BaseException:  # a process of its own: pytest must not go on in it
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def reads(arguments: tuple[Any, ...]) -> bool:
    """Whether an open is for reading, by its mode or its flags."""
    _, mode, flags = arguments
    return not set(mode or "r") & set("wax+") and not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["promote", "unpin"])
def test_killed_before_any_write_the_old_or_the_new_champion_is_whole_and_the_next_command_mends_the_rest(
    root: Path, tmp_path: Path, command: str
) -> None:
    work: dict[str, Callable[[Path], Any]] = {
        "promote": lambda place: promotion.promote(place, BUCKET, 3, "x"),
        "unpin": lambda place: promotion.unpin(place, BUCKET, "x"),
    }
    if command == "unpin":
        promotion.promote(root, BUCKET, 1, "held")
    old, before = champion_on_disk(root), seats(root)
    reference = tmp_path / "reference"
    shutil.copytree(root, reference)
    work[command](reference)
    new, after = champion_on_disk(reference), seats(reference)
    assert new != old
    met, outcomes = set(), set()
    step = 1
    while True:
        place = tmp_path / str(step)
        shutil.copytree(root, place)
        killed = killed_at(step, lambda place=place: work[command](place))  # type: ignore[misc]
        on_disk = champion_on_disk(place)  # whole, and under its own name
        said = succession.mend(KeptRegistry(place), place, BUCKET)
        assert champion_on_disk(place) == on_disk
        assert seats(place) == {old: before, new: after}[on_disk]
        assert succession.mend(KeptRegistry(place), place, BUCKET) is None
        assert [file.name for file in (place / paths.CHAMPION).iterdir()] == [BUCKET]
        met.add(on_disk)
        outcomes.add(said and said.rpartition(" is ")[2])
        shutil.rmtree(place)
        if not killed:
            break
        step += 1
    assert met == {old, new}
    assert outcomes == {None, "undone, after an interruption", "done, after an interruption"}
    assert step > 20


def test_folders_change_places_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "mine").touch()
    if not files._exchanged(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine"]


def test_where_folders_cannot_change_places_two_renames_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    promotion.promote(root, BUCKET, 3, "x")
    assert champion_on_disk(root) == 3
    assert [file.name for file in (root / paths.CHAMPION).iterdir()] == [BUCKET]


def test_an_old_folder_left_by_a_kill_between_two_renames_is_put_back(root: Path) -> None:
    folder = root / paths.CHAMPION / BUCKET
    folder.rename(files.backup_of(folder))
    succession.mend(KeptRegistry(root), root, BUCKET)
    assert champions.is_whole(folder)


def test_the_commands_say_what_they_did_and_what_is_held(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / paths.PARAMS).touch()
    monkeypatch.chdir(root)
    call = CliRunner().invoke
    done = call(cli.app, ["registry", "promote", BUCKET, "3", "--because", "a trial"])
    first, *notes = done.stdout.splitlines()
    assert first.startswith("short: champion is version 3 after version 2, model ")
    assert notes == [
        "note: no edge is proven for it, so it stays on paper",
        "held until: btcai registry unpin short --because TEXT",
    ]
    assert "short stays at version 3: a trial" in printed(summary.places_view(root, {}))
    assert "rollback" not in call(cli.app, ["registry", "history"]).stdout
    assert call(cli.app, ["registry", "verify", BUCKET]).exit_code == 0
    (root / paths.CHAMPION / BUCKET / "head.onnx").write_bytes(b"cut")
    assert call(cli.app, ["registry", "verify", BUCKET]).exit_code == 1
    assert call(cli.app, ["registry", "verify", BUCKET, "--mend"]).exit_code == 0
    done = call(cli.app, ["registry", "unpin", BUCKET, "--because", "over"])
    assert done.stdout.splitlines()[1:] == ["note: no edge is proven for it, so it stays on paper"]
    assert "by hand" not in printed(summary.places_view(root, {}))
    assert call(cli.app, ["registry", "promote", BUCKET, "3"]).exit_code == 2  # --because is asked for


def printed(view: RenderableType) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(view)
    return capture.get()
