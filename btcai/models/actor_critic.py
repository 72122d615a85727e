"""One bucket's network: stem, trunk, forecasts and actor-critic, put together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from btcai.config import ModelConfig
from btcai.models.heads import ActorCriticHead, ForecastHead
from btcai.models.stem import PatchStem
from btcai.models.trunk import Trunk
from btcai.schema import QUANTILE_LEVELS, TOKENS, Float32Array

N_SIGNALS = 4
"""Of each horizon: location and log scale of the Student-t, median and width of the quantiles."""

LEAST_SPREAD = 0.01
"""Of the mean variance of latents, added to that of every direction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """Everything the market half says at M decision times; forecasts in units of sigma * sqrt(horizon).

    trunk (B, M, Z0): the trunk's latent; gates (B, M, 3); location, log_scale, degrees (B, M, 1 + H) and quantiles
    (B, M, 1 + H, Q) of the return to the next decision and over the bucket's H horizons.
    """

    trunk: Tensor
    gates: Tensor
    location: Tensor
    log_scale: Tensor
    degrees: Tensor
    quantiles: Tensor

    def cpu(self) -> "Encoding":
        """On the CPU, where the head is; gradients go back to where it was computed."""
        return Encoding(**{field.name: getattr(self, field.name).cpu() for field in fields(self)})


