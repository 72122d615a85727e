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
from btcai.logs import handlers
from btcai.operation import services
from flows.news import Standings, changes

logger = logging.getLogger(__name__)

_TRAINING = "?workflowType=machine_learning"
"""MLflow's pages are those of language models where nobody says otherwise."""
_STEP = re.compile(r"(?P<phase>\w+: [\w ,]+?) \[[#.]+\] (?P<done>\d+)/(?P<all>\d+)\b")
"""A trainer's line: `scalping: PPO [#####...............] 10/40  score ...`."""


_LOGGED = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (?P<level>[A-Z]+) +(?P<rest>\S+: .*)")
"""A line that a child has logged (logs.format.CONSOLE_LINE): its time and level are those of the page's own line."""


def relay(log: logging.Logger | logging.LoggerAdapter[Any], line: str) -> None:
    """Hand a line of a child's output on to the run's page, at the child's level.

    At ERROR at most: where critical records are mailed, the child has mailed it.
    """
    found = _LOGGED.fullmatch(line)
    level = logging.getLevelNamesMapping().get(found["level"], logging.INFO) if found else logging.INFO
    log.log(min(level, logging.ERROR), "%s", found["rest"] if found else line, extra=handlers.RELAYED)


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


def headline(states: Mapping[str, str], before: Standings, after: Standings) -> str:
    """What a run came to, in a line: the message of its last state, which lists of runs show."""
    ran = [name for name, state in states.items() if state == "ran"]
    did = f"{len(ran)} of {len(states)} stages had to run" if ran else "nothing had changed, so no stage had to run"
    new = [bucket for bucket, _ in changes(before, after)]
    return f"{did}; " + (f"new champion: {', '.join(new)}" if new else "champions unchanged")


def publish(root: Path, states: Mapping[str, str], before: Standings, after: Standings) -> None:
    """The results as a table, with the way to the report and to MLflow; the champions; what each stage did."""
    rows = "\n".join(f"| {name} | {state} |" for name, state in states.items())
    stages = f"| stage | state |\n|---|---|\n{rows}"
    with shown_if_possible():
        create_markdown_artifact(
            key="results", markdown=results(root), description="Test span, after all costs, beside the baselines"
        )
        create_markdown_artifact(
            key="champions", markdown=champions(before, after), description="Who decides, and whether that is new"
        )
        create_markdown_artifact(key="stages", markdown=stages, description="What ran")


def champions(before: Standings, after: Standings) -> str:
    """Markdown: each bucket's champion, what it may do, and what this run changed of it."""
    new = dict(changes(before, after))
    lines = ["| bucket | champion | walk-forward score | edge | may trade | this run |", "|---|--:|--:|---|---|---|"]
    for bucket, one in after.items():
        if one is None:
            lines.append(f"| {bucket} | none | | | nothing | |")
            continue
        may = "live" if one.edge == "proven" else "on paper alone"
        said = f"**new**: {new[bucket]}" if bucket in new else "unchanged"
        lines.append(f"| {bucket} | version {one.version} | {one.score:.4g} | {one.edge} | {may} | {said} |")
    return "\n".join(lines)


def results(root: Path) -> str:
    """Markdown: the table of results with the verdicts, links to MLflow, the report's place on disk."""
    from btcai.outputs import read_metrics
    from btcai.report.report import markdown

    return "\n".join([markdown(read_metrics(root)), "", *_places(root)])


def _places(root: Path) -> list[str]:
    """Links that work while MLflow's server runs; browsers refuse a link from a page to a file."""
    lines = [f"Report with pictures: `{(root / paths.EVALUATION / 'index.html').resolve()}`"]
    record = root / paths.REGISTER
    if record.is_file():
        pages = services.mlflow_pages(root)
        run = f"{pages}/{json.loads(record.read_text(encoding='utf-8'))['page']}"
        lines.append(
            f"In MLflow (`btcai up`): [this run]({run}{_TRAINING}), "
            f"[its report]({run}/artifacts/report/index.html{_TRAINING}), [models]({pages}/#/models{_TRAINING})"
        )
    return [f"- {line}" for line in lines]
