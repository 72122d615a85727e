"""A training run that is killed again and again, beside the one that was left alone: a program of its own.

python tests/killed_training.py toy|learner FOLDER KILLS SEED    prints a line of JSON; exit code 1 if the bits differ

Every life is a process of its own, which says so when it has compiled everything; the next one gets ready while this
one trains. They are forked from a process that has imported everything and computes nothing: of children of one that
had computed, one in fifty crashed on torch's threads.
"""

import copy
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # which the first optimizer of every life would import
from learning_tasks import SMALL, settings, small_task
from torch import Tensor, nn

from btcai.models.actor_critic import ActorCritic
from btcai.training import phase, pretraining, trainer
from btcai.training.health import BlewUp
from btcai.training.phase import Memory, Row, Step, survivable
from btcai.training.resume import Checkpoints, Live

Work = Callable[[Path | None, int], dict[str, Tensor]]
"""Trains so many updates from a seed, or goes on from the newest checkpoint in the folder's folders -> what it learned.
"""

TOY_EVERY = 2


def toy(folder: Path | None, updates: int) -> dict[str, Tensor]:
    """Regression on random data with dropout, by Adam at a falling rate; weights are averaged, the best ones kept."""
    checkpoints = Checkpoints(folder=folder / "1", key="toy") if folder else None
    torch.manual_seed(1)
    rng = np.random.default_rng(2)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
    average, optimizer = copy.deepcopy(model), torch.optim.Adam(model.parameters(), lr=1e-2)
    live = Live(
        modules={"model": model, "average": average}, optimizers={"adam": optimizer}, generators={"sampling": rng}
    )
    first, kept, best, rows = 0, {}, float("inf"), []
    if checkpoints is not None and (found := checkpoints.latest()) is not None:
        kept, facts = live.restore(found.tensors, found.facts)
        first, best, rows = found.update, facts["best"], facts["rows"]
    for update in range(first, updates):
        x = torch.from_numpy(rng.standard_normal((16, 6)).astype(np.float32))
        loss = (model(x) - x[:, :1] * x[:, 1:2]).square().mean()
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - update / updates)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 0.05)
        if update % 10 == 9:
            rows.append({"update": update + 1, "loss": loss.item()})
        if loss.item() < best:
            best, kept = loss.item(), copy.deepcopy(average.state_dict())
        if checkpoints is not None and (update + 1) % TOY_EVERY == 0:
            checkpoints.save(update + 1, *live.capture(kept, {"best": best, "rows": rows}))
    curve = torch.tensor([row["loss"] for row in rows], dtype=torch.float64)
    return {**kept, "curve": curve, **{f"last.{name}": weight for name, weight in model.state_dict().items()}}


def learner(folder: Path | None, updates: int) -> dict[str, Tensor]:
    """The learner itself, both phases: a small network on pure noise, and two updates of each phase that blow up."""
    stored = [Checkpoints(folder=folder / name, key=name) if folder else None for name in ("1", "2")]
    task, config = small_task(6000), settings()
    prediction = config.pretrain.model_copy(update={"stretches": 2, "decisions": 128})
    ppo = config.ppo.model_copy(
        update={"stretches": 2, "encoder_every": 2, "encoder_minibatches": 1, "head_minibatches": 1, "agents": 2}
    )
    torch.manual_seed(3)
    rng = np.random.default_rng(5)
    model = ActorCritic(SMALL, task.patch_bars, task.features.shape[1], len(task.bucket.horizons_bars))
    rows = list(trainer.pretrain(model, task, prediction, updates, rng, stored[0]))
    learned = {f"prediction.{name}": weight.clone() for name, weight in model.state_dict().items()}
    rows += trainer.train_ppo(model, task, ppo, updates, rng, stored[1])
    figures = [value for row in rows for _, value in sorted(row.items())]
    return {**learned, **model.state_dict(), "curves": torch.tensor(figures, dtype=torch.float64)}


