"""A small project under the real services: its one stage trains as ours do, for seconds, and is checked to the bit.

`make_project` writes it, `Operated` drives it: btcai's own commands as processes, Prefect's API as its pages use it.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

UPDATES = 500
"""Enough for a training at SLOW_S to be at work still when the last command of a test has been heard."""
ANSWER_S = 120.0
"""On a machine that does four times its work Prefect's server has taken over 30 s to answer."""
PATIENCE_S = 600.0
"""What is waited for at most: on such a machine a run takes minutes to begin."""
SLOW_S, QUICK_S = 0.25, 0.0
"""What an update takes; the file `pace` says so, and a test may change it while the training goes on."""

TRAINER = f"""
import hashlib, sys, time
from pathlib import Path
import numpy as np
import torch
from btcai.training import stopping
from btcai.training.phase import Memory, survivable
from btcai.training.resume import Checkpoints, Live

torch.set_num_threads(1)
torch.manual_seed(1)
rng = np.random.default_rng(2)
model = torch.nn.Linear(4, 1)
adam = torch.optim.Adam(model.parameters(), lr=1e-2)

def step(update, share):
    time.sleep(float(Path('pace').read_text()))
    x = torch.from_numpy(rng.standard_normal((8, 4)).astype(np.float32))
    loss = (model(x) - x[:, :1] * x[:, 1:2] + 0.1 * torch.randn(8, 1)).square().mean()
    adam.zero_grad(); loss.backward(); adam.step()
    return {{"loss": loss.item()}}

with stopping.on_signals():
    live = Live(modules={{"model": model}}, optimizers={{"adam": adam}}, generators={{"sampling": rng}})
    kept = Checkpoints(folder=Path("checkpoints"), key="toy")
    first = True
    if Path("broken").exists():
        sys.exit("error: sum must be 2, was 3; count again")
    try:
        for row in survivable(step, live, Memory(kept={{}}, facts={{}}), {UPDATES}, kept):
            if first:
                with open("beginnings", "a") as file:
                    file.write(f"{{kept.latest().update if kept.latest() else 0}}\\n")
                first = False
            if int(row["update"]) % 10 == 0 or float(Path("pace").read_text()) > 1:
                print(f"toy: PPO [#] {{int(row['update'])}}/{UPDATES}  score 1", flush=True)
    except stopping.Stopped as error:
        sys.exit(f"error: {{error}}")
bits = b"".join(weight.numpy().tobytes() for weight in model.state_dict().values())
Path("weights.txt").write_text(hashlib.sha256(bits).hexdigest())
kept.clear()
"""

ENTRY = """
from prefect.concurrency import _leases
_leases._RENEWAL_FRACTION = 0.005            # the lease of the run's place is renewed every 1.5 s; 225 by itself
from flows import news, pipeline, refresh as ours
ours.prepare = lambda root: None             # this project has no bars
ours.update = lambda root: None
news.tell_silence = lambda root: None
pipeline.publish = lambda root, states, before, after: None
pipeline.champions_missing = lambda root: False
refresh = ours.refresh
"""

COMMANDS = """
import typer
from btcai.commands import operate
app = typer.Typer()
for command in (operate.up, operate.down, operate.status, operate.pause, operate.resume, operate.cancel):
    app.command()(command)
app()
"""


