"""The settings as frozen, validated sections; functions take the section they need, never the whole."""

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from btcai.log_settings import LogSettings
from btcai.redaction import looks_secret
from btcai.schema import BUCKETS, FEE_TIERS, TOKENS

Severity = Literal["optimistic", "base", "pessimistic"]
SizingStrategy = Literal["confidence_adjusted", "uncertainty_adjusted", "full_probabilistic", "fixed"]
ProfileName = Literal["quick", "standard", "full"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Section):
    """Which market is in use: a folder of monthly parquet files under data/."""

    market: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")


class SplitConfig(_Section):
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


class CostConfig(_Section):
    """What a fill costs: price worse by half spread + impact_coef * sigma * sqrt(quantity / volume), then the fee."""

    taker_fee_bps: float = Field(ge=0, le=200)
    maker_fee_bps: float = Field(ge=-10, le=200)
    """Of orders that rest: targets, and with exchange.maker_bars every order but a stop or a close-all."""
    half_spread_bps: float = Field(ge=0, le=200)
    impact_coef: float = Field(ge=0, le=10)
    max_volume_share: float = Field(gt=0, le=1)
    """Largest share of a bar's volume one order may take; the rest of the order is dropped."""
    latency_bars: int = Field(ge=0, le=288)
    """Bars an order needs to arrive beyond the next open."""


class FeeTier(_Section):
    """Fees of an account that traded this much within 30 days."""

    traded_usdt: float = Field(gt=0)
    maker_factor: float = Field(ge=0, le=1)
    taker_factor: float = Field(ge=0, le=1)


class ExchangeConfig(_Section):
    """What the exchange takes: steps of quantity and price, the smallest order, resting orders, fee tiers."""

    lot_step_btc: float = Field(ge=0)
    tick_usdt: float = Field(ge=0)
    min_notional_usdt: float = Field(ge=0)
    maker_bars: int = Field(ge=0, le=288)
    """Bars an order rests at the near side of the spread before it crosses; 0 crosses at once."""
    fee_tiers: tuple[FeeTier, ...] = Field(max_length=FEE_TIERS)

    @model_validator(mode="after")
    def _tiers_ascend(self) -> Self:
        volumes = [tier.traded_usdt for tier in self.fee_tiers]
        if volumes != sorted(set(volumes)):
            raise ValueError(f"fee_tiers must have increasing traded_usdt, was {volumes}")
        return self


class PerpetualConfig(_Section):
    """A perpetual swap in place of spot: it pays funding, and may be sold short."""

    enabled: bool
    allow_short: bool
    missing_funding_bps: float = Field(ge=0, le=100)
    """Paid by either side where funding is due and its rate unknown."""
    maintenance_frac: float = Field(ge=0, lt=1)
    """A short is liquidated where the account's equity is below this share of its value."""

    @model_validator(mode="after")
    def _shorts_are_swaps(self) -> Self:
        if self.allow_short and not self.enabled:
            raise ValueError("allow_short needs enabled: true; nothing can be sold short on spot")
        return self


class TransfersConfig(_Section):
    """Deposits and withdrawals, never profit or loss: usdt every so many days (below 0 withdraws), and random ones."""

    every_days: int = Field(ge=0)
    usdt: float = Field(allow_inf_nan=False)
    daily_probability: float = Field(ge=0, le=1)
    max_frac: float = Field(ge=0, le=1)
    """A random transfer is up to this share of the equity, in or out."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.every_days > 0) != (self.usdt != 0):
            raise ValueError(f"every_days and usdt need each other, was {self.every_days} and {self.usdt}")
        if (self.daily_probability > 0) != (self.max_frac > 0):
            raise ValueError(
                f"daily_probability and max_frac need each other, was {self.daily_probability} and {self.max_frac}"
            )
        return self


class MarketConfig(_Section):
    """The account's start and the three cost severities; `severity` names the one used to train and to judge."""

    equity_usdt: float = Field(gt=0)
    severity: Severity
    severities: dict[Severity, CostConfig]
    exchange: ExchangeConfig
    perpetual: PerpetualConfig
    transfers: TransfersConfig

    @property
    def costs(self) -> CostConfig:
        return self.severities[self.severity]

    @model_validator(mode="after")
    def _has_all_severities(self) -> Self:
        if missing := {"optimistic", "base", "pessimistic"} - set(self.severities):
            raise ValueError(f"severities must hold optimistic, base and pessimistic; missing {sorted(missing)}")
        return self


