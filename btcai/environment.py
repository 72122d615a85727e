"""Environment of the tools btcai starts: nothing phones home, and the environment's own commands come first on PATH."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from btcai.logs.fields import for_child

TELEMETRY_OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "true",  # MLflow accepts only this spelling, Prefect accepts it too
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",  # read as onnxruntime is imported; else it writes a device id to disk and uploads
}

QUIET: Mapping[str, str] = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
"""Keeps progress bars of single files out of the streamed logs."""


def bin_first(path: str) -> str:
    """PATH with this environment's bin folder first: a DVC stage calls `btcai` by name, activated or not."""
    own = str(Path(sys.executable).parent)
    return os.pathsep.join([own, *(part for part in path.split(os.pathsep) if part and part != own)])


def child_environment() -> dict[str, str]:
    """A copy of the environment for a child process in this folder: telemetry off, logs quiet, about the same as ours.

    DVC unpickles its site cache, which lies in a folder of /var/tmp that everybody may write to: it is kept here.
    """
    path = bin_first(os.environ.get("PATH", os.defpath))
    site = os.environ.get("DVC_SITE_CACHE_DIR", str(Path.cwd() / ".dvc" / "tmp" / "site"))
    return {**os.environ, **TELEMETRY_OFF, **QUIET, **for_child(), "PATH": path, "DVC_SITE_CACHE_DIR": site}


def telemetry_off() -> None:
    """Turn every dependency's telemetry off in this process; call before any of them is imported."""
    os.environ.update(TELEMETRY_OFF)
