"""compose.yaml as far as it is known without Docker: versions, telemetry, what is reachable, what depends on what."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from btcai.environment import TELEMETRY_OFF
from btcai.operation import services
from btcai.registry import place


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((root / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_prefects_image_is_the_version_of_the_lock(root: Path, compose: dict[str, Any]) -> None:
    wanted = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (pin,) = [line for line in wanted["operate"] if line.startswith("prefect==")]
    assert compose["services"]["prefect"]["image"] == f"prefecthq/prefect:{pin.removeprefix('prefect==')}-python3.11"


def test_nothing_is_reachable_from_outside_the_machine(compose: dict[str, Any]) -> None:
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert ports["prefect"] == [f"127.0.0.1:{services.PREFECT_PORT}:4200"]
    assert ports["mlflow"] == [f"127.0.0.1:{services.MLFLOW_PORT}:5000"]
    assert ports["worker"] == ports["database"] == []


def test_no_other_page_of_a_browser_may_ask_prefect(compose: dict[str, Any]) -> None:
    wanted = services.own_pages_only(services.PREFECT_PORT)
    assert wanted.items() <= compose["services"]["prefect"]["environment"].items()


def test_no_password_stands_in_the_file_or_in_a_command(root: Path, compose: dict[str, Any]) -> None:
    text = (root / "compose.yaml").read_text(encoding="utf-8")
    assert len(re.findall(r"\$\{BTCAI_POSTGRES_PASSWORD:\?", text)) == 3
    assert "PASSWORD" not in str([service.get("command") for service in compose["services"].values()])  # ps shows it
    assert re.findall(r"PASSWORD[^=:$]*[:=]\s*(?!\$\{|\.\.\.)\w", text) == []


@pytest.mark.parametrize("name", ["prefect", "worker", "mlflow"])
def test_no_container_of_ours_phones_home(compose: dict[str, Any], name: str) -> None:
    assert TELEMETRY_OFF.items() <= compose["services"][name]["environment"].items()


def test_each_waits_for_a_healthy_server_that_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in compose["services"][needed]


def test_the_worker_is_given_longer_to_stop_than_a_stage_takes(compose: dict[str, Any]) -> None:
    from flows.process import GRACE_S

    limit_s = int(compose["services"]["worker"]["stop_grace_period"].removesuffix("s"))
    assert limit_s > sum(grace_s for _, grace_s in GRACE_S) + 30


def test_the_pool_is_that_of_prefect_yaml(root: Path, compose: dict[str, Any]) -> None:
    (deployment,) = yaml.safe_load((root / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert deployment["work_pool"]["name"] == services.POOL
    assert compose["services"]["worker"]["command"][-1].count(f" {services.POOL} ") == 2


def test_records_of_both_servers_are_in_postgresql_in_a_database_each(compose: dict[str, Any]) -> None:
    database, prefect, mlflow = (compose["services"][name] for name in ("database", "prefect", "mlflow"))
    uris = (
        prefect["environment"]["PREFECT_SERVER_DATABASE_CONNECTION_URL"],
        mlflow["environment"]["MLFLOW_BACKEND_STORE_URI"],
    )
    assert [uri.rpartition("@")[2] for uri in uris] == ["database:5432/prefect", "database:5432/mlflow"]
    assert database["environment"]["POSTGRES_DB"] == "prefect"
    (script,) = database["configs"]
    assert script["target"].startswith("/docker-entrypoint-initdb.d/")
    assert compose["configs"][script["source"]]["content"] == "CREATE DATABASE mlflow;"


def test_the_worker_logs_to_the_server_that_answers_to_its_name(compose: dict[str, Any]) -> None:
    worker, mlflow = (compose["services"][name]["environment"] for name in ("worker", "mlflow"))
    host = worker[place.SERVER].removeprefix("http://")
    assert host == "mlflow:5000"
    assert host in mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert worker[place.PAGES] == f"http://127.0.0.1:{services.MLFLOW_PORT}"


def test_the_books_of_a_killed_worker_are_closed_before_the_next_one_starts(compose: dict[str, Any]) -> None:
    command = compose["services"]["worker"]["command"][-1]
    assert command.index("deploy --all") < command.index("control.settle") < command.index("worker start")


def test_a_run_is_resumed_or_retried_at_once_without_the_workers_own_limit(compose: dict[str, Any]) -> None:
    assert "--limit" not in compose["services"]["worker"]["command"][-1]  # it ends with an error then: services.up


def test_a_stage_finds_btcai_and_dvc_a_name_in_the_image(compose: dict[str, Any]) -> None:
    recipe = compose["services"]["worker"]["build"]["dockerfile_inline"]
    assert "> /usr/local/bin/btcai" in recipe  # as dvc.yaml calls it
    assert compose["services"]["worker"]["environment"]["USER"]  # the number of `user` has no name there
    assert "$" not in recipe  # compose would put a variable in its place
