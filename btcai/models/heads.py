"""Heads on the latent: calibrated forecasts per horizon, and the actor-critic that reads them beside the account."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as fn

from btcai.models import fused
from btcai.schema import ACCOUNT_FEATURES, CAN_BUY, CAN_SELL, MASKED, QUANTILE_LEVELS, Action

TARGET_CLIP = 10.0


class ForecastHead(nn.Module):
    """latent (B, M, Z) -> location, log_scale, degrees (B, M, H) and quantiles (B, M, H, Q).

    All in units of sigma * sqrt(horizon): a Student-t per horizon and quantiles that cannot cross (a median plus
    cumulated softplus steps outwards).
    """

    def __init__(self, latent: int, n_horizons: int) -> None:
        super().__init__()
        self.n_horizons = n_horizons
        self.student = nn.Linear(latent, 3 * n_horizons)
        self.steps = nn.Linear(latent, len(QUANTILE_LEVELS) * n_horizons)
        for layer in (self.student, self.steps):
            nn.init.orthogonal_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, latent: Tensor, *, banded: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`banded` picks the form that is fast to train; both give the same numbers."""
        if banded and fused.usable(latent):
            latent = latent.transpose(1, 2)
            location, log_scale, raw = fused.linear(self.student, latent).transpose(1, 2).chunk(3, -1)
            steps = fused.linear(self.steps, latent)
            quantiles = fused.quantiles(steps.view(len(steps), self.n_horizons, len(QUANTILE_LEVELS), -1))
            return location, log_scale.clamp(-4.0, 4.0), 3.0 + 10.0 * fn.softplus(raw), quantiles.permute(0, 3, 1, 2)
        location, log_scale, raw = self.student(latent).unflatten(-1, (3, self.n_horizons)).unbind(-2)
        steps = self.steps(latent).unflatten(-1, (self.n_horizons, len(QUANTILE_LEVELS)))
        middle = len(QUANTILE_LEVELS) // 2
        up = fn.softplus(steps[..., middle + 1 :]).cumsum(-1)
        down = fn.softplus(steps[..., :middle]).flip(-1).cumsum(-1).flip(-1)
        median = steps[..., middle : middle + 1]
        quantiles = torch.cat([median - down, median, median + up], -1)
        return location, log_scale.clamp(-4.0, 4.0), 3.0 + 10.0 * fn.softplus(raw), quantiles


def forecast_loss(
    location: Tensor,
    log_scale: Tensor,
    degrees: Tensor,
    quantiles: Tensor,
    target: Tensor,
    known: Tensor,
    weight: Tensor,
) -> Tensor:
    """Mean Student-t negative log likelihood plus pinball loss over the known targets; scalar.

    target (B, M, H) normalised log returns, known (B, M, H) bool, weight (H,) of each horizon or (B, M, H) of each
    target. Targets are clipped to +-TARGET_CLIP so that one crash does not own a minibatch.
    """
    loss: Tensor = _ForecastLoss.apply(location, log_scale, degrees, quantiles, target, known, weight)  # type: ignore[no-untyped-call]
    return loss


class _ForecastLoss(torch.autograd.Function):
    """With gradients worked by hand, in a third of the steps that autograd takes.

    Time is the last axis within, as what the fused head says lies in memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        location: Tensor,
        log_scale: Tensor,
        degrees: Tensor,
        quantiles: Tensor,
        target: Tensor,
        known: Tensor,
        weight: Tensor,
    ) -> Tensor:
        location, log_scale, degrees, target, known = (
            x.transpose(1, 2).contiguous()
            for x in (location, log_scale, degrees, target.clamp(-TARGET_CLIP, TARGET_CLIP), known)
        )
        share = known * (weight.unsqueeze(-1) if weight.dim() == 1 else weight.transpose(1, 2))
        share /= share.sum().clamp(min=1e-6)
        likelihood = student_t_log_density(target, location, log_scale, degrees)
        error = target.unsqueeze(2) - quantiles.permute(0, 2, 3, 1)
        # Of an error: the level above the quantile, the level - 1 below it, and between them at the quantile.
        slope = torch.heaviside(error, error.new_tensor(0.5)) + (error.new_tensor(QUANTILE_LEVELS) - 1.0).unsqueeze(-1)
        loss = ((error * slope).mean(2).sub_(likelihood) * share).sum()
        if any(ctx.needs_input_grad):
            inverse = (-log_scale).exp()
            z = (target - location) * inverse
            square = z.square()
            pull = (degrees + 1.0) / (degrees + square)
            half = 0.5 * degrees
            of_degrees = torch.digamma(half + 0.5) - torch.digamma(half) - (square / degrees).log1p_()
            of_degrees += (pull * square - 1.0) / degrees
            ctx.save_for_backward(
                -pull * z * inverse * share,
                (1.0 - pull * square) * share,
                -0.5 * of_degrees * share,
                slope * (share / -slope.shape[2]).unsqueeze(2),
            )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *student, quantiles = ctx.saved_tensors
        return *((grad * x).transpose(1, 2) for x in student), (grad * quantiles).permute(0, 3, 1, 2), None, None, None


def student_t_log_density(x: Tensor, location: Tensor, log_scale: Tensor, degrees: Tensor) -> Tensor:
    """Log density of a Student-t with `degrees` > 2 degrees of freedom, elementwise."""
    half = (degrees + 1) / 2
    constant = torch.lgamma(half) - torch.lgamma(degrees / 2) - 0.5 * (degrees * torch.pi).log() - log_scale
    z = (x - location) * (-log_scale).exp()
    return constant - half * (z.square() / degrees).log1p()


class ActorCriticHead(nn.Module):
    """Latent and account -> masked logits (..., 4) and value (...,): the only part an env step runs.

    The latent half of the hidden layer is projected once per decision time (`market`), the account half added per
    account (`act`).
    """

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.market = nn.Linear(latent, hidden)
        self.account = nn.Linear(len(ACCOUNT_FEATURES), hidden, bias=False)
        self.policy = nn.Linear(hidden, len(Action))
        self.value = nn.Linear(hidden, 1)
        for layer, gain in ((self.market, 2**0.5), (self.account, 2**0.5), (self.policy, 0.01), (self.value, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, latent: Tensor, account: Tensor) -> tuple[Tensor, Tensor]:
        return self.act(self.market(latent), account)

    def act(self, projected: Tensor, account: Tensor) -> tuple[Tensor, Tensor]:
        """projected (..., hidden), account (..., A) -> logits (..., 4), value (...,)."""
        hidden = torch.relu(projected + self.account(account))
        return mask_actions(self.policy(hidden), account), self.value(hidden).squeeze(-1)


def mask_actions(logits: Tensor, account: Tensor) -> Tensor:
    """Rule out buying without a free lot and selling without an open one; HOLD is always allowed."""
    cannot_buy = (1.0 - account[..., CAN_BUY]) * MASKED
    cannot_sell = (1.0 - account[..., CAN_SELL]) * MASKED
    return logits + torch.stack([torch.zeros_like(cannot_buy), cannot_buy, cannot_sell, cannot_sell], -1)