class RiskConfig(_Section):
    """Limits, the same in training, backtest and live."""

    max_exposure_frac: float = Field(gt=0, le=1)
    daily_loss_halt_frac: float = Field(gt=0, le=1)
    """A UTC day's loss that stops new lots until cool_down_bars have passed."""
    drawdown_halt_frac: float = Field(gt=0, le=1)
    """A drawdown that closes everything and stops new lots until cool_down_bars have passed; the peak restarts then."""
    cool_down_bars: int = Field(ge=0)


class SizingConfig(_Section):
    strategy: SizingStrategy
    target_volatility: float = Field(gt=0, le=5)
    max_uncertainty: float = Field(gt=0)
    """Predicted standard deviation over sigma * sqrt(horizon), above which no lot is opened."""
    max_unfamiliarity: float = Field(gt=0)
    """How unlike the training span the market may be to the network: above it no lot is opened."""


class RewardConfig(_Section):
    """Weights of the named reward terms (market/reward.py); the reward is their weighted sum."""

    net_profit: float = Field(ge=0)
    cost: float = Field(ge=0)
    drawdown: float = Field(ge=0)
    win_rate: float = Field(ge=0)
    bonus: float = Field(ge=0)
    goal: float = Field(ge=0)


class BucketConfig(_Section):
    """One trading timeframe."""

    patch_bars: int = Field(ge=1)
    max_lots: int = Field(ge=1, le=25)
    horizons_bars: tuple[int, ...] = Field(min_length=1)
    goal_frac: float = Field(gt=0)
    stop_loss_frac: float = Field(ge=0, lt=1)
    """A lot is closed when price moves this far against its entry; 0 turns stops off."""
    take_profit_frac: float = Field(ge=0, le=10)
    """A lot is closed when price moves this far beyond its entry; 0 turns targets off."""
    discount: float = Field(gt=0, lt=1)
    """Per decision (one patch)."""
    reward: RewardConfig

    @property
    def lookback_bars(self) -> int:
        return TOKENS * self.patch_bars

    @property
    def target_bars(self) -> tuple[int, ...]:
        """Over how many bars returns are predicted, (1 + H,): to the next decision, then over each of the horizons."""
        return self.patch_bars, *self.horizons_bars

    @model_validator(mode="after")
    def _horizons_increase(self) -> Self:
        if list(self.target_bars) != sorted(set(self.target_bars)):
            raise ValueError(f"horizons_bars must increase from above patch_bars, was {self.horizons_bars}")
        return self


class ModelConfig(_Section):
    """One network configuration for every bucket; only the patch stem differs."""

    width: int = Field(ge=8)
    attention_heads: int = Field(ge=1)
    hidden: int = Field(ge=8)
    latent: int = Field(ge=8)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(f"width must be a multiple of attention_heads, was {self.width} / {self.attention_heads}")
        return self


class PretrainConfig(_Section):
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    decay_rise_frac: float = Field(ge=0, le=1)
    """Share of the updates over which the decay rises to its full size."""
    horizon_skill: float = Field(ge=0, le=1)
    """Share of the horizons' weights that follows their skill on the validation span, by regime; 0: none."""
    stretches: int = Field(ge=2, multiple_of=2)
    decisions: int = Field(ge=128, multiple_of=128)
    """Per stretch; in blocks of 128 decision times."""