class ActorCritic(nn.Module):
    """tokens (B, N, P, F) -> Encoding at the N - 143 decision times; (latent, account) -> logits and value."""

    forecast_mean: Tensor
    forecast_std: Tensor
    quantile_offset: Tensor
    std_factor: Tensor
    temperature: Tensor
    forecast_worth: Tensor
    value_mean: Tensor
    value_std: Tensor
    reward_unit: Tensor
    hold_bias: Tensor
    collapsed: Tensor
    usual_mean: Tensor
    usual_root: Tensor
    usual_far: Tensor

    def __init__(self, config: ModelConfig, patch_bars: int, n_features: int, n_horizons: int) -> None:
        super().__init__()
        self.stem = PatchStem(patch_bars, n_features, config.width)
        self.trunk = Trunk(config, n_features)
        self.forecast = ForecastHead(config.latent, 1 + n_horizons)
        n_signals = N_SIGNALS * (1 + n_horizons)
        self.head = ActorCriticHead(config.latent + n_signals, config.hidden)
        # What the head reads is standardised by these: over the training span, or by rollouts while the encoder learns.
        self.register_buffer("forecast_mean", torch.zeros(n_signals))
        self.register_buffer("forecast_std", torch.ones(n_signals))
        # Static calibration, fitted on the validation span after training.
        self.register_buffer("quantile_offset", torch.zeros(n_horizons, len(QUANTILE_LEVELS)))
        self.register_buffer("std_factor", torch.ones(n_horizons))
        self.register_buffer("temperature", torch.ones(n_horizons))
        # Slope of returns on the forecast of the next one on the validation span, 0 .. 1; training pays by it.
        self.register_buffer("forecast_worth", torch.ones(()))
        # The value head says how many standard deviations of value targets above their mean.
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_std", torch.ones(()))
        # The size that value targets are expected to have, from the first rewards the head met; 0 before it met any.
        self.register_buffer("reward_unit", torch.zeros(()))
        # How much of HOLD's bias is the threshold that was chosen for trading greedily; further training takes it out.
        self.register_buffer("hold_bias", torch.zeros(()))
        # 1 where the policy, as it was last validated, stays flat, or in the market, or knows one action alone.
        self.register_buffer("collapsed", torch.zeros(()))
        # Of the trunk's latents along the training span: mean and inverse root of the covariance; and what is far.
        self.register_buffer("usual_mean", torch.zeros(config.latent))
        self.register_buffer("usual_root", torch.eye(config.latent))
        self.register_buffer("usual_far", torch.ones(()))

    @contextmanager
    def encoder_on(self, device: str) -> Iterator[None]:
        """The encoder (stem, trunk, forecasts) on this device meanwhile.

        The head stays on the CPU beside the accounts: an env step is too small to be worth a transfer.
        """
        encoder = self.stem, self.trunk, self.forecast
        try:
            for part in encoder:
                part.to(device)
            yield
        finally:
            for part in encoder:
                part.to("cpu")

    def read(self, tokens: Float32Array, *, banded: bool = False) -> Encoding:
        """`encode` of an array, on the encoder's device."""
        return self.encode(torch.from_numpy(tokens).to(self.stem.relevance.device), banded=banded)

    def encode(self, tokens: Tensor, *, banded: bool = False) -> Encoding:
        """The whole market half; gradients flow through it. `banded` is the fast form for training."""
        scaled = self.stem.scale(tokens)
        newest = scaled[:, TOKENS - 1 :, -1] * self.stem.gates()
        latent, gates = self.trunk(self.stem(scaled), newest, banded=banded)
        location, log_scale, degrees, quantiles = self.forecast(latent, banded=banded)
        return Encoding(
            trunk=latent, gates=gates, location=location, log_scale=log_scale, degrees=degrees, quantiles=quantiles
        )

    def latent(self, encoding: Encoding) -> Tensor:
        """What the head reads, (B, M, Z): the trunk's latent with the standardised forecasts beside it."""
        signals = (_signals(encoding) - self.forecast_mean) / self.forecast_std
        # Detached: the policy loss shapes the trunk through its latent, not by bending the forecasts.
        return torch.cat([encoding.trunk, signals.detach().clamp(-5.0, 5.0)], -1)

    @torch.no_grad()
    def refresh_signal_scale(self, encodings: Sequence[Encoding]) -> None:
        """Standardise the head's forecast inputs by what these encodings show."""
        signals = torch.cat([_signals(encoding).flatten(0, 1) for encoding in encodings])
        self.forecast_mean.copy_(signals.mean(0))
        self.forecast_std.copy_(signals.std(0).clamp(min=1e-3))

    def calibrated(self, encoding: Encoding) -> tuple[Tensor, Tensor, Tensor]:
        """Of the bucket's horizons: mean, std (B, M, H), quantiles (B, M, H, Q), in units of sigma * sqrt(horizon).

        Statically calibrated.
        """
        degrees = encoding.degrees[..., 1:]
        std = encoding.log_scale[..., 1:].exp() * (degrees / (degrees - 2.0)).sqrt() * self.std_factor
        quantiles = (encoding.quantiles[..., 1:, :] + self.quantile_offset).sort(-1).values
        return encoding.location[..., 1:] / self.temperature, std, quantiles

    def unfamiliarity(self, encoding: Encoding) -> Tensor:
        """How unlike the training span the market is to this network, (B, M) >= 0; 1 is exceeded one time in a hundred.

        The distance of the trunk's latent from those of the training span (Mahalanobis 1936) in units of its .99
        quantile on the validation span. Up to that unit it is also by how much an ensemble of last layers would
        disagree: for a linear layer on these latents the posterior's standard deviation of what it says (Bishop 2006,
        eq. 3.59, without its constant).
        """
        whitened = (encoding.trunk - self.usual_mean) @ self.usual_root
        # A sum and no mean: the exporter would name it so, and the graph has an output of that name.
        return (whitened.square().sum(-1) / whitened.shape[-1]).sqrt() / self.usual_far

    @torch.no_grad()
    def note_usual(self, latent: Tensor) -> None:
        """Take latents (n, Z) of the training span as what is usual; `usual_far` is 1 until it is fitted."""
        rows = latent.double()
        mean = rows.mean(0)
        size, axes = torch.linalg.eigh(torch.cov(rows.T))
        # A direction that never moved is not to be everything, and latents that are all the same are near each other.
        size = size.clamp(min=0.0) + LEAST_SPREAD * size.mean().clamp(min=1e-12)
        self.usual_mean.copy_(mean)
        self.usual_root.copy_(axes @ torch.diag(size.rsqrt()) @ axes.T)
        self.usual_far.fill_(1.0)

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _signals(encoding: Encoding) -> Tensor:
    """What the head reads of the forecasts, before it is standardised: (B, M, N_SIGNALS * (1 + H))."""
    quantiles = encoding.quantiles
    width, median = quantiles[..., -1] - quantiles[..., 0], quantiles[..., quantiles.shape[-1] // 2]
    return torch.cat([encoding.location, encoding.log_scale, median, width], -1)
