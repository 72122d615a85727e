"""What a run shows on its page in Prefect: how far it is, what each stage did, the results and where the rest is."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from btcai import paths

logger = logging.getLogger(__name__)

MLFLOW_PAGES = "http://127.0.0.1:5000"
"""Where `make mlflow-server` answers."""

_STEP = re.compile(r"(?P<phase>\w+: [\w ,]+?) \[[#.]+\] (?P<done>\d+)/(?P<all>\d+)\b")
"""A trainer's line: `scalping: PPO [#####...............] 10/40  score ...`."""


@contextmanager
def shown_if_possible() -> Iterator[None]:
    """A page that cannot be written, whatever the reason (a server that restarts), must not end days of training."""
    try:
        yield
    except Exception:
        logger.warning("Prefect's page was not updated; the run goes on", exc_info=True)


class Progress:
    """A bar on the run's page, from 0 to 100 %; made at its first step, so that a stage without steps has none."""

    def __init__(self, key: str) -> None:
        self._key = re.sub(r"[^a-z0-9-]", "-", key)
        self._id: Any = None

    def step(self, done: float, description: str) -> None:
        """Show that the share `done` (0 .. 1) is behind us."""
        percent = round(100 * done, 1)
        with shown_if_possible():
            if self._id is None:
                self._id = create_progress_artifact(percent, key=self._key, description=description)
            else:
                update_progress_artifact(self._id, percent, description=description)

    def read(self, line: str) -> None:
        """Step as far as a trainer's line says; any other line changes nothing."""
        if found := _STEP.search(line):
            done, all_ = int(found["done"]), int(found["all"])
            self.step(done / all_, f"{found['phase']}, {done} of {all_} updates")


def publish(root: Path, states: Mapping[str, str]) -> None:
    """The results as a table, with the way to the report and to MLflow, and what each stage did."""
    found = results(root)
    rows = "\n".join(f"| {name} | {state} |" for name, state in states.items())
    stages = f"| stage | state |\n|---|---|\n{rows}"
    with shown_if_possible():
        create_markdown_artifact(
            key="results", markdown=found, description="Test span, after all costs, beside the baselines"
        )
        create_markdown_artifact(key="stages", markdown=stages, description="What ran")


def results(root: Path) -> str:
    """Markdown: the table of results with the verdicts, links to MLflow, the report's place on disk."""
    from btcai.report.report import markdown
    from btcai.stages import read_metrics

    return "\n".join([markdown(read_metrics(root)), "", *_places(root)])


def _places(root: Path) -> list[str]:
    """Links that work while `make mlflow-server` runs; browsers refuse a link from a page to a file."""
    lines = [f"Report with pictures: `{(root / paths.EVALUATION / 'index.html').resolve()}`"]
    record = root / paths.REGISTER
    if record.is_file():
        run = f"{MLFLOW_PAGES}/{json.loads(record.read_text(encoding='utf-8'))['page']}"
        lines.append(
            f"In MLflow (`make mlflow-server`): [this run]({run}), [its report]({run}/artifacts/report/index.html), "
            f"[models]({MLFLOW_PAGES}/#/models)"
        )
    return [f"- {line}" for line in lines]
