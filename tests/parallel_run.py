"""One of several processes that train a tiny network together: a program of its own, for torchrun to start.

python -m torch.distributed.run --nproc-per-node 2 tests/parallel_run.py gradients|train|stop FOLDER

Each leaves what it came to in FOLDER/rank-N.safetensors; `train` leaves its bucket in FOLDER/trained as well. `stop`
asks the last process alone to stop, in the middle.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from export_fakes import market, scaler, splits, tiny_config
from learning_tasks import fresh_model, small_task
from safetensors.torch import save_file
from torch import Tensor

from btcai.agent.shards import SHARDS, place, shards
from btcai.agent.task import sample_stretches
from btcai.paths import WEIGHTS
from btcai.schema import Span
from btcai.training import parallel, phase, stopping
from btcai.training.phase import Row
from btcai.training.pretraining import prediction_loss
from btcai.training.progressive import train_bucket

SPANS = splits(Span(2016, 7000), Span(7100, 9900))
UPDATES = {"pretrain_updates": 4, "ppo_updates": 4}
STRETCHES = 8


def gradients() -> dict[str, Tensor]:
    """Of the prediction loss of eight stretches, and the loss."""
    torch.manual_seed(0)
    task = small_task(n_bars=3000)
    model = fresh_model(task)
    batch = sample_stretches(task, task.train, STRETCHES, 128, np.random.default_rng(0))

    def part(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        some = batch.part(rows)
        loss = prediction_loss(task, model.read(some.tokens, banded=True), some)
        return loss, loss.detach()

    with shards() as workers:
        parts = [partial(part, rows) for rows in np.split(np.arange(STRETCHES), SHARDS)]
        loss = workers.gradients(list(model.parameters()), parts)
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {**found, "loss": loss}


def trained(folder: Path) -> None:
    """The first bucket, its checkpoints two updates apart, in FOLDER/trained."""
    phase.LEAST_APART = 2
    config = tiny_config(**UPDATES)
    with parallel.written_once(folder / "trained") as out:
        train_bucket(market(), SPANS, scaler(), "scalping", config, None, out, folder / "checkpoints")
        content = (out / WEIGHTS).read_bytes()
    (folder / f"rank-{place()[0]}.safetensors").write_bytes(content)


def stopped(folder: Path) -> None:
    """As `trained`, but the last process is asked to stop at its first update of prediction."""
    saved = phase.survivable

    def asked(step: phase.Step, *rest: object) -> object:
        def noted(update: int, share: float) -> Row:
            row = step(update, share)
            if update == 0 and place()[0] == place()[1] - 1:
                stopping._asked.set()
            return row

        return saved(noted, *rest)  # type: ignore[arg-type]

    from btcai.training import pretraining

    pretraining.survivable = asked  # type: ignore[assignment]
    try:
        trained(folder)
    except stopping.Stopped as told:
        (folder / f"stopped-{place()[0]}").write_text(str(told), encoding="utf-8")


def main() -> None:
    """The command line."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    with parallel.joined("cpu"):
        if what == "gradients":
            save_file(gradients(), folder / f"rank-{place()[0]}.safetensors")
        else:
            {"train": trained, "stop": stopped}[what](folder)


if __name__ == "__main__":
    main()
