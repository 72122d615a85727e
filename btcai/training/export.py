"""Exporting a trained network as a bundle of ONNX graphs, after proving that every form gives the same numbers."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from btcai.config import Config
from btcai.errors import ArtifactError
from btcai.features.scaling import Scaler
from btcai.files import whole
from btcai.inference.bundle import (
    GRAPHS,
    Encoded,
    PolicyBundle,
    file_sha256,
    load_bundle,
    session,
    tokens_of,
    write_manifest,
)
from btcai.market.rules import make_rules
from btcai.models.actor_critic import ActorCritic
from btcai.models.graphs import EncoderGraph, HeadGraph
from btcai.schema import ACCOUNT_FEATURES, BUCKETS, QUANTILE_LEVELS, TOKENS, Float32Array, MarketData
from btcai.training import contract
from btcai.training.checkpoint import LOG_SIGMA, load_model, set_up_torch

logger = logging.getLogger(__name__)

PARITY_WINDOWS = 1000
PARITY = {"probabilities": 1e-4, "forecasts": 1e-4, "unfamiliarity": 1e-4, "sequence": 1e-4}
"""Largest difference between two forms: of forecasts relative to the predicted standard deviation, of unfamiliarity
relative to itself where that is above 1, in a sequence of probabilities."""

FORECASTS = ("mean", "std", "quantiles")
PER_DECISION = (*FORECASTS, "unfamiliarity")

Array = np.ndarray[Any, np.dtype[np.float32]]


def export_bundle(
    folder: Path,
    bucket_name: str,
    config: Config,
    data: MarketData,
    scaler: Scaler,
    versions: dict[str, str],
    out: Path,
    *,
    seen: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write encoder.onnx, head.onnx, policy.onnx and manifest.json to `out`; returns the manifest.

    seen: what the weights were fitted to and chosen on (starts.DataSeen), for whoever goes on from them or judges
    them later.

    Parity of torch, encoder + head and the fused policy is proven on 1,000 windows of the market first: ArtifactError
    with the largest difference otherwise, and nothing is written. The same weights give the same bytes in any folder.
    """
    place = BUCKETS.index(bucket_name) + 1
    logger.info("%s, %d of %d: exporting, with proof of parity", bucket_name, place, len(BUCKETS))
    set_up_torch(config)
    model = load_model(folder, bucket_name, config)
    fitted = ((model.stem.feature_mean, scaler.mean), (model.stem.feature_std, scaler.std))
    if not all(np.array_equal(inside.numpy(), given) for inside, given in fitted):
        raise ArtifactError(
            f"{folder} was trained with another scaler; train again with: btcai stage train@{bucket_name}"
        )
    with whole(out) as draft:
        _write_graphs(model, config.buckets[bucket_name].horizons_bars, len(data.feature_names), draft)
        rules = make_rules(config.buckets[bucket_name], config.market, config.risk)
        io = contract.describe(draft, config.buckets[bucket_name], rules, config.sizing)
        manifest = _manifest(model, bucket_name, config, data, scaler, versions, draft)
        manifest |= {"rules": rules._asdict(), "io": io, "seen": seen}
        write_manifest(draft, manifest)
        manifest["parity"] = prove_parity(model, load_bundle(draft), data)
        write_manifest(draft, manifest)
    return manifest


