"""What runs beside btcai: MLflow's and Prefect's databases, the champions in the registry, the ports."""

import http.client
import importlib.metadata
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from btcai import paths
from btcai.doctor.findings import Finding, error, ok, warning
from btcai.inference.bundle import load_bundle
from btcai.operation import services
from btcai.records import champions
from btcai.registry import place
from btcai.schema import BUCKETS

PREFECT_DB = Path(".prefect/prefect.db")
SERVERS: tuple[tuple[services.Name, str, int, str], ...] = (
    ("prefect", "Prefect", services.PREFECT_PORT, "/api/health"),
    ("mlflow", "MLflow", services.MLFLOW_PORT, "/health"),
)
"""The servers of `btcai up`: the port of each where none was chosen, and what it answers to."""
WAIT_S = 2.0


def database(root: Path, place: Path, remedy: str) -> Iterator[Finding]:
    """SQLite's own check; a database that is not there yet is made by the first run."""
    name = place.name
    if not (root / place).is_file():
        yield ok(name, "not there yet: the first run makes it")
        return
    try:
        with sqlite3.connect(f"file:{root / place}?mode=ro", uri=True, timeout=WAIT_S) as connection:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as failure:
        said = str(failure)
    if said == "ok":
        yield ok(name, f"whole, {(root / place).stat().st_size / 1e6:.1f} MB")
    else:
        yield error(name, f"damaged: {' '.join(said.split())}", remedy)


def registry(root: Path) -> Iterator[Finding]:
    """Every champion on disk against its record; without MLflow, or a registry, the files against their manifest."""
    if not _is_installed("mlflow"):
        yield warning("registry", "MLflow is not installed: champions are not compared", "pip install -e '.[operate]'")
        yield from _on_disk(root)
    elif place.server() is None and not (root / paths.MLFLOW_DB).is_file():
        yield ok("registry", "none yet: the first run makes it")
        yield from _on_disk(root)
    else:
        yield from _verified(root)


def _verified(root: Path) -> Iterator[Finding]:
    from btcai.registry import verification

    checks = verification.verify(root)
    for bucket in dict.fromkeys(check.bucket for check in checks):
        mine = [check for check in checks if check.bucket == bucket]
        for check in (check for check in mine if not check.ok):
            remedy, fix = f"btcai registry verify {bucket} --mend", lambda name=bucket: verification.mend(root, name)
            yield error(f"champion {bucket}", f"{check.what}: {check.said}", remedy, fix)
        if all(check.ok for check in mine):
            said = next((check.said for check in mine if check.what == "on disk"), "none yet")
            yield ok(f"champion {bucket}", f"{said}, as on record")


def _on_disk(root: Path) -> Iterator[Finding]:
    for bucket in BUCKETS:
        folder = root / paths.CHAMPION / bucket
        if folder.is_dir():
            bundle = load_bundle(folder)
            standing = champions.read_standing(folder)
            version = f"version {standing.version}" if standing else "without a standing"
            yield ok(f"champion {bucket}", f"{version}, model {bundle.version}, whole")


def _is_installed(name: str) -> bool:
    """By its metadata: where mlflow is missing, the folder mlflow/ would be imported for it."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def places(root: Path) -> dict[str, tuple[int, str]]:
    """Of each server where it answers, or would, and what it answers to."""
    found = {}
    for name, title, usual, path in SERVERS:
        running = services.record(root, name)
        found[title] = (running.port if running is not None and running.port else usual, path)
    return found


def ports(wanted: dict[str, tuple[int, str]]) -> Iterator[Finding]:
    """Free, or answered by the server that belongs there."""
    for name, (port, path) in wanted.items():
        answer = _answer(port, path)
        if answer is None:
            yield ok(f"port {port}", f"free for {name}")
        elif answer == http.client.OK:
            yield ok(f"port {port}", f"{name} answers")
        else:
            yield warning(
                f"port {port}", f"another program than {name} answers there", f"stop it: ss -ltnp sport = :{port}"
            )


def _answer(port: int, path: str) -> int | None:
    """The HTTP status on the loopback; 0 for what is no HTTP, None where nothing listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
