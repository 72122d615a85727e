"""The trunk's dear branches as torch functions with compiled forward and backward passes, for training on a CPU.

Time is the last axis, as `kernels` wants it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from btcai.models import cumulated, kernels
from btcai.schema import Float32Array, IntArray


def usable(like: Tensor) -> bool:
    """On a CPU in single precision; the plain forms do the rest."""
    return like.device.type == "cpu" and like.dtype == torch.float32


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear map over time: (B, C, T) -> (B, O, T)."""
    return project(layer.weight, x, layer.bias)


def project(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    weight = weight.expand(len(x), -1, -1)
    return weight @ x if bias is None else torch.baddbmm(bias.unsqueeze(-1), weight, x)


def lstm(drive: Tensor, weight: Tensor, starts: IntArray, times: int) -> Tensor:
    """kernels.lstm_forward with gradients: drive (B, 4m, S), weight (4m, m) -> hidden (B, m, times)."""
    hidden: Tensor = _Lstm.apply(drive, weight, starts, times)  # type: ignore[no-untyped-call]
    return hidden


def attention(query: Tensor, key: Tensor, content: Tensor, slope: Tensor, keys: int) -> Tensor:
    """kernels.attention_forward with gradients: (B, h, d, M) and twice (B, h, d, T), slope (h,) -> (B, h, d, M)."""
    mixed: Tensor = _Attention.apply(query, key, content, slope, keys)  # type: ignore[no-untyped-call]
    return mixed


def pool(mixed: Tensor, *pieces: IntArray) -> tuple[Tensor, ...]:
    """cumulated.pool_forward with gradients: mixed (B, W, n) -> (B, W, C) for each of the pieces."""
    pooled: tuple[Tensor, ...] = _Pool.apply(mixed, *pieces)  # type: ignore[no-untyped-call]
    return pooled


def blend(gates: Tensor, *branches: Tensor) -> Tensor:
    """Branches (B, Z, M), one for each of the gates (B, 3, M), weighted by them and summed."""
    blended: Tensor = _Blend.apply(gates, *branches)  # type: ignore[no-untyped-call]
    return blended


def quantiles(steps: Tensor) -> Tensor:
    """cumulated.quantiles_forward with gradients: (B, H, Q, M) -> (B, H, Q, M)."""
    found: Tensor = _Quantiles.apply(steps)  # type: ignore[no-untyped-call]
    return found


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed: Tensor, *pieces: IntArray) -> tuple[Tensor, ...]:
        ctx.pieces, ctx.shape = pieces, mixed.shape
        ctx.room = np.empty((1 + max(int(piece[:, 0].max()) for piece in pieces), mixed.shape[-1]), np.float32)
        found = [np.empty((*mixed.shape[:2], piece[:, 2].sum()), np.float32) for piece in pieces]
        for piece, out in zip(pieces, found, strict=True):
            cumulated.pool_forward(_array(mixed), piece, out, ctx.room)
        return tuple(map(torch.from_numpy, found))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        mixed = np.zeros(ctx.shape, np.float32)
        for piece, grad in zip(ctx.pieces, grads, strict=True):
            cumulated.pool_backward(_array(grad), piece, mixed, ctx.room)
        return torch.from_numpy(mixed), *(None for _ in ctx.pieces)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, *branches: Tensor) -> Tensor:
        ctx.save_for_backward(gates, *branches)
        blended = branches[0] * gates[:, :1]
        for k in range(1, len(branches)):
            blended.addcmul_(branches[k], gates[:, k : k + 1])
        return blended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        gates, *branches = ctx.saved_tensors
        grad = grad.contiguous()
        of_gates = torch.stack([(grad * branch).sum(1) for branch in branches], 1)
        return of_gates, *(grad * gates[:, k : k + 1] for k in range(len(branches)))


def window(tokens: Tensor, length: int) -> Tensor:
    """Every `length` tokens in a row side by side: (B, N, W) -> (B, N - length + 1, length * W)."""
    side_by_side: Tensor = _Window.apply(tokens, length)  # type: ignore[no-untyped-call]
    return side_by_side


class _Window(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, length: int) -> Tensor:
        ctx.shape, ctx.length = tokens.shape, length
        n = tokens.shape[1] - length + 1
        return torch.cat([tokens[:, k : k + n] for k in range(length)], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens = grad.new_zeros(ctx.shape)
        for k, part in enumerate(grad.chunk(ctx.length, -1)):
            tokens[:, k : k + grad.shape[1]] += part
        return tokens, None


class _Quantiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, steps: Tensor) -> Tensor:
        ctx.save_for_backward(steps)
        found = np.empty(steps.shape, np.float32)
        cumulated.quantiles_forward(_array(steps), found)
        return torch.from_numpy(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (steps,) = ctx.saved_tensors
        found, room = np.empty(steps.shape, np.float32), np.empty((2, steps.shape[-1]), np.float32)
        cumulated.quantiles_backward(_array(steps), _array(grad), found, room)
        return torch.from_numpy(found)


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, drive: Tensor, weight: Tensor, starts: IntArray, times: int) -> Tensor:
        m = weight.shape[1]
        hidden = np.empty((len(drive), m, times), np.float32)
        ctx.states = np.empty((len(drive), len(starts), 6, m * times), np.float32)
        ctx.starts, ctx.shape = starts, drive.shape
        ctx.save_for_backward(weight)
        kernels.lstm_forward(_array(drive), _array(weight), starts, ctx.states, hidden)
        return torch.from_numpy(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        drive, of_weight = np.zeros(ctx.shape, np.float32), np.zeros(weight.shape, np.float32)
        room = np.empty((7, *grad.shape[1:]), np.float32)
        kernels.lstm_backward(ctx.states, _array(weight.T), ctx.starts, _array(grad), drive, of_weight, room)
        return torch.from_numpy(drive), torch.from_numpy(of_weight), None, None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, content: Tensor, slope: Tensor, keys: int) -> Tensor:
        batch, heads, _, times = query.shape
        ctx.weights = np.empty((batch, heads, keys, times), np.float32)
        ctx.save_for_backward(query, key, content)
        mixed, room = np.zeros(query.shape, np.float32), np.empty((2, times), np.float32)
        kernels.attention_forward(_array(query), _array(key), _array(content), _array(slope), ctx.weights, mixed, room)
        return torch.from_numpy(mixed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        went_in = [_array(tensor) for tensor in ctx.saved_tensors]
        slope = np.zeros(went_in[0].shape[1], np.float32)
        found = [np.zeros(array.shape, np.float32) for array in went_in]
        room = np.empty((1 + ctx.weights.shape[2], grad.shape[-1]), np.float32)
        (query, key, content), (of_query, of_key, of_content) = went_in, found
        kernels.attention_backward(
            query, key, content, ctx.weights, _array(grad), of_query, of_key, of_content, slope, room
        )
        return (*map(torch.from_numpy, (*found, slope)), None)


def _array(tensor: Tensor) -> Float32Array:
    return tensor.detach().contiguous().numpy()
