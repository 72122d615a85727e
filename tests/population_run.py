"""A tiny population on Ray, on a simulated market: a program of its own, so that it can be killed.

python tests/population_run.py FOLDER AT_ONCE    prints a line of JSON: each member's rounds, and the best one's
"""

import json
import sys
from functools import partial
from pathlib import Path

from export_fakes import market, scaler, splits, tiny_config

from btcai.experiments.evolution import BEST, evolve
from btcai.experiments.history import History
from btcai.experiments.population import Population, Round
from btcai.schema import Span

SPANS = splits(Span(2016, 7000), Span(7100, 9900))
ASKED = Population(
    members=5,  # two of them go on from either of two others: Ray draws
    generations=3,
    settings=("pretrain.learning_rate", "pretrain.weight_decay"),
    buckets=("scalping",),
    seeds=1,
    share=1.0,
)
MADE = (ASKED.members + 1) * ASKED.generations + 1
"""Rounds at most, those with the settings as they are among them."""


def open_subject(folder: Path) -> History:
    """The market in use."""
    return History(tiny_config(), market(), SPANS, scaler(), "data", folder / "teachers")


def told(one: Round, done: int, wanted: int) -> None:
    """Nothing is on record of a market like this one."""


def main() -> None:
    """The command line."""
    folder, config = Path(sys.argv[1]), tiny_config()
    opened = partial(open_subject, folder)
    found = evolve(config, opened(), opened, ASKED, folder / "rounds", int(sys.argv[2]), told)
    steps = [
        (step.member, step.round.number, step.round.id, step.round.before, step.round.score) for step in found.steps
    ]
    best = found.lines[BEST]
    report = {"steps": sorted(steps), "best": [one.id for one in best.rounds], "elsewhere": best.elsewhere}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
