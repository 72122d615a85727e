"""The trunk: three causal branches over the same 144 tokens, fused by learned gates. One shape for every bucket.

A decision depends on exactly the last 144 tokens. A causal convolution over 5 leaves n = 140 mixed tokens; sums over
4, 8, 16 and 32 of them, each computed once and shared by every window that holds it, tile those 140. Every branch
reads only these, so its reach is exact and its positions are relative.

Letters: B stretches, N tokens, M = N - 143 decision times, W width, Z latent.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from btcai.config import ModelConfig
from btcai.schema import TOKENS

POOLS = ((4, 0), (8, 4), (16, 12), (16, 28), (32, 44), (32, 76), (32, 108))
"""(tokens summed, offset back from the newest) of the seven pools, newest first: they tile 140 tokens."""

KEYS, STRIDE = 35, 4
"""The attention branch reads 35 sums of 4 tokens, at t, t-4, ..., t-136."""

CONV_TOKENS = TOKENS + 1 - KEYS * STRIDE
"""Tokens that the causal convolution mixes: what the pools leave of the window, 5."""

CHUNK = 32
"""Queries that share one block of keys in the banded form."""

BANDED = STRIDE * CHUNK
"""The banded form takes a multiple of so many decision times, 128."""


class Trunk(nn.Module):
    """embeddings (B, N, W), newest scaled bar (B, M, F) -> latent (B, M, Z), gates (B, M, 3)."""

    def __init__(self, config: ModelConfig, n_features: int) -> None:
        super().__init__()
        width, latent = config.width, config.latent
        self.heads = config.attention_heads
        self.mix = nn.Linear(CONV_TOKENS * width, width)
        self.convolution = nn.Linear((1 + len(POOLS)) * width, latent)
        memory = width // 2  # the LSTM is the dearest branch: seven steps a decision time
        self.lstm_input = nn.Linear(width, 4 * memory)
        self.lstm_state = nn.Linear(memory, 4 * memory, bias=False)
        self.lstm_out = nn.Linear(memory, latent)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.content = nn.Linear(width, width)
        self.distance = nn.Parameter(torch.linspace(0.0, -0.05, self.heads))
        self.attention_out = nn.Linear(width, latent)
        self.gate = nn.Linear(width, 3)
        self.short_cut = nn.Linear(2 * width + n_features, latent)

    def forward(self, embeddings: Tensor, newest: Tensor, *, banded: bool = False) -> tuple[Tensor, Tensor]:
        """`banded` picks the attention that is fast to train; both forms give the same numbers."""
        mixed = self._mix(embeddings)
        pooled = _doubling_sums(mixed)
        now = _back(mixed, 1, 0)
        tiles = [_back(pooled[size], size, offset) for size, offset in POOLS]
        attend = self._attend_banded if banded else self._attend
        branches = torch.stack(
            [
                self.convolution(torch.cat([now, *tiles], -1)),
                self.lstm_out(self._recur(pooled)),
                self.attention_out(attend(now, pooled[STRIDE])),
            ],
            -1,
        )
        gates = self.gate(now).softmax(-1)
        latent = (branches * gates.unsqueeze(-2)).sum(-1) + self.short_cut(
            torch.cat([now, embeddings[:, TOKENS - 1 :], newest], -1)
        )
        return latent, gates

    def _mix(self, embeddings: Tensor) -> Tensor:
        """Causal convolution over CONV_TOKENS, half through GELU, half linear: (B, N, W) -> (B, N - 4, W)."""
        n = embeddings.shape[1] - CONV_TOKENS + 1
        window = torch.cat([embeddings[:, k : k + n] for k in range(CONV_TOKENS)], -1)
        curved, straight = self.mix(window).chunk(2, -1)
        mixed: Tensor = torch.cat([fn.gelu(curved), straight], -1)
        return mixed

    def _recur(self, pooled: dict[int, Tensor]) -> Tensor:
        """An LSTM from a zero state over the seven pools, oldest first; inputs are projected once per pooled token."""
        projected = {size: self.lstm_input(tokens) for size, tokens in pooled.items()}
        hidden: Tensor | None = None
        cell: Tensor | None = None
        for size, offset in reversed(POOLS):
            drive = _back(projected[size], size, offset)
            if hidden is not None:
                drive = drive + self.lstm_state(hidden)
            take, keep, give, new = drive.chunk(4, -1)
            fresh = take.sigmoid() * _tanh(new)
            cell = fresh if cell is None else (keep + 1.0).sigmoid() * cell + fresh
            hidden = give.sigmoid() * _tanh(cell)
        assert hidden is not None  # POOLS is not empty
        return hidden

    def _attend(self, now: Tensor, pooled: Tensor) -> Tensor:
        """Attention with its 35 keys gathered per decision time: any number of decision times."""
        m = now.shape[1]
        rows = torch.arange(m, device=now.device).unsqueeze(1) + STRIDE * torch.arange(KEYS, device=now.device)
        query = self._split(self.query(now)).unsqueeze(-2)  # (B, M, h, 1, d)
        key = self._split(self.key(pooled)[:, rows]).transpose(2, 3)  # (B, M, h, 35, d)
        content = self._split(self.content(pooled)[:, rows]).transpose(2, 3)
        scores = (query * key).sum(-1) * key.shape[-1] ** -0.5 + self._bias(now)
        mixed: Tensor = (scores.softmax(-1).unsqueeze(-1) * content).sum(-2).flatten(2)
        return mixed

    def _attend_banded(self, now: Tensor, pooled: Tensor) -> Tensor:
        """The same numbers by blocks: decision times of one residue mod 4 share their keys.

        Per residue the keys of query i are rows i .. i + 34 of one sequence, so a chunk of 32 queries is one small
        matrix product with its 66 keys under a band mask. M must be a multiple of 128.
        """
        batch, m, _ = now.shape
        if m % BANDED:
            raise ValueError(f"decision times must be a multiple of {BANDED}, was {m}")
        span = CHUNK + KEYS - 1
        query = self._residues(self.query(now)).unfold(3, CHUNK, CHUNK).transpose(-1, -2)  # (B, 4, h, c, 32, d)
        key = self._residues(self.key(pooled)).unfold(3, span, CHUNK)  # (B, 4, h, c, d, 66)
        content = self._residues(self.content(pooled)).unfold(3, span, CHUNK)
        scores = query @ key * query.shape[-1] ** -0.5
        lag = torch.arange(span, device=now.device) - torch.arange(CHUNK, device=now.device).unsqueeze(1)
        outside = (lag < 0) | (lag >= KEYS)
        bias = self._bias(now)[:, lag.clamp(0, KEYS - 1)].masked_fill(outside, float("-inf"))  # (h, 32, 66)
        mixed: Tensor = (scores + bias.unsqueeze(1)).softmax(-1) @ content.transpose(-1, -2)
        return mixed.flatten(3, 4).permute(0, 3, 1, 2, 4).reshape(batch, m, -1)

    def _residues(self, tokens: Tensor) -> Tensor:
        """(B, T, W) -> (B, 4, h, T / 4, d): rows of one residue mod 4 side by side."""
        batch, length, _ = tokens.shape
        return tokens.reshape(batch, length // STRIDE, STRIDE, self.heads, -1).permute(0, 2, 3, 1, 4)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:-1], self.heads, -1)

    def _bias(self, like: Tensor) -> Tensor:
        """Learned linear penalty on distance, (h, 35), oldest key first."""
        distance = torch.arange(KEYS - 1, -1, -1, device=like.device, dtype=like.dtype)
        bias: Tensor = self.distance.unsqueeze(1) * distance
        return bias


def _tanh(x: Tensor) -> Tensor:
    """The same by the sigmoid, which takes a quarter of the time on a CPU."""
    return 2.0 * (2.0 * x).sigmoid() - 1.0


def _doubling_sums(mixed: Tensor) -> dict[int, Tensor]:
    """Sums over the last 4, 8, 16, 32 tokens, divided by sqrt(size): (B, n, W) -> {size: (B, n - size + 1, W)}."""
    sums, size, total = {}, 1, mixed
    while size < POOLS[-1][0]:
        total = total[:, size:] + total[:, :-size]
        size *= 2
        if size >= STRIDE:
            sums[size] = total * size**-0.5
    return sums


def _back(tokens: Tensor, size: int, offset: int) -> Tensor:
    """Rows of sums over `size` tokens that end `offset` tokens before each decision time: (B, M, W)."""
    return tokens[:, KEYS * STRIDE - size - offset : tokens.shape[1] - offset]
