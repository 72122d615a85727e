"""The patch stem: the only part of the network that differs between buckets."""

import torch
from torch import Tensor, nn

from btcai.features.scaling import CLIP

SUMMARIES = 4
"""Weighted sums over a patch's bars that stand for it; a patch of fewer bars is taken as it is."""

SHARPNESS = 30.0
"""Of the selection: how much faster relevance moves than other weights. At 1 it hardly separates features from noise
before a short training ends; at 20 not always where 28 bars make a token and the signal is weak."""


class PatchStem(nn.Module):
    """Scaled bars of one patch -> one token embedding; the scaler lives here, so it travels with the weights.

    tokens (B, N, P, F) raw feature rows, the last feature being the mask -> embeddings (B, N, W).

    A patch is summarised over time, every feature alike. Features are selected by gates, the square root of a softmax
    over learned relevances: what earns its place takes weight from what does not (the variable selection of Lim et al.
    2019, arXiv 1912.09363, section 4.2, with weights that are the same at every time, so that they cost nothing at run
    time and say of a feature how much it matters). What is left is mapped to half of the width linearly, and to the
    other half as products of two linear maps (a bilinear gate, Shazeer 2020, arXiv 2002.05202), because what one
    feature means may hang on another.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, patch_bars: int, n_features: int, width: int) -> None:
        super().__init__()
        self.patch_bars, self.n_features, self.width = patch_bars, n_features, width
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_std", torch.ones(n_features))
        self.relevance = nn.Parameter(torch.zeros(n_features))
        self.summaries = nn.Parameter(_blocks(patch_bars))
        self.embed = nn.Linear(len(self.summaries) * n_features, width + width // 2)

    def scale(self, tokens: Tensor) -> Tensor:
        """Standardise, clip to +-CLIP, and set the rows of missing bars to zero; same shape."""
        scaled = ((tokens - self.feature_mean) / self.feature_std).clamp(-CLIP, CLIP)
        return scaled * tokens[..., -1:]

    def forward(self, scaled: Tensor) -> Tensor:
        """scaled (B, N, P, F) -> (B, N, W)."""
        summary = self.summaries @ scaled if self.patch_bars > len(self.summaries) else scaled
        weight = self.embed.weight * self.gates().repeat(len(self.summaries))
        embedded = nn.functional.linear(summary.flatten(2), weight, self.embed.bias)
        half = self.width // 2
        straight, left, right = torch.split(embedded, [self.width - half, half, half], -1)
        return torch.cat([straight, left * right], -1)

    def importance(self) -> Tensor:
        """(F,) share of the selection that each feature has, 1 in all."""
        return (SHARPNESS * self.relevance).softmax(-1)

    def gates(self) -> Tensor:
        """(F,) what features are multiplied by: all 1 at first, their squares 1 on average."""
        return (self.importance() * self.n_features).sqrt()

    @torch.no_grad()
    def resample_from(self, other: "PatchStem") -> None:
        """Take over another stem's map of a patch, stretched along it; scaler and selection stay.

        A patch of P bars is matched to one of P' by linear interpolation over the bars' relative positions, scaled by
        P/P' so that a market that is constant within the patch gives the same embedding (the idea of FlexiViT's
        patch resizing, arXiv 2212.08013, with the area-preserving interpolation in place of the pseudo-inverse). The
        weights of bars are then summed up over this stem's summaries, which start as equal blocks.
        """
        self.embed.bias.copy_(other.embed.bias)
        of_summaries = other.embed.weight.view(len(other.embed.weight), len(other.summaries), -1)  # (out, n, F)
        source = torch.einsum("onf,np->ofp", of_summaries, other.summaries)
        resized = nn.functional.interpolate(source, size=self.patch_bars, mode="linear", align_corners=False)
        shaped = resized * (other.patch_bars / self.patch_bars)
        # Interpolation keeps the sum over the patch only for whole ratios: restore it exactly.
        shaped = shaped + (source.sum(2, keepdim=True) - shaped.sum(2, keepdim=True)) / self.patch_bars
        blocks = _blocks(self.patch_bars)  # orthonormal rows: their transpose takes weights of bars to weights of sums
        self.summaries.copy_(blocks)
        self.embed.weight.copy_(torch.einsum("ofp,np->onf", shaped, blocks).flatten(1))


def _blocks(patch_bars: int) -> Tensor:
    """Sums over SUMMARIES equal blocks of bars, divided by the root of their length: (n, P)."""
    n = min(patch_bars, SUMMARIES)
    edges = torch.linspace(0, patch_bars, n + 1).round()
    bar = torch.arange(patch_bars)
    inside = (bar >= edges[:-1, None]) & (bar < edges[1:, None])
    return inside / inside.sum(1, keepdim=True).sqrt()