def prove_parity(
    model: ActorCritic, bundle: PolicyBundle, data: MarketData, windows: int = PARITY_WINDOWS
) -> dict[str, float]:
    """Largest differences between torch, encoder + head, and the fused policy over windows spread across the market.

    Probabilities and unfamiliarity must agree within 1e-4, means, standard deviations and quantiles within 1e-4 of the
    predicted standard deviation; ArtifactError else, and where any of them is not a number.
    """
    rng = np.random.default_rng(0)
    first = data.warmup_bars + bundle.lookback_bars
    ends = np.linspace(first, len(data.features), windows, dtype=np.int64)
    account = _random_accounts(windows, rng)
    encoder = EncoderGraph(model, bundle.horizons_bars, LOG_SIGMA).eval()
    head = HeadGraph(model).eval()
    path = bundle.folder / "policy.onnx"
    fused = session(path.read_bytes(), path)
    names = [output.name for output in fused.get_outputs()]
    worst = {"probabilities": 0.0, "forecasts": 0.0, "unfamiliarity": 0.0, "sequence": 0.0}
    for k, end in enumerate(ends):
        rows = np.asarray(data.features[end - bundle.lookback_bars : end])
        tokens = tokens_of(rows, bundle.patch_bars)
        reference = _torch_window(encoder, head, tokens, account[k : k + 1])
        encoded = bundle.encode(rows)
        split = {name: getattr(encoded, name) for name in PER_DECISION}
        split["probabilities"] = bundle.probabilities(encoded.latent, account[k : k + 1])
        whole = dict(zip(names, fused.run(None, {"tokens": tokens, "account": account[k : k + 1]}), strict=True))
        for form in (split, whole):
            for name, difference in _differences(form, reference).items():  # np.maximum keeps a nan, max() would not
                worst[name] = np.maximum(worst[name], difference)
    worst["sequence"] = _sequence_difference(bundle, data, ends[windows // 2], account)
    worst = {name: float(difference) for name, difference in worst.items()}
    if not all(worst[name] <= limit for name, limit in PARITY.items()):
        raise ArtifactError(
            f"{bundle.bucket}: the exported graphs differ from the trained network ({worst}); nothing written"
        )
    return worst


def _differences(form: dict[str, Array], reference: dict[str, Array]) -> dict[str, float]:
    """Of one window, as PARITY has them."""
    apart = {name: np.abs(form[name] - given) for name, given in reference.items()}
    std = reference["std"]
    return {
        "probabilities": float(apart["probabilities"].max()),
        "forecasts": float(np.max([(apart[name].T / std.T).max() for name in FORECASTS])),
        "unfamiliarity": float((apart["unfamiliarity"] / np.maximum(1.0, reference["unfamiliarity"])).max()),
    }


def _sequence_difference(bundle: PolicyBundle, data: MarketData, end: int, account: Float32Array) -> float:
    """Probabilities of one stretch of decision times against the same decisions window by window."""
    patch, n = bundle.patch_bars, 32
    end = max(int(end), bundle.lookback_bars + (n - 1) * patch)
    rows = np.asarray(data.features[end - bundle.lookback_bars - (n - 1) * patch : end])
    together = bundle.probabilities(bundle.encode(rows).latent, account[:n])
    apart = [bundle.encode(rows[k * patch : k * patch + bundle.lookback_bars]).latent for k in range(n)]
    return float(np.abs(together - bundle.probabilities(np.concatenate(apart), account[:n])).max())


@torch.no_grad()
def _torch_window(
    encoder: EncoderGraph, head: HeadGraph, tokens: Float32Array, account: Float32Array
) -> dict[str, Array]:
    """What a window says, (1, ...) each: PER_DECISION and probabilities."""
    said = dict(zip(Encoded.__dataclass_fields__, encoder(torch.from_numpy(tokens)), strict=True))
    probabilities, _ = head(said["latent"][:, 0], torch.from_numpy(account))
    return {name: said[name][:, 0].numpy() for name in PER_DECISION} | {"probabilities": probabilities.numpy()}


def _random_accounts(n: int, rng: np.random.Generator) -> Float32Array:
    """Plausible account observations (n, A) with both flags drawn."""
    account = rng.normal(0.0, 1.0, (n, len(ACCOUNT_FEATURES))).astype(np.float32)
    account[:, -2:] = rng.integers(0, 2, (n, 2))
    return account


def _write_graphs(model: ActorCritic, horizons_bars: tuple[int, ...], n_features: int, folder: Path) -> None:
    encoder = EncoderGraph(model, horizons_bars, LOG_SIGMA).eval()
    head = HeadGraph(model).eval()
    # Examples of batch 2 and more than one decision time: a size of one would be frozen into the graph. The least
    # number of tokens is one above a single window for the same reason; the graph then runs one window as well.
    stretch = torch.zeros(2, TOKENS + 7, model.stem.patch_bars, n_features)
    account = torch.zeros(2, len(ACCOUNT_FEATURES))
    latent = torch.zeros(2, model.head.market.in_features)
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", min=TOKENS + 1)
    outputs = list(Encoded.__dataclass_fields__)
    _export(encoder, (stretch,), ["tokens"], outputs, [{0: batch, 1: tokens}], folder / "encoder.onnx")
    pair = ["probabilities", "value"]
    _export(head, (latent, account), ["latent", "account"], pair, [{0: batch}] * 2, folder / "head.onnx")
    _save(fuse(onnx.load(folder / "encoder.onnx"), onnx.load(folder / "head.onnx")), folder / "policy.onnx")


def fuse(encoder: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """Encoder and head as one graph for one window: tokens (B, 144, P, F), account (B, A) ->

    probabilities (B, 4), value (B,), mean, std (B, H), quantiles (B, H, Q), unfamiliarity (B,).
    """
    encoder = onnx.compose.add_prefix(encoder, "encoder/")
    graph = encoder.graph
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "time_axis")
    graph.initializer.append(axis)
    for name in ("latent", *PER_DECISION):  # one window is one decision time: drop that axis
        node = onnx.helper.make_node("Squeeze", [f"encoder/{name}", axis.name], [name], name=f"window/{name}")
        graph.node.append(node)
    names = {name: f"head/{name}" for name in ("latent", "account", "probabilities", "value")}
    head = onnx.compose.add_prefix(head, "head/")
    window = _value_info(graph.input[0], "tokens", {1: TOKENS})
    outputs = [_value_info(value, name, drop=1) for value in graph.output if (name := value.name[8:]) in PER_DECISION]
    fused = onnx.helper.make_graph(
        [
            *(_renamed(node, {"encoder/tokens": "tokens"}) for node in graph.node),
            *(_renamed(node, {prefixed: name for name, prefixed in names.items()}) for node in head.graph.node),
        ],
        "policy",
        [window, _value_info(head.graph.input[1], "account")],
        [*(_value_info(value, value.name[5:]) for value in head.graph.output), *outputs],
        [*graph.initializer, *head.graph.initializer],
    )
    return onnx.helper.make_model(fused, opset_imports=encoder.opset_import, ir_version=encoder.ir_version)


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    return node


def _value_info(
    value: onnx.ValueInfoProto, name: str, sizes: dict[int, int] | None = None, drop: int | None = None
) -> onnx.ValueInfoProto:
    """The same tensor type under another name, some axes given a size, one axis left out."""
    axes = [
        sizes[k] if sizes and k in sizes else dim.dim_param or dim.dim_value
        for k, dim in enumerate(value.type.tensor_type.shape.dim)
    ]
    kept = [axis if isinstance(axis, int) else "batch" for k, axis in enumerate(axes) if k != drop]
    return onnx.helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, kept)


def _export(
    graph: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], dynamic: list[Any], path: Path
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # and that torchvision is not there
        program = torch.onnx.export(
            graph,
            example,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=tuple(dynamic),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # with dynamo=True the exporter returns its program
    _save(program.model_proto, path)


def _save(proto: onnx.ModelProto, path: Path) -> None:
    strip_metadata(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def strip_metadata(proto: onnx.ModelProto) -> None:
    """Remove what the exporter says of the machine: source paths, stack traces, doc strings."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    graph = proto.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    for part in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer):
        for item in part:
            item.doc_string = ""
            del item.metadata_props[:]
    for function in proto.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


def _manifest(
    model: ActorCritic,
    bucket_name: str,
    config: Config,
    data: MarketData,
    scaler: Scaler,
    versions: dict[str, str],
    folder: Path,
) -> dict[str, Any]:
    bucket = config.buckets[bucket_name]
    return {
        "bucket": bucket_name,
        "bucket_config": bucket.model_dump(mode="json"),
        "severity": config.market.severity,
        "sizing": config.sizing.model_dump(mode="json"),
        "equity_usdt": config.market.equity_usdt,
        "feature_names": list(data.feature_names),
        "scaler": {**scaler.columns(), "applied_in_graph": True, "formula": contract.SCALER},
        "warmup_bars": data.warmup_bars,
        "lookback_bars": bucket.lookback_bars,
        "account_features": list(ACCOUNT_FEATURES),
        "quantile_levels": list(QUANTILE_LEVELS),
        "calibration": {
            "quantile_offset": model.quantile_offset.double().tolist(),
            "std_factor": model.std_factor.double().tolist(),
            "temperature": model.temperature.double().tolist(),
            "unit": "sigma * sqrt(horizon)",
            "applied_in_graph": True,
            "formula": contract.CALIBRATION,
        },
        "parameters": model.n_parameters(),
        "versions": versions,
        "sha256": {name: file_sha256(folder / name) for name in GRAPHS},
    }
