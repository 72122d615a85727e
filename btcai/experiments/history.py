"""Settings on the market in use: trained on the training span, held against the validation span; no more is read."""

import copy
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from btcai.config import Config
from btcai.experiments.running import settings_key
from btcai.experiments.trials import Measured
from btcai.features.scaling import Scaler
from btcai.features.splits import Splits
from btcai.files import whole
from btcai.machine import training_bytes
from btcai.paths import WEIGHTS
from btcai.schema import BUCKETS, MarketData
from btcai.training.progressive import train_bucket, train_further

BESIDE = ("valid_score", "valid_ic_h1", "valid_orders")
"""Figures of train_bucket that are kept beside the score."""


class History:
    """Trains a bucket after its teacher, as the stage `train` does; the full budget is one round of the profile in use.

    The score is the prediction loss on the validation span, below zero: a policy that has nothing to trade on stays
    flat, and flat policies do not differ. So it says nothing of what PPO alone reads, as long as PPO leaves the encoder
    as it is. All seeds share one span: an interval over them says nothing of other markets. Teachers are as configured
    and kept in `folder`.
    """

    name = "market"

    def __init__(
        self, config: Config, data: MarketData, splits: Splits, scaler: Scaler, data_version: str, folder: Path
    ) -> None:
        self._config, self._data, self._splits, self._scaler = config, data, splits, scaler
        spans = {"train": asdict(splits.train), "valid": asdict(splits.valid)}
        budget = config.budget.model_dump(include={"pretrain_updates", "ppo_updates"})
        self.seen_ts_ns = int(data.bars.close_ts_ns[0]), int(data.bars.close_ts_ns[-1])
        self.terms = {"data_version": data_version, "spans": spans, "budget": budget}
        self.folder = folder / settings_key([config], self.terms)

    def memory_bytes(self, bucket: str) -> float:
        """As running.Subject has it."""
        return training_bytes(len(self._data))

    def sees(self, one: Config, other: Config) -> bool:
        """Whether they differ in what forecasts are learned by."""
        if one.ppo.encoder_every or other.ppo.encoder_every:
            return one != other
        return _predicting(one) != _predicting(other)

    def run(self, config: Config, bucket: str, seed: int, share: float) -> Measured:
        """Train and judge."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder) as out:
            found = self._train(config, bucket, seed, share, Path(out))
        return Measured(
            score=-found["valid_forecast_loss"],
            decisions=int(found["decision_times"]),
            more={name: found[name] for name in BESIDE},
        )

    def train_round(
        self, config: Config, bucket: str, seed: int, share: float, number: int, before: Path | None, out: Path
    ) -> float:
        """As population.Staged has it."""
        if before is None:
            return -self._train(config, bucket, seed, share, out)["valid_forecast_loss"]
        settings = _budgeted(config, seed, share)
        return -train_further(self._data, self._splits, bucket, settings, before, out, number)

    def held_out(self, config: Config, bucket: str, seed: int, trained: Path) -> None:
        """None: beyond the validation span nothing is read."""

    def kept_in(self, folder: Path) -> Self:
        """As running.Movable has it."""
        other = copy.copy(self)
        other.folder = folder
        return other

    def teach(self, bucket: str, seed: int) -> None:
        """As running.Movable has it."""
        self._teacher(bucket, seed)

    def _train(self, config: Config, bucket: str, seed: int, share: float, out: Path) -> dict[str, float]:
        settings, teacher = _budgeted(config, seed, share), self._teacher(bucket, seed)
        return train_bucket(self._data, self._splits, self._scaler, bucket, settings, teacher, out)

    def _teacher(self, bucket: str, seed: int) -> Path | None:
        """The folder of the bucket before it, trained in full as configured; None for the first."""
        place = BUCKETS.index(bucket)
        if place == 0:
            return None
        before = BUCKETS[place - 1]
        folder = self.folder / f"{before}-{seed}"
        if not (folder / WEIGHTS).is_file():
            with whole(folder) as out:
                self._train(self._config, before, seed, 1.0, out)
        return folder


def _budgeted(config: Config, seed: int, share: float) -> Config:
    """One round of a share of the profile's updates."""
    budget = config.budget
    amounts = {
        "rounds": 1,
        "pretrain_updates": max(1, round(share * budget.pretrain_updates)),
        "ppo_updates": max(1, round(share * budget.ppo_updates)),
    }
    profiles = {**config.profiles, config.profile: budget.model_copy(update=amounts)}
    return config.model_copy(update={"seed": seed, "profiles": profiles})


def _predicting(config: Config) -> dict[str, object]:
    """Without what PPO alone reads."""
    return config.model_dump(exclude={"ppo": True, "transfer": {"policy", "kickstart", "kickstart_frac"}})
