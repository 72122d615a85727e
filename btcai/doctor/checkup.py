"""Every check in one order, as a list or as strict JSON, and the mending that harms nothing."""

import json
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from btcai import paths
from btcai.doctor import installation, project, services
from btcai.doctor.findings import Check, Finding, looked
from btcai.errors import BtcaiError

MLFLOW_REMEDY = "stop every run, move mlflow/ aside and restore it from a backup, or start anew: btcai run"
PREFECT_REMEDY = "stop the server and move .prefect/prefect.db aside: it holds runs' history alone"


def checks(root: Path) -> dict[str, Check]:
    """By name, in the order in which one rests on those before it."""
    here = installation.installed()
    return {
        "Python": installation.python,
        "packages": lambda: installation.packages(installation.pinned(root), here),
        "extras": lambda: installation.extras(installation.requirements(), here),
        "telemetry": lambda: installation.telemetry(root, os.environ),
        "memory": installation.memory,
        "disk": lambda: installation.disk(root),
        "folders": partial(project.writable, root),
        "settings": partial(project.settings, root),
        "clock": lambda: installation.clock(root),
        "git": partial(project.checkout, root),
        "DVC locks": partial(project.locks, root),
        "bars": partial(project.bars, root),
        "stages": partial(project.stages, root),
        "warm start": partial(project.warm_start, root),
        "leftovers": partial(project.leftovers, root),
        "journal": partial(project.journals, root),
        "mlflow.db": partial(services.database, root, paths.MLFLOW_DB, MLFLOW_REMEDY),
        "prefect.db": partial(services.database, root, services.PREFECT_DB, PREFECT_REMEDY),
        "registry": partial(services.registry, root),
        "ports": lambda: services.ports(services.places(root)),
    }


def examine(root: Path) -> list[Finding]:
    """All findings; nothing is changed."""
    return list(looked(checks(root)))


def mend(findings: Iterable[Finding]) -> list[str]:
    """Do what the findings may do by themselves; says what was done or why not."""
    said = []
    for finding in findings:
        if finding.fix is None or finding.status == "ok":
            continue
        try:
            finding.fix()
        except (BtcaiError, OSError) as failure:
            said.append(f"{finding.check}: {failure}")
        else:
            said.append(f"{finding.check}: mended ({finding.said})")
    return said


def is_sound(findings: Iterable[Finding]) -> bool:
    """No error among them; warnings are advice."""
    return all(finding.status != "error" for finding in findings)


def as_json(findings: Iterable[Finding]) -> str:
    """One strict JSON object: sound, and the findings."""
    listed = [{"check": one.check, "status": one.status, "said": one.said, "remedy": one.remedy} for one in findings]
    sound = all(one["status"] != "error" for one in listed)
    return json.dumps({"sound": sound, "findings": listed}, allow_nan=False)
