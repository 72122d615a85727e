"""`btcai serve`: the champions' decisions over HTTP."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[str, typer.Option(help="Where to listen; the loopback unless --remote.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8710,
    bucket: Annotated[
        list[str] | None, typer.Option(help="Serve these alone; may be given again. [default: all four]")
    ] = None,
    root: Annotated[Path, typer.Option(help="The project's folder.", file_okay=False)] = Path(),
    remote: Annotated[
        bool, typer.Option("--remote", help="Let other machines ask, with the secret SERVE_TOKEN as token.")
    ] = False,
) -> None:
    """Serve the champions' decisions over HTTP until it is stopped; new champions are swapped in while it runs.

    POST /v1/decide, /v1/decide/batch, /v1/bars; GET /health, /ready, /version,
    /metrics (Prometheus), /openapi.json. No registry is needed. SIGTERM and
    Ctrl-C answer what is in flight, then end it.
    """
    from btcai import paths
    from btcai.params import require_project
    from btcai.schema import BUCKETS
    from btcai.serving.server import run

    if not (root / paths.CHAMPION).is_dir():  # copied champions are enough
        require_project(root)
    run(root, host, port, bucket or BUCKETS, remote)
