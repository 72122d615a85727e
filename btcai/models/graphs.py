"""The network as its users see it: plain tensors in, calibrated log returns and probabilities out. What is exported."""

import torch
from torch import Tensor, nn

from btcai.models.actor_critic import ActorCritic
from btcai.schema import TOKENS


class EncoderGraph(nn.Module):
    """tokens (B, N, P, F) -> latent (B, M, Z), gates (B, M, 3), mean, std (B, M, H), quantiles (B, M, H, Q),
    unfamiliarity (B, M).

    M = N - 143. Forecasts are of the log return over each horizon: sigma is read from the newest bar's log_sigma.
    """

    root_horizon: Tensor

    def __init__(self, model: ActorCritic, horizons_bars: tuple[int, ...], log_sigma_column: int) -> None:
        super().__init__()
        self.model, self.column = model, log_sigma_column
        self.register_buffer("root_horizon", torch.tensor(horizons_bars, dtype=torch.float32).sqrt())

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        encoding = self.model.encode(tokens)
        unit = self.unit(tokens)
        mean, std, quantiles = self.model.calibrated(encoding)
        scaled = mean * unit, std * unit, quantiles * unit.unsqueeze(-1)
        return self.model.latent(encoding), encoding.gates, *scaled, self.model.unfamiliarity(encoding)

    def unit(self, tokens: Tensor) -> Tensor:
        """sigma * sqrt(horizon) at each decision time: (B, M, H)."""
        return tokens[:, TOKENS - 1 :, -1, self.column].exp().unsqueeze(-1) * self.root_horizon


class HeadGraph(nn.Module):
    """latent (B, Z), account (B, A) -> probabilities (B, 4), value (B,): expected discounted reward."""

    def __init__(self, model: ActorCritic) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor, account: Tensor) -> tuple[Tensor, Tensor]:
        logits, value = self.model.head(latent, account)
        return logits.softmax(-1), value * self.model.value_std + self.model.value_mean
