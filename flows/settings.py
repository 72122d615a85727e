"""How Prefect runs here: files inside the project, the server of `btcai up` or a temporary one, no telemetry, quiet."""

import os
from pathlib import Path

from btcai.environment import telemetry_off
from btcai.operation import services

HOME = Path(".prefect")


def apply(root: Path) -> None:
    """Set Prefect's environment; call before prefect is imported. What the user has set already stays."""
    telemetry_off()
    for name, value in {
        "PREFECT_HOME": str((root / HOME).resolve()),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        # Prefect's own lines go to its database, where its pages show them; the console shows the stages' output.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)
    if url := services.prefect_api(root):  # the pages of a server that runs show this run while it works
        os.environ.setdefault("PREFECT_API_URL", url)
