"""The settings as frozen, validated sections; functions take the section they need, never the whole."""

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from btcai.config.bucket import BucketConfig, RewardConfig
from btcai.config.learning import (
    AugmentConfig,
    ConsolidateConfig,
    ConvergenceConfig,
    MetaConfig,
    ModelConfig,
    PpoConfig,
    PretrainConfig,
    ProfileConfig,
    ReplayConfig,
    TransferConfig,
    WarmStartConfig,
)
from btcai.config.market import (
    CostConfig,
    ExchangeConfig,
    FeeTier,
    MarketConfig,
    PerpetualConfig,
    RiskConfig,
    Severity,
    SizingConfig,
    SizingStrategy,
    TransfersConfig,
)
from btcai.config.section import Section
from btcai.logs.settings import LogSettings
from btcai.redaction import looks_secret
from btcai.schema import BUCKETS

ProfileName = Literal["quick", "standard", "full"]

__all__ = [
    "AugmentConfig",
    "BucketConfig",
    "Config",
    "ConsolidateConfig",
    "ConvergenceConfig",
    "CostConfig",
    "DataConfig",
    "DriftConfig",
    "ExchangeConfig",
    "FeeTier",
    "MarketConfig",
    "MetaConfig",
    "ModelConfig",
    "PerpetualConfig",
    "PpoConfig",
    "PretrainConfig",
    "ProfileConfig",
    "ProfileName",
    "ReplayConfig",
    "RewardConfig",
    "RiskConfig",
    "Severity",
    "SizingConfig",
    "SizingStrategy",
    "SplitConfig",
    "TransferConfig",
    "TransfersConfig",
    "WarmStartConfig",
]


class DataConfig(Section):
    """Which market is in use: a folder of monthly parquet files under data/."""

    market: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")


class SplitConfig(Section):
    """Shares of the history by time, train first; the remainder at the end is sealed."""

    train_frac: float = Field(gt=0, lt=1)
    valid_frac: float = Field(gt=0, lt=1)
    test_frac: float = Field(gt=0, lt=1)
    test_folds: int = Field(ge=2, le=24)
    embargo_bars: int = Field(ge=0)

    @model_validator(mode="after")
    def _leaves_a_sealed_span(self) -> Self:
        total = self.train_frac + self.valid_frac + self.test_frac
        if total >= 1:
            raise ValueError(f"train_frac + valid_frac + test_frac must be < 1 to leave a sealed span, was {total}")
        return self


class DriftConfig(Section):
    """When the newest bars are too unlike those that were trained on."""

    window_days: int = Field(ge=1)
    """The newest, held against windows as long."""
    usual_quantile: float = Field(gt=0.5, le=1)
    """Of what windows of the training span (of forecasts: the test span) show: beyond it, train again."""
    stop_ks: float = Field(gt=0, le=1)
    """Mean Kolmogorov-Smirnov distance over features above which a person looks before anything is trained."""
    stop_psi: float = Field(gt=0)
    """The same of the mean population stability index."""
    stop_volatility: float = Field(ge=1)
    """The same of volatility: times above the highest of the span's windows, or below the lowest."""


class Config(Section):
    """The whole of params.yaml."""

    data: DataConfig
    profile: ProfileName
    seed: int = Field(ge=0)
    threads: int = Field(ge=1)
    device: Literal["cpu", "cuda"]
    """Where the stages `train` and `consolidate` train encoders; heads and accounts stay on the CPU. On cuda the plain
    form of the network runs, not the compiled one: measure it with btcai bench train --only features first."""
    splits: SplitConfig
    market: MarketConfig
    risk: RiskConfig
    sizing: SizingConfig
    buckets: dict[str, BucketConfig]
    model: ModelConfig
    pretrain: PretrainConfig
    augment: AugmentConfig
    ppo: PpoConfig
    meta: MetaConfig
    warm_start: WarmStartConfig
    transfer: TransferConfig
    convergence: ConvergenceConfig
    consolidate: ConsolidateConfig
    drift: DriftConfig
    profiles: dict[ProfileName, ProfileConfig]
    logs: LogSettings = Field(default_factory=LogSettings, exclude=True)
    """Changes no result, and so it is in no dump: neither a checkpoint nor a record of what was trained asks for it."""

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, raw: object) -> object:
        if found := ", ".join(_secret_names(raw)):
            raise ValueError(
                f"no key or password belongs into a file, found {found}; take it out, make a new one where the file "
                "was shared, and give it with: btcai secrets set NAME (btcai secrets list has the names)"
            )
        return raw

    @model_validator(mode="after")
    def _sections_match(self) -> Self:
        if tuple(self.buckets) != BUCKETS:
            raise ValueError(f"buckets must be {', '.join(BUCKETS)} in this order, was {', '.join(self.buckets)}")
        if self.transfer.policy and len({len(bucket.horizons_bars) for bucket in self.buckets.values()}) > 1:
            raise ValueError(
                "transfer.policy needs equally many horizons_bars in every bucket: a policy reads them all"
            )
        if self.transfer.kickstart and self.ppo.replay.trajectories:
            raise ValueError("transfer.kickstart needs ppo.replay.trajectories 0: no teacher is asked about old ones")
        if self.market.perpetual.allow_short and self.sizing.strategy not in ("uncertainty_adjusted", "fixed"):
            raise ValueError(
                "market.perpetual.allow_short needs sizing.strategy uncertainty_adjusted or fixed, was "
                f"{self.sizing.strategy}; the others size a lot by its chance to rise"
            )
        if self.profile not in self.profiles:
            raise ValueError(f"profile must be one of {sorted(self.profiles)}, was {self.profile}")
        return self

    @property
    def budget(self) -> ProfileConfig:
        return self.profiles[self.profile]

    @property
    def purge_bars(self) -> int:
        """The longest prediction horizon of any bucket: labels of one span never reach into the next."""
        return max(max(bucket.horizons_bars) for bucket in self.buckets.values())


def _secret_names(raw: object, prefix: str = "") -> Iterator[str]:
    """Keys at any depth that look like a secret's; their values are for nobody's eyes."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            name = f"{prefix}{key}"
            if looks_secret(str(key)):
                yield name
            else:
                yield from _secret_names(value, f"{name}.")
    elif isinstance(raw, list | tuple):
        for item in raw:
            yield from _secret_names(item, prefix)
