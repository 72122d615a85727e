"""A tiny ablation on a local Ray cluster: a program of its own, one of whose workers can be killed.

python tests/spread_run.py FOLDER WORKERS    its outcomes are in FOLDER/trials.jsonl, its trainings in FOLDER/begun
"""

import os
import sys
from pathlib import Path

from export_fakes import market, scaler, splits, tiny_config

from btcai.config import Config
from btcai.experiments import on_ray
from btcai.experiments.arms import SCRATCH
from btcai.experiments.history import History
from btcai.experiments.running import Asked, make, make_spread, plan
from btcai.experiments.trials import Kept, Measured
from btcai.schema import Span

SPANS = splits(Span(2016, 7000), Span(7100, 9900))
ASKED = Asked(arms=(SCRATCH,), buckets=("short",), seeds=3, shares=(1.0,))
CONFIG = tiny_config(pretrain_updates=8, ppo_updates=4)


class Told(History):
    """Writes down each training that begins: the process and what it trains."""

    def __init__(self, folder: Path) -> None:
        super().__init__(CONFIG, market(), SPANS, scaler(), "data", folder / "teachers")
        self._begun = folder / "begun"

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        """As History does."""
        with self._begun.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {bucket}-{seed}-{config.transfer.alpha}\n")
        return super().run(config, bucket, seed, share)


def made(folder: Path, workers: int) -> None:
    """On Ray; in this process where there are no workers."""
    folder.mkdir(exist_ok=True)
    subject, kept = Told(folder), Kept(folder / "trials.jsonl")
    asked = plan(CONFIG, subject, ASKED, kept)
    if not workers:
        list(make(CONFIG, asked, subject))
        return
    with on_ray.cluster(on_ray.LOCAL, workers, 1) as run:
        list(make_spread(CONFIG, asked, subject, run))


if __name__ == "__main__":
    made(Path(sys.argv[1]), int(sys.argv[2]))
