"""The patch stem: the only part of the network that differs between buckets."""

import torch
from torch import Tensor, nn

from btcai.features.scaling import CLIP


class PatchStem(nn.Module):
    """Scaled bars of one patch -> one token embedding; the scaler lives here, so it travels with the weights.

    tokens (B, N, P, F) raw feature rows, the last feature being the mask -> embeddings (B, N, W).
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, patch_bars: int, n_features: int, width: int) -> None:
        super().__init__()
        self.patch_bars, self.n_features = patch_bars, n_features
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_std", torch.ones(n_features))
        self.embed = nn.Linear(patch_bars * n_features, width)

    def scale(self, tokens: Tensor) -> Tensor:
        """Standardise, clip to +-CLIP, and set the rows of missing bars to zero; same shape."""
        scaled = ((tokens - self.feature_mean) / self.feature_std).clamp(-CLIP, CLIP)
        return scaled * tokens[..., -1:]

    def forward(self, scaled: Tensor) -> Tensor:
        """scaled (B, N, P, F) -> (B, N, W)."""
        embedding: Tensor = self.embed(scaled.flatten(2))
        return embedding

    @torch.no_grad()
    def resample_from(self, other: "PatchStem") -> None:
        """Take over another stem's weights, stretched along the patch.

        A patch of P bars is matched to one of P' by linear interpolation over the bars' relative positions, scaled by
        P/P' so that a market that is constant within the patch gives the same embedding (the idea of FlexiViT's
        patch resizing, arXiv 2212.08013, with the area-preserving interpolation in place of the pseudo-inverse).
        """
        width = self.embed.out_features
        source = other.embed.weight.view(width, other.patch_bars, other.n_features).transpose(1, 2)
        resized = nn.functional.interpolate(source, size=self.patch_bars, mode="linear", align_corners=False)
        shaped = resized * (other.patch_bars / self.patch_bars)
        # Interpolation keeps the sum over the patch only for whole ratios: restore it exactly.
        shaped = shaped + (source.sum(2, keepdim=True) - shaped.sum(2, keepdim=True)) / self.patch_bars
        self.embed.weight.copy_(shaped.transpose(1, 2).reshape(width, -1))
        self.embed.bias.copy_(other.embed.bias)
        self.feature_mean.copy_(other.feature_mean)
        self.feature_std.copy_(other.feature_std)