class AugmentConfig(_Section):
    """Markets made of the training span and trained on beside it."""

    copies: int = Field(ge=0, le=8)
    """Each as long as the span; 0: none."""
    block_days: float = Field(ge=0)
    """Mean length of the blocks that are shown in another order; 0: the order stays."""
    balance_regimes: bool
    """Blocks begin as often in calm weeks as in stormy ones."""
    scale_sigma: float = Field(ge=0, le=1)
    """Of the logarithm of each block's own scale of moves."""
    jitter_sigmas: float = Field(ge=0, le=1)
    """Noise added to every bar's return, in its standard deviations: volatility rises by sqrt(1 + its square)."""


class ReplayConfig(_Section):
    """Where PPO begins its stretches, and what of earlier updates it learns from again."""

    prioritised: float = Field(ge=0, le=0.9)
    """Share drawn by how much their part of the training span surprised; the rest is drawn evenly."""
    staleness: float = Field(ge=0, le=1)
    """Of that share, drawn by how long ago the part was seen."""
    correction: float = Field(ge=0, le=1)
    """How far rows are weighted back to even draws: 1 all the way."""
    trajectories: int = Field(ge=0)
    """Stretches of earlier updates that an update learns from too; 0: none."""
    max_age_updates: int = Field(ge=1)
    """How old they may be."""
    self_imitation: bool
    """Whether of those only what went better than expected counts."""


class PpoConfig(_Section):
    stretches: int = Field(ge=1)
    decisions: int = Field(ge=128, multiple_of=128)
    agents: int = Field(ge=1)
    encoder_every: int = Field(ge=0)
    """Updates from one that trains the whole network to the next; 0: none does. The others train the head alone."""
    encoder_epochs: int = Field(ge=1)
    """Of such an update, of the whole network; each encodes every decision time once, forward and backward."""
    encoder_minibatches: int = Field(ge=1)
    head_epochs: int = Field(ge=0)
    """Of every update, of the head alone, before those: on what the rollout encoded."""
    head_minibatches: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warm_up_updates: int = Field(ge=0)
    """Over which the learning rate rises to its full size."""
    adaptive_rate: bool
    """Whether a controller scales the learning rate so that an update moves the policy by about target_kl."""
    encoder_rate_share: float = Field(ge=0, le=1)
    """Of the learning rate, for all before the head: what prediction taught is not to drown in the policy's noise."""
    weight_decay: float = Field(ge=0)
    gae_lambda: float = Field(ge=0, le=1)
    clip: float = Field(gt=0, lt=1)
    value_coef: float = Field(ge=0)
    entropy_coef: float = Field(ge=0)
    entropy_frac: float = Field(ge=0, le=1)
    """Share of the updates over which the entropy bonus falls to zero, and the temperature to 1."""
    temperature: float = Field(ge=1, le=5)
    """Of the policy while it learns, at first: above 1 it tries more."""
    entropy_by: Literal["time", "gain", "unfamiliarity"]
    """What scales them beside time: nothing, whether validation gains, or (the bonus) how unfamiliar a stretch is."""
    first_hold_logit: float
    """Added to HOLD before training: who trades at random pays costs, whatever it knows, and learns to stay flat."""
    surprise_control: float = Field(ge=0, le=1)
    """Share of what no forecast knew of a decision's return that is taken out of its reward: a control variate."""
    cost_ramp_frac: float = Field(ge=0, le=1)
    """Share of the updates over which trading costs rise from zero to their full size; 0 trains at full cost."""
    prediction_coef: float = Field(ge=0)
    target_kl: float = Field(gt=0)
    grad_clip: float = Field(gt=0)
    average_decay: float = Field(ge=0, lt=1)
    replay: ReplayConfig

    @model_validator(mode="after")
    def _minibatches_hold_whole_stretches(self) -> Self:
        if self.stretches % (2 * self.encoder_minibatches) or self.stretches % (2 * self.head_minibatches):
            raise ValueError(
                "stretches must be a multiple of 2 * encoder_minibatches and of 2 * head_minibatches, was "
                f"{self.stretches} / {self.encoder_minibatches} and {self.head_minibatches}"
            )
        if self.replay.trajectories % (2 * self.head_minibatches):
            raise ValueError(
                "replay.trajectories must be a multiple of 2 * head_minibatches, was "
                f"{self.replay.trajectories} / {self.head_minibatches}"
            )
        if self.replay.trajectories > self.stretches * self.replay.max_age_updates:
            raise ValueError(
                "replay.trajectories must be at most stretches * replay.max_age_updates, was "
                f"{self.replay.trajectories} > {self.stretches} * {self.replay.max_age_updates}"
            )
        if self.replay.trajectories and self.cost_ramp_frac:
            raise ValueError(
                f"replay.trajectories needs cost_ramp_frac 0, for old ones paid other costs; was {self.cost_ramp_frac}"
            )
        if self.replay.trajectories and self.temperature != 1:
            raise ValueError(
                f"replay.trajectories needs temperature 1, for old ones acted at another; was {self.temperature}"
            )
        if self.replay.trajectories and self.encoder_every:
            raise ValueError(
                "replay.trajectories needs encoder_every 0, for what a head read of old trajectories must be what it "
                f"would read now; was {self.encoder_every}"
            )
        if self.encoder_every != 1 and not self.head_epochs:
            raise ValueError(
                "head_epochs must be at least 1 where encoder_every is not 1, else an update trains nothing"
            )
        return self


