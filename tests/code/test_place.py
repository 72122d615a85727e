"""A team's MLflow server as the record: by btcai's own setting alone, and no clone takes another's champions."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults import contents
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from operated_project import free_port
from registry_fakes import project, register

from btcai import paths
from btcai.config import Config
from btcai.errors import ArtifactError, ConfigError
from btcai.registry import garbage, place, promotion, recording, succession, tracing, tracking, verification
from btcai.schema import BUCKETS


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (place.SERVER, place.NAME, place.PAGES, *tracking.PATIENCE):
        monkeypatch.delenv(variable, raising=False)


def test_without_the_setting_the_record_is_the_projects_own_whatever_mlflow_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    monkeypatch.setenv(place.NAME, "ann")
    assert place.server() is None
    assert place.uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert recording.model_name("long") == "btcai-long"
    assert (place.shown(), place.pages()) == ("mlflow", None)


def test_a_server_is_an_address_and_its_password_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.SERVER, "https://ann:hush@mlflow.example/ ")
    monkeypatch.setenv(place.NAME, "ann-2")
    assert place.uri(tmp_path) == "https://ann:hush@mlflow.example"
    assert place.shown() == "https://mlflow.example"
    assert recording.model_name("long") == "ann-2-long"
    assert place.pages() == "https://mlflow.example"
    monkeypatch.setenv(place.PAGES, "http://127.0.0.1:5000/")
    assert place.pages() == "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    "uri", ["postgresql://ann:hush@db/mlflow", "mlflow.example:5000", "sqlite:///mlflow.db", "http://"]
)
def test_what_is_no_servers_address_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.SERVER, uri)
    with pytest.raises(ConfigError, match="BTCAI_MLFLOW_URI must be the address of an MLflow server") as found:
        place.server()
    assert "hush" not in str(found.value)


@pytest.mark.parametrize("name", ["Ann", "ann_2", "-ann", "ann' or '1", "ann--b"])
def test_a_name_that_mlflow_would_take_for_something_else_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(place.SERVER, "http://mlflow.example")
    monkeypatch.setenv(place.NAME, name)
    with pytest.raises(ConfigError, match="BTCAI_MLFLOW_NAME must be"):
        place.name()


def test_a_clone_is_the_same_for_as_long_as_its_journal_is_there(tmp_path: Path) -> None:
    first = place.clone(tmp_path / "one")
    assert place.clone(tmp_path / "one") == first
    assert place.clone(tmp_path / "two").split()[0] != first.split()[0]
    assert first.endswith(f":{tmp_path / 'one'}")


def answered(status: int | None) -> OSError:
    """What requests raises: an OSError that holds its request, and the answer where there was one."""
    error = OSError("http")
    error.request = object()  # type: ignore[attr-defined]
    error.response = None if status is None else SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "is_away"),
    [(answered(None), True), (answered(503), True), (answered(404), False), (OSError(28, "no space"), False)],
)
def test_a_server_that_is_away_is_told_from_one_that_says_no(
    error: Exception, is_away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not place.is_away(error)  # there is no server to be away
    monkeypatch.setenv(place.SERVER, "http://mlflow.example")
    assert place.is_away(error) is is_away


DOWNLOADS_FAIL = [
    MlflowException("failures occurred while downloading"),  # INTERNAL_ERROR, as for a plain 404
    MlflowException(
        "Failed to download artifacts from path 'bundle', please ensure that the path is correct.",
        error_code=RESOURCE_DOES_NOT_EXIST,
    ),
]


class Server:
    """A client whose server has a run with `kept`, or is away; MLflow calls both a failed download of one name."""

    def __init__(self, kept: list[str] | None, error: Exception) -> None:
        self.kept, self.error = kept, error

    def download_artifacts(self, run_id: str, path: str, into: str) -> str:
        raise self.error

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[object]:
        if self.kept is None:
            raise answered(None)
        return [SimpleNamespace(path=one) for one in self.kept if str(Path(one).parent) == (path or ".")]


@pytest.mark.parametrize("error", DOWNLOADS_FAIL, ids=["failed", "does not exist"])
@pytest.mark.parametrize(
    ("kept", "name", "is_lost"),
    [
        (["model_card.md"], "bundle", True),
        (["bundle"], "bundle/manifest.json", True),
        ([], "bundle", True),
        (["bundle", "model_card.md"], "bundle", False),  # it failed in the middle
        (["bundle/manifest.json"], "bundle/manifest.json", False),
        (None, "bundle", False),
    ],
)
def test_what_a_server_has_lost_costs_the_version_its_place_and_a_server_that_is_away_does_not(
    kept: list[str] | None,
    name: str,
    is_lost: bool,
    error: MlflowException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(place.SERVER, "http://mlflow.example")
    version = SimpleNamespace(tags={"data_version": "d", "code_version": "c", "score": "1", "edge": "none"})
    version.version, version.run_id = 3, "run3"
    with pytest.raises(ArtifactError if is_lost else MlflowException) as found:
        recording.downloaded(Server(kept, error), recording.standing("short", version), name, tmp_path)
    if is_lost:
        assert f"short version 3 has no {name} in run run3" in str(found.value)


@pytest.mark.parametrize("error", [OSError(28, "no space"), OSError(24, "too many open files")])
def test_a_copy_that_fails_for_want_of_room_costs_no_version_of_ones_own_store_its_place(
    error: OSError, tmp_path: Path
) -> None:
    version = SimpleNamespace(tags={"data_version": "d", "code_version": "c", "score": "1", "edge": "none"})
    version.version, version.run_id = 3, "run3"
    standing = recording.standing("short", version)
    with pytest.raises(OSError, match=error.strerror):
        recording.downloaded(Server(["bundle"], error), standing, "bundle", tmp_path)
    with pytest.raises(ArtifactError, match="short version 3 has no bundle"):
        recording.downloaded(Server([], error), standing, "bundle", tmp_path)


def test_a_version_whose_run_is_gone_has_lost_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = MlflowException("Run with id=run3 not found", error_code=RESOURCE_DOES_NOT_EXIST)
    version = SimpleNamespace(tags={"data_version": "d", "code_version": "c", "score": "1", "edge": "none"})
    version.version, version.run_id = 3, "run3"
    monkeypatch.setattr(Server, "list_artifacts", lambda *_: (_ for _ in ()).throw(gone))
    with pytest.raises(ArtifactError, match="run run3"):
        recording.downloaded(Server([], gone), recording.standing("short", version), "bundle", tmp_path)


@pytest.mark.slow  # MLflow is imported
def test_runs_on_a_server_are_not_collected_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.SERVER, "http://mlflow.example")
    with pytest.raises(ConfigError, match="gc must have the project's own record"):
        garbage.collect(tmp_path, 10, dry=False)


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """MLflow's server as docs/operate.md starts one, but on SQLite."""
    store, files = f"sqlite:///{folder / 'team.db'}", folder / "files"
    where = ["--backend-store-uri", store, "--artifacts-destination", str(files), "--port", str(port)]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", *where]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        give_up_at = time.monotonic() + 120.0
        while not answers(address):
            assert process.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
            assert time.monotonic() < give_up_at
            time.sleep(0.25)
        yield address
    finally:
        process.terminate()
        process.wait(120)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def gives_up_on_a_silent_server(root: Path, config: Config, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and never answers: a line within the tries' time, and nothing has changed."""
    with socket.create_server(("127.0.0.1", port)), monkeypatch.context() as impatient:
        impatient.setenv(place.SERVER, f"http://127.0.0.1:{port}")
        impatient.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        impatient.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        began_s = time.monotonic()
        with pytest.raises(ArtifactError, match=r"could not be read or written: .*see that the server runs") as found:
            register(root, config, 0.1)
        assert time.monotonic() - began_s < 100.0  # MLflow by itself gives each try 120 s
    assert "\n" not in str(found.value)
    assert not any((root / path).exists() for path in (paths.CHAMPION, paths.REGISTER, paths.TRIALS, paths.PROMOTIONS))


def seats(root: Path) -> dict[str, dict[str, int]]:
    return {
        shelf.bucket: {alias: one.version for alias, one in shelf.aliased.items()} for shelf in tracing.shelves(root)
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own and its dependencies' deprecations
def test_two_clones_on_one_server_keep_their_champions_and_go_on_after_it_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = tmp_path / "ann", tmp_path / "bob"
    port = free_port()
    for root in (ann, bob):
        root.mkdir()
    terms = project(ann)
    gives_up_on_a_silent_server(ann, terms, port, monkeypatch)
    with server(tmp_path, port) as address:
        monkeypatch.setenv(place.SERVER, address)
        register(ann, terms, 0.1)
        held = {bucket: contents(ann / paths.CHAMPION / bucket) for bucket in BUCKETS}

        better = project(bob, weight=2.0)  # on the same terms: of one name it would be champion in ann's place
        with pytest.raises(ArtifactError, match=r"experiment btcai on .* is that of .*:.*/ann: .*BTCAI_MLFLOW_NAME"):
            register(bob, better, 0.9)
        assert not (bob / paths.CHAMPION).exists()
        monkeypatch.setenv(place.NAME, "bob")
        assert register(bob, better, 0.9)["buckets"]["long"]["model"] == "bob-long"
        assert all(check.ok for check in verification.verify(bob))

        monkeypatch.delenv(place.NAME)
        assert seats(ann) == {bucket: {"champion": 1, "challenger": 1} for bucket in BUCKETS}
        assert all(check.ok for check in verification.verify(ann))
        assert {bucket: contents(ann / paths.CHAMPION / bucket) for bucket in BUCKETS} == held
        assert not (ann / paths.MLFLOW_DB).exists()

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ArtifactError, match=r"could not be read or written: .*see that the server runs") as found:
        promotion.rollback(ann, "long", "while it is away")
    assert "\n" not in str(found.value)
    assert {bucket: contents(ann / paths.CHAMPION / bucket) for bucket in BUCKETS} == held
    with server(tmp_path, port):
        assert all(check.ok for check in verification.verify(ann))
        client = tracking.read_client(ann)
        champion = succession.version(client, "long", 1)
        (kept,) = (tmp_path / "files").glob(f"*/{champion.run_id}/artifacts/bundle")
        shutil.rmtree(kept)  # lost on the server, which answers
        with pytest.raises(ArtifactError, match="long version 1 has no bundle in run"):
            recording.downloaded(client, champion, "bundle", tmp_path)
