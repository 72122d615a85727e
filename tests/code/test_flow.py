"""Orchestration: the flow runs dvc.yaml's stages in order, and nothing that it starts outlives it."""

import json
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ended_process import gone

from btcai import paths
from btcai.environment import bin_first
from btcai.stages import STAGES
from flows import process, settings
from flows.process import stream

ROOT = Path(__file__).resolve().parents[2]
FAKE = """
stages:
  good:
    cmd: echo a line of good && echo 1 > good.txt
    outs: [good.txt]
  bad:
    cmd: "echo 'error: sum must be 2, was 3; count again' >&2 && exit 1"
    deps: [good.txt]
    outs: [bad.txt]
"""

WHOLE_RUN = """
import re, sys
from pathlib import Path
from flows import settings
root = Path(sys.argv[1])
settings.apply(root)
from flows import pipeline
pipeline.prepare = lambda root: None  # these stages use no bars
pipeline.publish = lambda root, states, before, after: None
print("first", pipeline.run(root))
print("second", pipeline.run(root))
(root / "slow.yaml").replace(root / "dvc.yaml")
for limit_s in (4.0, 16.0, 40.0, 120.0):  # it must begin before it is ended
    pipeline.LIMITS_S["slow"] = limit_s
    try:
        pipeline.run(root)
    except Exception as error:
        if not re.search(r"(?i)timed? ?out|exceeded", str(error)):
            raise
    else:
        sys.exit("it was not ended")
    pid_file = Path(sys.argv[2])
    if pid_file.is_file() and pid_file.read_text():
        print("limited")
        break
"""


def sleeper(pid_file: Path) -> list[str]:
    """A command whose child sleeps: what a stage under DVC looks like."""
    script = f"sleep 60 & echo $! > {pid_file}; echo started; wait"
    return ["/bin/sh", "-c", script]


def fake_project(root: Path) -> Path:
    (root / "dvc.yaml").write_text(FAKE, encoding="utf-8")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


def test_lines_arrive_while_the_child_still_runs(tmp_path: Path) -> None:
    arrived: list[str] = []

    def show(line: str) -> None:
        arrived.append(line)
        (tmp_path / "heard").touch()

    script = "echo one; until [ -e heard ]; do sleep 0.05; done; echo two"
    assert stream(["timeout", "60", "/bin/sh", "-c", script], cwd=tmp_path, env=os.environ, show=show) == 0
    assert arrived == ["one", "two"]


def test_exit_code_comes_back(tmp_path: Path) -> None:
    assert stream(["/bin/sh", "-c", "exit 7"], cwd=tmp_path, env=os.environ, show=lambda _: None) == 7


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_stage_takes_its_whole_process_group_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    pid_file = tmp_path / "pid"
    (first, _), *others = process.GRACE_S
    monkeypatch.setattr(process, "GRACE_S", ((first, 1.0), *others))  # the shell's child ignores SIGINT

    def interrupt(line: str) -> None:
        raise error(line)

    with pytest.raises(error):
        stream(sleeper(pid_file), cwd=tmp_path, env=os.environ, show=interrupt)
    assert gone(int(pid_file.read_text(encoding="utf-8")))


def test_a_stage_that_ignores_sigint_is_terminated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["/bin/sh", "-c", "trap '' INT; echo $$; sleep 60"]
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    grace = tuple((sign, 0.3) for sign, _ in process.GRACE_S)
    monkeypatch.setattr(process, "GRACE_S", grace)
    with pytest.raises(KeyboardInterrupt):
        stream(command, cwd=tmp_path, env=os.environ, show=interrupt)
    assert gone(pids[0])


def test_this_environments_commands_come_first_and_once() -> None:
    own = str(Path(sys.executable).parent)
    assert bin_first(f"/usr/bin:{own}:/bin").split(os.pathsep) == [own, "/usr/bin", "/bin"]


