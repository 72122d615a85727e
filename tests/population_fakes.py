"""A market that is known by heart in place of trainings, and a population's scheduler in place of Ray's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from btcai.config import Config
from btcai.experiments.population import Population, Rounds, Step, explored
from btcai.experiments.trials import Measured
from btcai.training.health import TrainingError

TOP = 0.3


class Slope:
    """Each round climbs by 1 less a hundred times the squared distance of clip from TOP; long is half as steep."""

    def __init__(self, name: str = "slope", elsewhere: float | None = -0.5, blows_up_at: float | None = None) -> None:
        self.name, self.terms = name, {"top": TOP}
        self.seen_ts_ns = (3, 8) if name == "market" else None
        self.elsewhere, self.blows_up_at = elsewhere, blows_up_at
        self.made: list[tuple[str, int, int, float]] = []
        """Bucket, seed, number, share."""

    def memory_bytes(self, bucket: str) -> float:
        return 1e6

    def sees(self, one: Config, other: Config) -> bool:
        return (one.ppo.clip, one.ppo.value_coef) != (other.ppo.clip, other.ppo.value_coef)

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        raise NotImplementedError

    def train_round(
        self, config: Config, bucket: str, seed: int, share: float, number: int, before: Path | None, out: Path
    ) -> float:
        self.made.append((bucket, seed, number, share))
        if config.ppo.clip == self.blows_up_at:
            raise TrainingError("blew up")
        height = 0.0 if before is None else float((before / "height").read_text("utf-8"))
        climbed = (1.0 - 100.0 * (config.ppo.clip - TOP) ** 2) * (0.5 if bucket == "long" else 1.0)
        out.mkdir(parents=True)
        (out / "height").write_text(repr(height + climbed), encoding="utf-8")
        return height + climbed

    def held_out(self, config: Config, bucket: str, seed: int, trained: Path) -> float | None:
        return None if self.elsewhere is None else float((trained / "height").read_text("utf-8")) + self.elsewhere


def evolve_here(
    rounds: Rounds,
    reopen: Callable[[], Rounds],
    population: Population,
    begin: list[dict[str, float]],
    seed: int,
    threads: int,
    at_once: int,
    told: Callable[[Step], None],
) -> None:
    """on_ray.evolve's part, in this process: of a generation the worst member goes on from the best one."""
    rng = np.random.default_rng(seed)
    states: list[tuple[str | None, dict[str, float]]] = [(None, settings) for settings in begin]
    for _ in range(population.generations):
        made = [rounds.after(before, settings) for before, settings in states]
        for member, one in enumerate(made):
            told(Step(member=member, round=one))
        states = [(one.id, one.settings) for one in made]
        ranked = sorted(range(len(made)), key=lambda member: made[member].score or -1e9)
        states[ranked[0]] = (made[ranked[-1]].id, explored(made[ranked[-1]].settings, rng))
