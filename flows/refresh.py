"""What is due every day: new bars, then the pipeline, unless the stage `drift` says that it is not due or unsafe."""

import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from btcai import paths
from btcai.environment import child_environment
from btcai.watch.report import read_verdict
from flows.pipeline import Show, StageFailed, State, champions_missing, pipeline, prepare, run_limited
from flows.process import stream

UPDATE_LIMIT_S = 6 * 3600.0
"""A first fetch of years from an exchange without an archive takes hours; a day takes seconds."""


@flow(name="btcai-refresh", validate_parameters=False)
def refresh(root: str = ".", force: bool = False, only_if_drifted: bool = False) -> dict[str, State]:
    """Fetch what is new of the market in use, ask the stage `drift` of it, then run the pipeline.

    Where the newest bars are beyond a hard limit (drift.stop_* in params.yaml) nothing is trained: the run fails, for a
    person to look. only_if_drifted: train only where `drift` says that it is due, whatever else has changed. It holds
    them against the training span of today's bars, the first part of the history: a drift that lasts is seen every day
    until the span holds it, and a champion that is missing is made. With force, or without a candidate, nothing is
    asked and the pipeline runs.
    """
    project = Path(root).resolve()
    update(str(project))
    if force or not (project / paths.CANDIDATE).is_dir():
        return pipeline(str(project), force)
    prepare(project)
    states = {name: run_limited(name, project) for name in ("validate", "features", "drift")}
    verdict, reasons = read_verdict(project / paths.DRIFT)
    if verdict == "look_first":
        raise StageFailed(
            f"the newest bars are very unlike the training span, so nothing was trained: {reasons}; see {paths.DRIFT}, "
            "then mend the bars, raise the limit in params.yaml, or train on them once with: btcai run"
        )
    if only_if_drifted and verdict == "steady" and not champions_missing(project):
        return states
    return pipeline(str(project), force)


@task(
    task_run_name="new bars", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=300, timeout_seconds=UPDATE_LIMIT_S
)
def update(root: str) -> None:
    """`btcai data update`; what had come before a failure is kept, so that another try goes on from there."""
    if code := _btcai(Path(root), "data", "update", show=get_run_logger().info):
        raise StageFailed(f"no new bars, exit code {code}; the log says why; try again with: btcai data update")


def _btcai(root: Path, *arguments: str, show: Show) -> int:
    return stream([sys.executable, "-m", "btcai.cli", *arguments], cwd=root, env=child_environment(), show=show)
