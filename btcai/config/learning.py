"""Settings of networks, how they learn, and what one bucket hands to the next."""

from typing import Literal, Self

from pydantic import Field, model_validator

from btcai.config.section import Section


class ModelConfig(Section):
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


class PretrainConfig(Section):
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    decay_rise_frac: float = Field(ge=0, le=1)
    """Share of the updates over which the decay rises to its full size."""
    horizon_skill: float = Field(ge=0, le=1)
    """Share of the horizons' weights that follows their skill on the validation span, by regime; 0: none."""
    stretches: int = Field(ge=2, multiple_of=2)
    decisions: int = Field(ge=128, multiple_of=128)
    """Per stretch; in blocks of 128 decision times."""


class AugmentConfig(Section):
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


class ReplayConfig(Section):
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


class PpoConfig(Section):
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


class MetaConfig(Section):
    """A start shared by buckets and regimes, before the first bucket is trained (training/meta.py)."""

    rounds: int = Field(ge=0)
    """In each every bucket learns in a calm and in a stormy market; 0: the first bucket starts at random."""
    inner_updates: int = Field(ge=1)
    """Of prediction, from where a round began."""
    step: float = Field(gt=0, le=1)
    """How far the start moves to where that led."""


class WarmStartConfig(Section):
    """What every bucket goes on from (training/starts.py)."""

    name: str = Field(min_length=1)
    """Of networks that an earlier run left, see `btcai warm-start`; none: the first bucket starts from scratch."""


class TransferConfig(Section):
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


class ConvergenceConfig(Section):
    """When training a bucket has converged, and when a change is kept."""

    level: float = Field(gt=0, lt=1)
    """At which a gain on the validation span must be more than chance."""


class ConsolidateConfig(Section):
    rounds: int = Field(ge=0)
    """At most: none follows one that helped no bucket."""
    alpha: float = Field(ge=0, le=1)


class ProfileConfig(Section):
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
