"""The trunk: three causal branches over the same 144 tokens, fused by learned gates. One shape for every bucket.

A decision depends on exactly the last 144 tokens. A causal convolution over 5 leaves n = 140 mixed tokens; sums over
4, 8, 16 and 32 of them, each computed once and shared by every window that holds it, tile those 140. Every branch
reads only these, so its reach is exact and its positions are relative.

Letters: B stretches, N tokens, M = N - 143 decision times, W width, Z latent.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from btcai.config import ModelConfig
from btcai.models import fused
from btcai.schema import TOKENS, IntArray

POOLS = ((4, 0), (8, 4), (16, 12), (16, 28), (32, 44), (32, 76), (32, 108))
"""(tokens summed, offset back from the newest) of the seven pools, newest first: they tile 140 tokens."""

KEYS, STRIDE = 35, 4
"""The attention branch reads 35 sums of 4 tokens, at t, t-4, ..., t-136."""

CONV_TOKENS = TOKENS + 1 - KEYS * STRIDE
"""Tokens that the causal convolution mixes: what the pools leave of the window, 5."""

BANDED = 128
"""The banded form takes a multiple of so many decision times: rows of whole vectors."""


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
        """`banded` picks the form that is fast to train on a CPU; both give the same numbers."""
        decisions = embeddings.shape[1] - TOKENS + 1
        if banded and decisions % BANDED:
            raise ValueError(f"decision times must be a multiple of {BANDED}, was {decisions}")
        by_four = len(self.mix.weight) % (4 * self.heads) == 0 and self.lstm_state.in_features % 4 == 0
        if banded and fused.usable(embeddings) and by_four:  # the kernels read four numbers at a time
            return self._fused(embeddings, newest)
        mixed = self._mix(embeddings)
        pooled = _doubling_sums(mixed)
        now = _back(mixed, 1, 0)
        tiles = [_back(pooled[size], size, offset) for size, offset in POOLS]
        branches = torch.stack(
            [
                self.convolution(torch.cat([now, *tiles], -1)),
                self.lstm_out(self._recur(pooled)),
                self.attention_out(self._attend(now, pooled[STRIDE])),
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

    def _fused(self, embeddings: Tensor, newest: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` by compiled passes over time, which is the last axis here."""
        batch, times, _ = newest.shape
        width, plan = embeddings.shape[-1], _plan(times)
        window = fused.window(embeddings, CONV_TOKENS)
        curved, straight = self.mix(window).transpose(1, 2).contiguous().chunk(2, 1)
        mixed = torch.cat([fn.gelu(curved), straight], 1)
        now, tiles, inputs, keys = fused.pool(mixed, plan.now, plan.tiles, plan.inputs, plan.keys)
        # tiles lie one after the other in time, for each channel
        weight = self.convolution.weight.view(-1, 1 + len(POOLS), width).transpose(1, 2).flatten(1)
        convolved = fused.project(weight, tiles.view(batch, -1, times), self.convolution.bias)
        hidden = fused.lstm(fused.linear(self.lstm_input, inputs), self.lstm_state.weight, plan.starts, times)
        query, key, content = (
            fused.linear(layer, x).view(batch, self.heads, width // self.heads, -1)
            for layer, x in ((self.query, now), (self.key, keys), (self.content, keys))
        )
        attended = fused.attention(query * query.shape[2] ** -0.5, key, content, self.distance, KEYS).flatten(1, 2)
        gates = fused.linear(self.gate, now).softmax(1)
        branches = convolved, fused.linear(self.lstm_out, hidden), fused.linear(self.attention_out, attended)
        of_now, of_rest = self.short_cut.weight[:, :width], self.short_cut.weight[:, width:]
        blended = torch.baddbmm(fused.blend(gates, *branches), of_now.expand(batch, -1, -1), now)
        rest = fn.linear(torch.cat([embeddings[:, TOKENS - 1 :], newest], -1), of_rest, self.short_cut.bias)
        return rest + blended.transpose(1, 2), gates.transpose(1, 2)

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

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:-1], self.heads, -1)

    def _bias(self, like: Tensor) -> Tensor:
        """Learned linear penalty on distance, (h, 35), oldest key first."""
        distance = torch.arange(KEYS - 1, -1, -1, device=like.device, dtype=like.dtype)
        bias: Tensor = self.distance.unsqueeze(1) * distance
        return bias


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What the branches read of the doubling sums, as fused.pool takes it, and the LSTM's steps as fused.lstm does."""

    now: IntArray
    tiles: IntArray
    inputs: IntArray
    keys: IntArray
    starts: IntArray


@cache
def _plan(times: int) -> _Plan:
    """For so many decision times. The LSTM's inputs are projected once per pooled token: one range of each size."""
    first = {(size, offset): KEYS * STRIDE - size - offset for size, offset in ((1, 0), *POOLS)}
    level = {size: size.bit_length() - 1 for size, _ in first}
    sizes = sorted({size for size, _ in POOLS})
    low = {size: min(first[pool] for pool in POOLS if pool[0] == size) for size in sizes}
    length = {size: max(first[pool] for pool in POOLS if pool[0] == size) - low[size] + times for size in sizes}
    column = {size: sum(length[k] for k in sizes if k < size) for size in sizes}
    return _Plan(
        now=np.array([(0, first[1, 0], times)]),
        tiles=np.array([(level[pool[0]], first[pool], times) for pool in first]),
        inputs=np.array([(level[size], low[size], length[size]) for size in sizes]),
        keys=np.array([(level[STRIDE], 0, times + (KEYS - 1) * STRIDE)]),
        starts=np.array([column[pool[0]] + first[pool] - low[pool[0]] for pool in reversed(POOLS)]),
    )


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