def test_stage_functions_are_those_of_dvc_yaml() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    names = []
    for name, stage in stages.items():
        names += [f"{name}@{key}" for key in stage["foreach"]] if "foreach" in stage else [name]
    assert names == list(STAGES)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Any]:
    """flows.pipeline, imported after Prefect's settings as the command line does it, its files in tmp_path."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("PREFECT_"):
            del os.environ[name]
    settings.apply(tmp_path)
    from flows import pipeline

    yield pipeline
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # DVC and Prefect warn of their own deprecations
class TestUnderDvc:
    def test_the_flows_stages_are_those_of_dvc_yaml(self, pipeline: Any) -> None:
        assert pipeline.stage_order(ROOT) == list(STAGES)

    def test_a_stage_runs_once_then_is_skipped(self, pipeline: Any, tmp_path: Path) -> None:
        fake_project(tmp_path)
        lines: list[str] = []
        assert pipeline.reproduce("good", tmp_path, force=False, show=lines.append) == "ran"
        assert lines == ["a line of good"]
        assert pipeline.reproduce("good", tmp_path, force=False, show=lines.append) == "skipped"
        assert pipeline.reproduce("good", tmp_path, force=True, show=lines.append) == "ran"

    def test_a_failed_stage_gives_its_own_error_line(self, pipeline: Any, tmp_path: Path) -> None:
        fake_project(tmp_path)
        pipeline.reproduce("good", tmp_path, force=False, show=lambda _: None)
        with pytest.raises(pipeline.StageFailed, match="stage bad failed: sum must be 2, was 3; count again"):
            pipeline.reproduce("bad", tmp_path, force=False, show=lambda _: None)

    def test_a_stage_that_fails_or_is_cancelled_gets_its_last_outputs_back(self, pipeline: Any, tmp_path: Path) -> None:
        fake_project(tmp_path)
        once = "test ! -e broken && cp input.txt out.txt"
        stage = {"cmd": once, "deps": ["input.txt"], "outs": ["out.txt"]}
        (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": stage}}), encoding="utf-8")
        (tmp_path / "input.txt").write_text("1", encoding="utf-8")
        pipeline.reproduce("copy", tmp_path, force=False, show=lambda _: None)
        (tmp_path / "input.txt").write_text("2", encoding="utf-8")
        (tmp_path / "broken").touch()
        with pytest.raises(pipeline.StageFailed, match="stage copy failed"):
            pipeline.reproduce("copy", tmp_path, force=False, show=lambda _: None)
        assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "1"

    @pytest.mark.parametrize("what", ["btcai data fetch", "btcai run --force"])
    @pytest.mark.parametrize("lives", [True, False])
    def test_a_run_in_a_terminal_is_told_to_end_only_where_its_process_is_still_it(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lives: bool, what: str
    ) -> None:
        from btcai.operation import run_lock
        from flows import control

        found = run_lock.Holder(pid=7, started_s=1.0, since="now", what=what)
        monkeypatch.setattr(run_lock, "holder", lambda root: found)
        monkeypatch.setattr(run_lock, "interrupt", lambda holder: lives and holder is found)
        told = f"{what}, process 7, was asked to end where it can go on from; go on with: {what}"
        assert control.pause(tmp_path) == (told if lives else "nothing runs")
        ended = f"cancelled: {what}, process 7; go on with: {what}"
        assert control.cancel(tmp_path) == (ended if lives else "nothing runs")

    def test_a_page_that_cannot_be_written_ends_no_run(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from flows import artifacts

        def unreachable(*_: object, **__: object) -> None:
            raise ConnectionError("the server restarts")

        monkeypatch.setattr(artifacts, "create_progress_artifact", unreachable)
        artifacts.Progress("train@short").step(0.5, "half")
        assert "Prefect's page was not updated" in caplog.text

    def test_progress_is_read_from_the_line_that_training_writes(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from btcai.training import curves
        from flows import artifacts

        with caplog.at_level("INFO", "btcai.training.curves"):
            curves.record([], [{"loss": 1.0}, {"valid_score": 2.0}], "short: PPO", 4)
        (line,) = caplog.messages
        shown: list[tuple[float, str]] = []
        monkeypatch.setattr(artifacts.Progress, "step", lambda _, done, text: shown.append((done, text)))
        progress = artifacts.Progress("train@short")
        progress.read(line)
        progress.read("reading 3/4 of something else")
        assert shown == [(0.5, "short: PPO, 2 of 4 updates")]

    def test_the_deployment_names_this_flow_and_a_valid_schedule(self, pipeline: Any) -> None:
        from prefect.client.schemas.schedules import CronSchedule
        from prefect.flows import load_flow_from_entrypoint

        (found,) = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
        flow = load_flow_from_entrypoint(str(ROOT / found["entrypoint"]))
        assert flow.name == "btcai-refresh"
        assert set(found["parameters"]) <= set(flow.parameters.properties)
        for schedule in found["schedules"]:
            CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])

    @pytest.mark.parametrize(
        ("force", "only_if_drifted", "missing", "verdict", "trains"),
        [
            (False, False, "", "steady", True),
            (False, True, "", "steady", False),
            (False, True, "", "retrain", True),
            (False, True, "champion", "steady", True),
            (False, True, "champion", "look_first", False),
            (False, True, "candidate", "steady", True),
            (True, True, "", "look_first", True),
            (False, False, "", "look_first", False),
            (False, True, "", "look_first", False),
        ],
    )
    def test_new_bars_come_first_and_what_they_are_like_starts_or_stops_the_training(
        self,
        pipeline: Any,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        force: bool,
        only_if_drifted: bool,
        missing: str,
        verdict: str,
        trains: bool,
    ) -> None:
        from flows import refresh

        done: list[str] = []

        def run_limited(name: str, root: Path) -> str:
            done.append(name)
            if name == "drift":
                (root / paths.DRIFT).mkdir(parents=True)
                found = json.dumps({"verdict": verdict, "reasons": "mean distance .4 is above drift.stop_ks .3"})
                (root / paths.DRIFT / "metrics.json").write_text(found, encoding="utf-8")
            return "ran"

        monkeypatch.setattr(refresh, "candidate_missing", lambda root: missing == "candidate")
        monkeypatch.setattr(refresh, "update", lambda root: done.append("update"))
        monkeypatch.setattr(refresh, "champions_missing", lambda root: missing == "champion")
        monkeypatch.setattr(refresh, "run_limited", run_limited)
        monkeypatch.setattr(refresh, "every_stage", lambda root, force, states=(): done.append("pipeline"))
        monkeypatch.setattr(refresh.news, "tell_silence", lambda root: None)
        told: list[str] = []
        monkeypatch.setattr(refresh.news, "notify", lambda event, title, body: told.append(event))
        if verdict == "look_first" and not force:
            with pytest.raises(pipeline.StageFailed, match=r"nothing was trained: mean distance .4 .* btcai run"):
                refresh.refreshed(tmp_path, force, only_if_drifted, warm_start=False)
        else:
            refresh.refreshed(tmp_path, force, only_if_drifted, warm_start=False)
        asked = [] if force or missing == "candidate" else ["validate", "features", "drift"]
        assert done == ["update", *asked, *(["pipeline"] if trains else [])]
        assert told == (["drift"] if asked and verdict != "steady" else [])

    def test_a_warm_start_is_asked_for_after_the_new_bars_and_before_their_features(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from flows import refresh

        done: list[str] = []

        def command(root: Path, *arguments: str, show: object, look: object = None) -> int:
            done.append(arguments[-1])
            return 1  # no finished run is there to go on from: the setting stays, and the run goes on

        monkeypatch.setattr(refresh, "candidate_missing", lambda root: False)
        monkeypatch.setattr(refresh, "get_run_logger", lambda: logging.getLogger("flows"))
        monkeypatch.setattr(refresh, "update", lambda root: done.append("update"))
        monkeypatch.setattr(refresh, "_btcai", command)
        monkeypatch.setattr(refresh, "run_limited", lambda name, root: done.append(name))
        monkeypatch.setattr(refresh, "read_verdict", lambda folder: ("steady", ""))
        monkeypatch.setattr(refresh, "every_stage", lambda root, force, states=(): done.append("pipeline"))
        monkeypatch.setattr(refresh.news, "tell_silence", lambda root: None)
        refresh.refreshed(tmp_path, False, False, True)
        assert done == ["update", "warm-start", "validate", "features", "drift", "pipeline"]

    def test_a_command_that_fails_fails_its_task(self, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows import refresh

        monkeypatch.setattr(refresh, "get_run_logger", lambda: logging.getLogger("flows"))
        monkeypatch.setattr(refresh, "_btcai", lambda root, *arguments, show, look: 1)
        with pytest.raises(pipeline.StageFailed, match="try again with: btcai data update"):
            refresh.update.fn(".")

    def test_a_stuck_stage_is_run_once_more_then_fails_with_what_to_do(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        begun = tmp_path / "lives"
        made: list[object] = []

        class Stall(pipeline.Stall):
            """Does not count until the stage has begun: a slow disk is not what is tried here."""

            def check(self, pid: int) -> object:
                if self not in made:
                    made.append(self)
                if not begun.is_file() or begun.read_text(encoding="utf-8").count("\n") < len(made):
                    self.wrote()
                return super().check(pid)

        fake_project(tmp_path)
        monkeypatch.setattr(pipeline, "Stall", Stall)
        monkeypatch.setattr(pipeline, "STALL_LIMIT_S", 4.0)
        monkeypatch.setattr(process, "LOOK_S", 0.1)
        stage = {"cmd": f"echo begun >> {begun}; sleep 600", "outs": ["never.txt"]}
        (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"stuck": stage}}), encoding="utf-8")
        with pytest.raises(pipeline.StageFailed, match=r"used no processor for \d+ s, twice"):
            pipeline.unstuck("stuck", tmp_path, force=False, show=lambda _: None, asked=lambda: None)
        assert begun.read_text(encoding="utf-8") == "begun\n" * 2

    def test_a_new_champion_is_told_also_where_a_later_stage_fails(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from flows import news

        def run_limited(name: str, root: Path, again: bool) -> str:
            if name == "drift":
                raise pipeline.StageFailed("drift")
            if name == "register":
                found["short"] = name
            return "ran"

        found: dict[str, str] = {}
        told: list[tuple[Any, Any]] = []
        monkeypatch.setattr(pipeline, "run_limited", run_limited)
        monkeypatch.setattr(pipeline, "stage_order", lambda root: ["reflect", "register", "drift"])
        monkeypatch.setattr(pipeline, "champions_missing", lambda root: False)
        monkeypatch.setattr(pipeline, "Progress", lambda name: SimpleNamespace(step=lambda share, text: None))
        monkeypatch.setattr(news, "standings", lambda root: dict(found))
        monkeypatch.setattr(news, "tell_champions", lambda before, after: told.append((before, after)))
        with pytest.raises(pipeline.StageFailed):
            pipeline.every_stage(tmp_path, force=False)
        assert [one for one in told if one[0] != one[1]] == [({}, {"short": "register"})]

    def test_a_new_champion_and_a_proven_edge_are_told_once(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from btcai.records.champions import Standing
        from flows import artifacts, news

        old = Standing(
            bucket="short", version=1, data_version="d", code_version="c", judged_on="j", score=0.5, edge="none",
            run_id="a",
        )  # fmt: skip
        new = replace(old, version=2, score=0.75, edge="proven", run_id="b")
        before, after = {"short": old, "long": None}, {"short": new, "long": None}
        told: list[tuple[str, str, str]] = []
        monkeypatch.setattr(news, "notify", lambda *notice: told.append(notice))
        news.tell_champions(before, after)
        news.tell_champions(after, after)
        what = "version 2, score 0.75, edge proven; before: version 1, edge none"
        assert told == [("champion", "edge proven: short", f"short: {what}")]
        assert artifacts.champions(before, after).splitlines()[2:] == [
            f"| short | version 2 | 0.75 | proven | live | **new**: {what} |",
            "| long | none | | | nothing | |",
        ]

    def test_silence_of_a_fetched_market_is_told_and_a_simulated_one_may_be_silent(
        self, pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from btcai.data import sources
        from flows import news

        told: list[str] = []
        monkeypatch.setattr(news, "notify", lambda event, title, body: told.append(title))
        monkeypatch.setattr(sources, "clock_ms", lambda: 100 * news.HOUR_MS)
        (tmp_path / paths.PARAMS).write_bytes((ROOT / paths.PARAMS).read_bytes())
        for newest in (None, 88 * news.HOUR_MS, 88 * news.HOUR_MS - 1):
            monkeypatch.setattr(news, "_newest_ms", lambda root, newest=newest: newest)
            news.tell_silence(tmp_path)
        assert told == ["no new bars of simulated for 12 h"]

    def test_a_failed_run_is_told_with_its_reason(self, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:

        from prefect.states import Crashed, Failed

        from flows import news

        told: list[tuple[str, str, str]] = []
        monkeypatch.setattr(news, "notify", lambda *notice: told.append(notice))
        monkeypatch.setattr(news, "_at_work", lambda run: "; it was at train@short")
        monkeypatch.setattr(news, "_log_as_the_project_does", lambda root: None)
        flow = SimpleNamespace(name="btcai-refresh")
        run = SimpleNamespace(name="calm-crow", deployment_id=None, parameters={})
        raised = f"Flow run encountered an exception: StageFailed: stage evaluate failed: x{news.GO_ON}"
        news.failed(flow, run, Failed(message=raised))  # type: ignore[arg-type]
        interrupted = Crashed(message="Execution was aborted by an interrupt signal.")
        news.failed(flow, run, interrupted)  # type: ignore[arg-type]
        news.failed(flow, run, Crashed(message="SIGKILL."))  # type: ignore[arg-type]
        assert told == [
            (
                "failed",
                "btcai-refresh failed",
                "run calm-crow: stage evaluate failed: x\n"
                "what helps: what was finished is kept; mend it, then go on with: btcai run",
            ),
            (
                "failed",
                "btcai-refresh was stopped",
                "run calm-crow: Execution was aborted by an interrupt signal; it was at train@short\n"
                "what helps: what was finished is kept; training goes on from its checkpoint with: btcai run",
            ),
            (
                "failed",
                "btcai-refresh was killed",
                "run calm-crow: SIGKILL; it was at train@short\n"
                "what helps: what was finished is kept; training goes on from its checkpoint with: btcai run",
            ),
        ]

    def test_reason_falls_back_to_dvcs_line_then_to_the_code(self, pipeline: Any) -> None:
        assert pipeline.reason(deque(["x", "ERROR: no such stage"]), 255) == "no such stage"
        assert pipeline.reason(deque(["x"]), 9) == "exit code 9"

    def test_a_whole_flow_run_and_its_time_limit(self, tmp_path: Path) -> None:
        # In a process of its own: Prefect's threads go on looking for the server that the run had started, and a
        # process that draws random numbers beside them is no longer the same twice (hypothesis finds that out).
        fake_project(tmp_path)
        (tmp_path / "dvc.yaml").write_text(FAKE.split("  bad:")[0], encoding="utf-8")
        pid_file = tmp_path / "pid"
        slow = {"stages": {"slow": {"cmd": f"sleep 600 & echo $! > {pid_file}; wait", "outs": ["slow.txt"]}}}
        (tmp_path / "slow.yaml").write_text(yaml.safe_dump(slow), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        ran = subprocess.run(
            [sys.executable, "-c", WHOLE_RUN, str(tmp_path), str(pid_file)],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert [line for line in ran.stdout.splitlines() if line.startswith(("first", "second", "limited"))] == [
            "first {'good': 'ran'}",
            "second {'good': 'skipped'}",
            "limited",
        ]
        assert gone(int(pid_file.read_text(encoding="utf-8")))
