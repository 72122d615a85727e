"""A small simulated market, networks with loud weights on it, and bundles of both kinds: exported and made by hand."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch
from learning_tasks import SMALL, settings
from onnx import TensorProto, helper, numpy_helper

from btcai.config import Config
from btcai.data.store import to_grid
from btcai.features.pipeline import build_market
from btcai.features.scaling import Scaler, fit_scaler
from btcai.features.splits import Splits
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.inference.bundle import GRAPHS, MANIFEST, file_sha256, tokens_of, write_manifest
from btcai.market.rules import make_rules
from btcai.models.actor_critic import ActorCritic
from btcai.schema import ACCOUNT_FEATURES, QUANTILE_LEVELS, TOKENS, Bars, MarketData, SealedSpan, Span
from btcai.simulator.bars import simulate_bars
from btcai.training.checkpoint import new_model, save_model
from btcai.training.export import export_bundle
from btcai.training.progressive import set_scaler

N_BARS = 10_000
TRAIN = Span(WARMUP_BARS, 7000)
VERSIONS = {"data": "d" * 64, "code": "c" * 64}


@cache
def frame(n_bars: int = N_BARS) -> pd.DataFrame:
    """Raw simulated bars; callers copy before they change them."""
    return simulate_bars(n_bars, seed=11)


@cache
def market(n_bars: int = N_BARS) -> MarketData:
    return build_market(to_grid(frame(n_bars)))


@cache
def scaler() -> Scaler:
    return fit_scaler(market().features, TRAIN)


def tiny_config(**profile: int) -> Config:
    """params.yaml with a small network, small batches, and as many updates as named."""
    config = settings()
    updates = {
        "pretrain_updates": 2,
        "ppo_updates": 2,
        "consolidate_pretrain_updates": 1,
        "consolidate_ppo_updates": 1,
    } | profile
    small = {"stretches": 4, "encoder_every": 2, "encoder_minibatches": 2, "head_minibatches": 2, "agents": 2}
    return config.model_copy(
        update={
            "model": SMALL,
            "pretrain": config.pretrain.model_copy(update={"stretches": 4, "decisions": 128}),
            "ppo": config.ppo.model_copy(update=small),
            "profiles": {**config.profiles, config.profile: config.budget.model_copy(update=updates)},
        }
    )


def splits(train: Span, valid: Span) -> Splits:
    """Two spans to train on; what is judged later is left empty."""
    rest = Span(valid.stop, valid.stop)
    return Splits(train=train, valid=valid, test=rest, folds=(rest,), sealed=SealedSpan(valid.stop, valid.stop))


FREE_TO_ACT = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 1, 1])
"""An account that may buy and sell."""


def loud_network(config: Config, bucket_name: str, seed: int = 0) -> ActorCritic:
    """Random weights, large enough that decisions and forecasts move with every input; every buffer is in use."""
    torch.manual_seed(seed)
    model = new_model(config, bucket_name).eval()
    set_scaler(model, scaler())
    with torch.no_grad():
        torch.nn.init.normal_(model.head.policy.weight, std=0.5)
        for layer in (model.forecast.student, model.forecast.steps):
            torch.nn.init.normal_(layer.weight, std=0.05)
        model.quantile_offset.normal_(std=0.1)
        model.std_factor.uniform_(0.8, 1.2)
        model.temperature.uniform_(0.8, 1.2)
        model.stem.relevance.normal_(std=0.05)
        model.value_mean.fill_(0.002)
        model.value_std.fill_(0.01)
        patch = config.buckets[bucket_name].patch_bars
        encoding = model.encode(torch.from_numpy(tokens_of(market().features[-(TOKENS + 99) * patch :], patch)))
        model.refresh_signal_scale([encoding])
        model.note_usual(encoding.trunk[0])
        logits, _ = model.head(model.latent(encoding)[0], FREE_TO_ACT.expand(100, -1))
        model.head.policy.bias -= logits.mean(0)  # no action is the likeliest everywhere
    return model


_KEPT: list[TemporaryDirectory[str]] = []


@cache
def exported(bucket_name: str) -> tuple[ActorCritic, Path]:
    """A loud network of the shipped shape and its bundle, exported once a session (tens of seconds)."""
    folder = TemporaryDirectory(prefix="btcai-bundle-")
    _KEPT.append(folder)  # removed when the session ends
    model = loud_network(settings(), bucket_name)
    return model, export_to(Path(folder.name), model, bucket_name)


def export_to(folder: Path, model: ActorCritic, bucket_name: str) -> Path:
    """Save a network of the shipped shape into folder/trained and export it to folder/bundle."""
    save_model(model, folder / "trained")
    export_bundle(folder / "trained", bucket_name, settings(), market(), scaler(), VERSIONS, folder / "bundle")
    return folder / "bundle"


def hand_made_bundle(
    folder: Path,
    bucket_name: str = "scalping",
    *,
    logits: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0),
    mean: float = 0.001,
    std: float = 0.002,
    unfamiliarity: float = 0.5,
    **changes: Any,
) -> Path:
    """A bundle whose graphs are a few lines: fixed logits and forecasts whatever the market; the manifest is whole.

    The latent is the newest bar's features. mean * (h + 1), quantiles std * (level - 0.5).
    """
    folder.mkdir(parents=True, exist_ok=True)
    bucket = settings().buckets[bucket_name]
    horizons, features = len(bucket.horizons_bars), len(FEATURE_NAMES)
    constants = {
        "gates": np.full((1, 1, 3), 1 / 3),
        "mean": mean * np.arange(1, horizons + 1)[None, None],
        "std": np.full((1, 1, horizons), std),
        "quantiles": np.tile(std * (np.array(QUANTILE_LEVELS) - 0.5), (1, 1, horizons, 1)),
        "unfamiliarity": np.full((1, 1), unfamiliarity),
    }
    fixed = [_constant(name, value.astype(np.float32)) for name, value in constants.items()]
    axes = {"starts": [143], "ends": [2**31], "axes": [1], "newest": -1}
    fixed += [_constant(name, np.array(value, np.int64)) for name, value in axes.items()]
    newest = [
        helper.make_node("Slice", ["tokens", "starts", "ends", "axes"], ["decided"]),
        helper.make_node("Gather", ["decided", "newest"], ["latent"], axis=2),
    ]
    outputs = [
        _value("latent", ["b", "m", features]),
        *(_value(name, value.shape) for name, value in constants.items()),
    ]
    tokens = _value("tokens", ["b", "n", bucket.patch_bars, features])
    _save(folder / "encoder.onnx", newest + fixed, [tokens], outputs)
    head = [
        _constant("logits", np.array([logits], np.float32)),
        _constant("value", np.array([0.25], np.float32)),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    inputs = [_value("latent", ["b", features]), _value("account", ["b", len(ACCOUNT_FEATURES)])]
    _save(folder / "head.onnx", head, inputs, [_value("probabilities", [1, 4]), _value("value", [1])])
    _write_manifest(folder, bucket_name, changes)
    return folder


def loud_bundle(folder: Path, bucket_name: str = "scalping", seed: int = 0, **changes: Any) -> Path:
    """A bundle of random linear graphs: actions, forecasts and doubt move with every bar and with the account.

    As a network does, it gives no chance to what the account cannot do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    bucket = settings().buckets[bucket_name]
    n, h, q = len(FEATURE_NAMES), len(bucket.horizons_bars), len(QUANTILE_LEVELS)
    weights = {
        "to_gates": rng.normal(size=(n, 3)),
        "to_mean": 0.0005 * rng.normal(size=(n, h)),
        "to_std": 0.2 * rng.normal(size=(n, h)),
        "least_std": np.array(-5.0),
        "levels": 0.001 * (np.array(QUANTILE_LEVELS) - 0.5).reshape(1, 1, 1, q),
    }
    window = {"starts": [143], "ends": [2**31], "axes": [1], "newest": -1, "last": [-1]}
    encoder = [
        *(_constant(name, value.astype(np.float32)) for name, value in weights.items()),
        *(_constant(name, np.array(value, np.int64)) for name, value in window.items()),
        helper.make_node("Slice", ["tokens", "starts", "ends", "axes"], ["decided"]),
        helper.make_node("Gather", ["decided", "newest"], ["rows"], axis=2),
        helper.make_node("Tanh", ["rows"], ["latent"]),
        helper.make_node("MatMul", ["latent", "to_gates"], ["shares"]),
        helper.make_node("Softmax", ["shares"], ["gates"]),
        helper.make_node("MatMul", ["latent", "to_mean"], ["mean"]),
        helper.make_node("MatMul", ["latent", "to_std"], ["log_std"]),
        helper.make_node("Add", ["log_std", "least_std"], ["shifted"]),
        helper.make_node("Exp", ["shifted"], ["std"]),
        helper.make_node("Unsqueeze", ["mean", "last"], ["centre"]),
        helper.make_node("Add", ["centre", "levels"], ["quantiles"]),
        helper.make_node("Abs", ["latent"], ["moved"]),
        helper.make_node("ReduceMean", ["moved", "last"], ["unfamiliarity"], keepdims=0),
    ]
    shapes = {"latent": [n], "gates": [3], "mean": [h], "std": [h], "quantiles": [h, q], "unfamiliarity": []}
    tokens = _value("tokens", ["b", "n", bucket.patch_bars, n])
    _save(
        folder / "encoder.onnx", encoder, [tokens], [_value(name, ["b", "m", *rest]) for name, rest in shapes.items()]
    )
    account = len(ACCOUNT_FEATURES)
    allow = np.zeros((account, 4))
    allow[ACCOUNT_FEATURES.index("can_buy"), 1] = allow[ACCOUNT_FEATURES.index("can_sell"), 2:] = 1e4
    head = [
        _constant("to_logits", rng.normal(size=(n + account, 4)).astype(np.float32)),
        _constant("allow", allow.astype(np.float32)),
        _constant("forbid", np.array([0.3, -1e4, -1e4, -1e4 - 1.0], np.float32)),
        _constant("to_value", np.ones((n + account, 1), np.float32)),
        _constant("flat", np.array([-1], np.int64)),
        helper.make_node("Concat", ["latent", "account"], ["state"], axis=1),
        helper.make_node("MatMul", ["state", "to_logits"], ["wanted"]),
        helper.make_node("MatMul", ["account", "allow"], ["allowed"]),
        helper.make_node("Add", ["allowed", "forbid"], ["mask"]),
        helper.make_node("Add", ["wanted", "mask"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("MatMul", ["state", "to_value"], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], ["value"]),
    ]
    inputs = [_value("latent", ["b", n]), _value("account", ["b", account])]
    _save(folder / "head.onnx", head, inputs, [_value("probabilities", ["b", 4]), _value("value", ["b"])])
    _write_manifest(folder, bucket_name, changes)
    return folder


def _write_manifest(folder: Path, bucket_name: str, changes: dict[str, Any]) -> None:
    """A whole manifest of the graphs in the folder, and a policy.onnx that nobody opens to decide."""
    (folder / "policy.onnx").write_bytes(b"not opened to decide")
    config = settings()
    bucket = config.buckets[bucket_name]
    manifest = {
        "bucket": bucket_name,
        "bucket_config": bucket.model_dump(mode="json"),
        "rules": make_rules(bucket, config.market, config.risk)._asdict(),
        "sizing": config.sizing.model_dump(mode="json"),
        "equity_usdt": config.market.equity_usdt,
        "feature_names": list(FEATURE_NAMES),
        "warmup_bars": WARMUP_BARS,
        "versions": VERSIONS,
        "sha256": {name: file_sha256(folder / name) for name in GRAPHS},
    } | changes
    write_manifest(folder, manifest)


def change_manifest(folder: Path, **changes: Any) -> None:
    """Other values in a bundle's manifest, as if it had been written with them; None takes a key out."""
    said = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | changes
    write_manifest(folder, {key: value for key, value in said.items() if value is not None})


def newest_bars(bars: Bars, stop: int, n: int) -> Bars:
    """Bars stop - n .. stop - 1."""
    names = Bars.__dataclass_fields__
    return replace(bars, **{name: getattr(bars, name)[stop - n : stop] for name in names})


def _constant(name: str, value: np.ndarray[Any, Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def _value(name: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _save(
    path: Path, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