class MetaConfig(_Section):
    """A start shared by buckets and regimes, before the first bucket is trained (training/meta.py)."""

    rounds: int = Field(ge=0)
    """In each every bucket learns in a calm and in a stormy market; 0: the first bucket starts at random."""
    inner_updates: int = Field(ge=1)
    """Of prediction, from where a round began."""
    step: float = Field(gt=0, le=1)
    """How far the start moves to where that led."""


class WarmStartConfig(_Section):
    """What every bucket goes on from (training/starts.py)."""

    name: str = Field(min_length=1)
    """Of networks that an earlier run left, see `btcai warm-start`; none: the first bucket starts from scratch."""


class TransferConfig(_Section):
    """What a bucket starts from of the one before it; all of it off is from scratch."""

    selection: bool
    """Which features were selected."""
    stem: bool
    """The patch stem, resampled to the student's patch."""
    alpha: float = Field(ge=0, le=1)
    """Share of the trunk; the rest is a fresh initialisation."""
    forecasts: bool
    """The forecast heads too, adapted to the horizons."""
    policy: bool
    """The policy and its values too."""
    kickstart: float = Field(ge=0)
    """Weight of the policy's divergence from the teacher's at the start of PPO; 0: none."""
    kickstart_frac: float = Field(gt=0, le=1)
    """Share of the updates over which that weight falls to zero."""


class ConvergenceConfig(_Section):
    """When training a bucket has converged, and when a change is kept."""

    level: float = Field(gt=0, lt=1)
    """At which a gain on the validation span must be more than chance."""


class ConsolidateConfig(_Section):
    rounds: int = Field(ge=0)
    """At most: none follows one that helped no bucket."""
    alpha: float = Field(ge=0, le=1)


class DriftConfig(_Section):
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


class ProfileConfig(_Section):
    """How much each bucket trains."""

    rounds: int = Field(ge=1)
    """Of prediction and PPO at most; another begins where the last one gained. 1: convergence is not asked about."""
    pretrain_updates: int = Field(ge=0)
    """Of prediction in a round."""
    ppo_updates: int = Field(ge=1)
    """After those."""
    consolidate_pretrain_updates: int = Field(ge=0)
    """Of prediction, after a bucket has taken its share of the mean trunk."""
    consolidate_ppo_updates: int = Field(ge=0)
    """After those; 0: no consolidation."""


class Config(_Section):
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
