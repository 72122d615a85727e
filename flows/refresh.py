"""What is due every day: new bars, then the pipeline; on request only where the bars have drifted."""

import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from btcai.environment import child_environment
from btcai.watch.drift import DRIFTED
from flows.pipeline import HOUR_S, Show, StageFailed, State, champions_missing, pipeline, run_limited
from flows.process import stream

UPDATE_LIMIT_S = 6 * 3600.0
"""A first fetch of years from an exchange without an archive takes hours; a day takes seconds."""


@flow(name="btcai-refresh", validate_parameters=False)
def refresh(root: str = ".", force: bool = False, only_if_drifted: bool = False) -> dict[str, State]:
    """Fetch what is new of the market in use, then run the pipeline.

    only_if_drifted: validate the bars and build features, and run the rest only where a champion is missing or `btcai
    drift` says that the newest bars are unlike the training span, whatever else has changed. The span is that of
    today's bars, the first part of the history: a drift that lasts is seen every day until the span holds it.
    """
    project = Path(root).resolve()
    update(str(project))
    if only_if_drifted and not force and not champions_missing(project):
        states = {name: run_limited(name, project) for name in ("validate", "features")}
        if not drifted(str(project)):
            return states
    return pipeline(str(project), force)


@task(
    task_run_name="new bars", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=300, timeout_seconds=UPDATE_LIMIT_S
)
def update(root: str) -> None:
    """`btcai data update`; what had come before a failure is kept, so that another try goes on from there."""
    if code := _btcai(Path(root), "data", "update", show=get_run_logger().info):
        raise StageFailed(f"no new bars, exit code {code}; the log says why; try again with: btcai data update")


@task(task_run_name="drift", cache_policy=NO_CACHE, timeout_seconds=HOUR_S)
def drifted(root: str) -> bool:
    """`btcai drift --check`."""
    code = _btcai(Path(root), "drift", "--check", show=get_run_logger().info)
    if code not in (0, DRIFTED):
        raise StageFailed(f"drift could not be measured, exit code {code}; the log says why; see: btcai drift")
    return code == DRIFTED


def _btcai(root: Path, *arguments: str, show: Show) -> int:
    return stream([sys.executable, "-m", "btcai.cli", *arguments], cwd=root, env=child_environment(), show=show)