def blowing_up(step: Step, live: Live, memory: Memory, updates: int, checkpoints: Checkpoints | None) -> Iterator[Row]:
    """phase.survivable, where some updates end with a weight that is not a number."""

    def blown(update: int, rate_share: float) -> Row:
        row = step(update, rate_share)
        if (update, rate_share) in ((4, 1.0), (13, 0.5)):
            next(live.modules["model"].parameters()).data.fill_(float("nan"))
            raise BlewUp("a weight is not finite")
        return row

    return survivable(blown, live, memory, updates, checkpoints)


WORK: dict[str, tuple[Work, int]] = {"toy": (toy, 400), "learner": (learner, 20)}
"""What is trained, and for how many updates."""


def digest(learned: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes."""
    together = hashlib.sha256()
    for name, tensor in sorted(learned.items()):
        together.update(name.encode() + tensor.numpy().tobytes())
    return together.hexdigest()


class Life:
    """A process that trains once it is told to, and then writes the digest of what it learned."""

    def __init__(self, name: str, result: Path) -> None:
        forked = multiprocessing.get_context("fork")
        self._told, told = forked.Pipe()
        self._process = forked.Process(target=live, args=(name, result, told))
        self._process.start()
        told.close()  # so that the end of a life that does not get ready is noticed

    def begin(self, stored: Path | None) -> None:
        """Let it train, from the newest checkpoint stored there."""
        try:
            self._told.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"training did not get ready, status {self._process.exitcode}") from None
        self._told.send(stored)

    def kill(self) -> None:
        self._process.kill()

    def ended(self) -> bool:
        """Wait for its end: by itself, or by SIGKILL."""
        self._process.join()
        self._told.close()
        if self._process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"training ended with status {self._process.exitcode}")
        return self._process.exitcode == 0


def live(name: str, result: Path, told: Connection) -> None:
    """What the process of a Life does."""
    work, updates = WORK[name]
    work(None, 10)  # what is compiled and imported only when it is first used, after an update that blows up too
    told.send("ready")
    result.write_text(digest(work(told.recv(), updates)), encoding="utf-8")
    os._exit(0)  # else kills strike an interpreter that tidies up after training


def survive(name: str, folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Train once undisturbed, then until so many kills at random moments have struck: digests, and where they struck.

    A run that ends before its next kill is followed by another. Kills struck after [phase, its newest checkpoint].
    """
    rng, stored, result = np.random.default_rng(seed), folder / name, folder / "digest"
    undisturbed_life, spare = Life(name, result), Life(name, result)
    undisturbed_life.begin(None)
    began_s = time.monotonic()
    undisturbed_life.ended()
    whole_s = min(3.0, time.monotonic() - began_s)  # of a process that stood still, no longer
    undisturbed, digests = result.read_text(encoding="utf-8"), []
    killed_after, half_written = [], 0
    while True:
        life, spare = spare, Life(name, result)
        life.begin(stored)
        if len(killed_after) < kills:
            time.sleep(rng.uniform(0, whole_s))
            life.kill()
        if life.ended():
            digests.append(result.read_text(encoding="utf-8"))
            shutil.rmtree(stored)
            if len(killed_after) == kills:
                break
        else:
            half_written += any(stored.glob("*/.update-*.new"))
            newest = max(stored.glob("*/update-*.safetensors"), default=Path("0/update-0"))
            killed_after.append([int(newest.parent.name), int(newest.stem.split("-")[1])])
    spare.kill()
    spare.ended()
    same = all(found == undisturbed for found in digests)
    return {"same": same, "runs": len(digests), "killed_after": killed_after, "half_written": half_written}


def main() -> None:
    """The command line."""
    torch.set_num_threads(1)
    phase.LEAST_APART, pretraining.HELD_OUT = 3, 8
    pretraining.survivable = trainer.survivable = blowing_up
    name, folder, kills, seed = sys.argv[1:]
    report = survive(name, Path(folder), int(kills), int(seed))
    sys.stdout.write(json.dumps(report) + "\n")
    sys.exit(not report["same"])


if __name__ == "__main__":
    main()
