"""Our network as stable-baselines3 takes networks: run anew on the whole window of every observation."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from btcai.config import ModelConfig
from btcai.models.actor_critic import ActorCritic
from btcai.schema import TOKENS


class OurNetwork(BaseFeaturesExtractor):
    """Observation (B, 144 * P * F + 1) -> what our head reads of the market, and the position beside it."""

    def __init__(
        self, observation_space: spaces.Box, model: ModelConfig, patch_bars: int, n_features: int, n_horizons: int
    ) -> None:
        network = ActorCritic(model, patch_bars, n_features, n_horizons)
        shape = TOKENS, patch_bars, n_features
        with torch.no_grad():
            latent = network.latent(network.encode(torch.zeros(1, *shape))).shape[-1]
        super().__init__(observation_space, latent + 1)
        self.network, self.shape = network, shape

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        encoding = self.network.encode(observation[:, :-1].reshape(-1, *self.shape))
        return torch.cat([self.network.latent(encoding)[:, 0], observation[:, -1:]], -1)


def policy_kwargs(model: ModelConfig, patch_bars: int, n_features: int, n_horizons: int) -> dict[str, Any]:
    """For PPO's MlpPolicy: our network, then hidden layers of our head's size for policy and value."""
    shape = {"model": model, "patch_bars": patch_bars, "n_features": n_features, "n_horizons": n_horizons}
    return {
        "features_extractor_class": OurNetwork,
        "features_extractor_kwargs": shape,
        "net_arch": [model.hidden],
        "activation_fn": torch.nn.ReLU,
        "ortho_init": False,  # our own initialisation stays
    }