def free_port() -> int:
    """Which nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_project(root: Path) -> None:
    """A git checkout with DVC, one stage `toy`, and the flow deployed as ours is."""
    (root / "trainer.py").write_text(TRAINER, encoding="utf-8")
    (root / "entry.py").write_text(ENTRY, encoding="utf-8")
    (root / "params.yaml").write_text("{}\n", encoding="utf-8")
    stage = {"cmd": f"{shlex.quote(sys.executable)} trainer.py", "deps": ["trainer.py"], "outs": ["weights.txt"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"toy": stage}}), encoding="utf-8")
    deploy(root, "entry.py:refresh", force=True)
    (root / "mlflow").mkdir()
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)


def deploy(root: Path, entrypoint: str, **parameters: object) -> None:
    """prefect.yaml, as ours is but for the hour: no run of the schedule comes while a test is at work."""
    ours = yaml.safe_load((Path(__file__).parents[1] / "prefect.yaml").read_text(encoding="utf-8"))
    (deployment,) = ours["deployments"]
    deployment["entrypoint"] = entrypoint
    deployment["parameters"] = parameters
    later = datetime.now(UTC) + timedelta(hours=12)
    deployment["schedules"][0]["cron"] = f"{later.minute} {later.hour} * * *"
    (root / "prefect.yaml").write_text(yaml.safe_dump(ours), encoding="utf-8")


def undisturbed(root: Path) -> str:
    """The digest of what the toy learns when nobody disturbs it."""
    root.mkdir()
    (root / "trainer.py").write_text(TRAINER, encoding="utf-8")
    (root / "pace").write_text("0", encoding="utf-8")
    subprocess.run([sys.executable, "trainer.py"], cwd=root, check=True, capture_output=True)
    return (root / "weights.txt").read_text(encoding="utf-8")


class Operated:
    """A project whose services are up on `port`."""

    def __init__(self, root: Path, port: int, mlflow_port: int, notify_url: str = "") -> None:
        self.root, self.port, self.mlflow_port = root, port, mlflow_port
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self._env = {**kept, "BTCAI_NOTIFY_URL": notify_url, "PREFECT_WORKER_QUERY_SECONDS": "1"}  # 10 by itself

    def btcai(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of btcai's commands."""
        return subprocess.run(
            [sys.executable, "-c", COMMANDS, *arguments],
            cwd=self.root, env=self._env, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """What `btcai status` says, once all services answer within its 5 s."""
        for _ in range(5):
            told = self.btcai("status", "--json")
            if told.returncode == 0:
                break
        assert told.returncode == 0, told.stdout
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    def up(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.btcai("up", "--prefect-port", str(self.port), "--mlflow-port", str(self.mlflow_port), *more)

    def token(self) -> dict[str, str]:
        """What the page and Prefect's own client send: the server takes no request of a page that cannot read it."""
        page = f"http://127.0.0.1:{self.port}/api/csrf-token?client=tests"
        with urllib.request.urlopen(page, timeout=ANSWER_S) as answer:
            return {"Prefect-Csrf-Client": "tests", "Prefect-Csrf-Token": json.load(answer)["token"]}

    def api(self, path: str, body: object = None) -> Any:
        """What Prefect's API answers; a POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        for _ in range(20):
            try:
                asked = urllib.request.Request(address, data, {"Content-Type": "application/json", **self.token()})
                with urllib.request.urlopen(asked, timeout=ANSWER_S) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503:  # its database is busy: pages and clients of Prefect ask again, too
                    raise
                time.sleep(0.5)
        raise TimeoutError(f"Prefect's database is busy for ever: {path}")

    def deployment(self) -> str:
        return str(self.api("deployments/name/btcai-refresh/daily")["id"])

    def start(self) -> str:
        """A run, as the pages' Quick run starts one; its id."""
        return str(self.api(f"deployments/{self.deployment()}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"])

    def due(self, runs: int, days: int) -> None:
        """So many runs of the schedule are due, as after so many days off."""
        now = datetime.now(UTC)
        span = {"start_time": (now - timedelta(days=days)).isoformat(), "end_time": now.isoformat()}
        self.api(f"deployments/{self.deployment()}/schedule", {**span, "min_runs": runs, "max_runs": runs})

    def scheduled(self) -> list[dict[str, Any]]:
        """Runs of the schedule that are or were due."""
        asked = {
            "expected_start_time": {"before_": datetime.now(UTC).isoformat()},
            "deployment_id": {"any_": [self.deployment()]},
        }
        return [run for run in self.api("flow_runs/filter", {"flow_runs": asked}) if run["auto_scheduled"]]

    def tasks(self, run_id: str) -> dict[str, str]:
        """What became of each task of a run, the last of a name."""
        asked = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return {task["name"]: task["state_name"] for task in self.api("task_runs/filter", asked)}

    def state(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api(f"flow_runs/{run_id}")["state"]
        return found

    def wait(self, run_id: str, *names: str) -> dict[str, Any]:
        """Until the run's state has one of these names."""
        try:
            return until(lambda: state if (state := self.state(run_id))["name"] in names else None)
        except TimeoutError as error:
            raise TimeoutError(f"{error}, but {self.state(run_id)}") from error

    def is_done_with(self, run_id: str) -> bool:
        """Whether the worker has said all it has to say of the run's end, after which it may be retried."""
        one = {"event": {"name": ["prefect.worker.executed-flow-run"]}}
        found = self.api("events/filter", {"filter": {**one, "any_resource": {"id": [f"prefect.flow-run.{run_id}"]}}})
        return bool(found["events"])

    def begin_anew(self) -> None:
        """No run at work or paused, and a training that has not begun."""
        active = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "PAUSED", "CANCELLING"]}}}}
        if self.api("flow_runs/filter", active):
            self.btcai("cancel")
            until(lambda: not self.api("flow_runs/filter", active))
        for name in ("weights.txt", "beginnings", "dvc.lock"):
            (self.root / name).unlink(missing_ok=True)
        shutil.rmtree(self.root / "checkpoints", ignore_errors=True)
        self.pace(SLOW_S)

    def pace(self, update_s: float) -> None:
        """What an update of the training takes from now on."""
        draft = self.root / "pace.new"
        draft.write_text(str(update_s), encoding="utf-8")
        draft.replace(self.root / "pace")

    def wait_for_checkpoint(self, least: int = 10) -> None:
        """Until the stage has trained so many updates."""
        until(lambda: self.checkpoint() >= least)

    def wait_for_stage(self, run_id: str) -> None:
        """Until Prefect's server knows that the stage is at work: states of tasks reach it late."""
        until(lambda: self.tasks(run_id).get("toy") == "Running")

    def checkpoint(self) -> int:
        """The update of the newest checkpoint; 0 where there is none."""
        files = (self.root / "checkpoints").glob("update-*.safetensors")
        return max((int(file.stem.split("-")[1]) for file in files), default=0)

    def beginnings(self) -> list[int]:
        """After which update each life of the training went on, in turn."""
        return [int(line) for line in (self.root / "beginnings").read_text(encoding="utf-8").split()]

    def weights(self) -> str:
        return (self.root / "weights.txt").read_text(encoding="utf-8")


def until(ask: Callable[[], Any]) -> Any:
    """What `ask` answers once that is true."""
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        if found := ask():
            return found
        time.sleep(0.25)
    raise TimeoutError(f"not in {PATIENCE_S:.0f} s")
