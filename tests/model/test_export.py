"""A bundle says what the trained network says, bit for bit the same file wherever it was made."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_fakes import VERSIONS, export_to, exported, loud_network, market, scaler
from learning_tasks import settings

from btcai.errors import ArtifactError
from btcai.features.scaling import Scaler
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.inference.bundle import GRAPHS, MANIFEST, file_sha256, load_bundle, session
from btcai.models.graphs import EncoderGraph, HeadGraph
from btcai.schema import ACCOUNT_FEATURES, BUCKETS, TOKENS
from btcai.serving.shelf import holds_scaler
from btcai.training import export
from btcai.training.checkpoint import LOG_SIGMA, save_model
from btcai.training.contract import READ_FIRST
from btcai.training.export import PARITY, export_bundle, prove_parity

pytestmark = pytest.mark.slow
FILES = (*GRAPHS, MANIFEST)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def saved_with_the_graphs_of_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, seed: int = 1
) -> tuple[Path, Path]:
    """A trained folder whose export would pick up graphs of other weights, and an old bundle in its way."""
    _, other = exported("scalping")
    save_model(loud_network(settings(), "scalping", seed=seed), folder / "trained")
    shutil.copytree(other, folder / "bundle")

    def stale(model: object, horizons_bars: object, n_features: int, draft: Path) -> None:
        for name in GRAPHS:
            shutil.copy(other / name, draft / name)

    monkeypatch.setattr(export, "_write_graphs", stale)
    return folder / "trained", folder / "bundle"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("bucket_name", ["scalping", "medium"])
def test_a_bundle_is_three_graphs_and_what_they_rest_on(bucket_name: str) -> None:
    model, folder = exported(bucket_name)
    bucket = settings().buckets[bucket_name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert not folder.with_name("bundle.draft").exists()
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["sha256"] == {name: file_sha256(folder / name) for name in GRAPHS}
    assert manifest["feature_names"] == list(FEATURE_NAMES)
    assert (manifest["warmup_bars"], manifest["lookback_bars"]) == (WARMUP_BARS, TOKENS * bucket.patch_bars)
    assert manifest["versions"] == VERSIONS
    assert manifest["rules"]["max_lots"] == bucket.max_lots
    assert np.allclose(manifest["calibration"]["std_factor"], model.std_factor.numpy())
    assert load_bundle(folder).horizons_bars == bucket.horizons_bars


def test_the_scaler_that_a_manifest_names_is_the_one_inside_its_encoder_and_another_is_found_out() -> None:
    _, folder = exported("scalping")
    named = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["scaler"]
    read = Scaler.of(named)
    assert (read.mean.tobytes(), read.std.tobytes()) == (scaler().mean.tobytes(), scaler().std.tobytes())
    encoder = (folder / "encoder.onnx").read_bytes()
    assert holds_scaler(encoder, read)
    for part in ("mean", "std"):
        moved = getattr(read, part).copy()
        moved[7] = np.nextafter(moved[7], np.float32(9))
        assert not holds_scaler(encoder, replace(read, **{part: moved}))


@pytest.mark.parametrize("bucket_name", BUCKETS)
def test_three_forms_agree_on_a_thousand_windows(bucket_name: str) -> None:
    _, folder = exported(bucket_name)  # prove_parity ran over 1,000 windows, or this would have raised
    assert export.PARITY_WINDOWS == 1000
    parity = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["parity"]
    assert set(parity) == set(PARITY) == {"probabilities", "forecasts", "unfamiliarity", "sequence"}
    assert set(PARITY.values()) == {1e-4}
    assert all(parity[name] <= 1e-4 for name in PARITY)


def test_the_loud_network_is_not_of_one_opinion() -> None:
    # parity of a network that always says the same would prove nothing
    _, folder = exported("scalping")
    bundle = load_bundle(folder)
    latent = bundle.encode(market().features[3000 : 3000 + 500]).latent
    account = np.tile(np.array([0.5, 0.5, 0, 0, 0, 0, 0, 1, 1], np.float32), (len(latent), 1))
    probabilities = bundle.probabilities(latent, account)
    assert len(set(probabilities.argmax(1))) >= 3
    assert probabilities.std(0).min() > 0.02


@pytest.mark.parametrize("bucket_name", ["scalping", "medium"])
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("tokens", [TOKENS, TOKENS + 1, 300])
def test_any_batch_and_any_length_gives_the_networks_numbers(bucket_name: str, batch: int, tokens: int) -> None:
    model, folder = exported(bucket_name)
    patch = settings().buckets[bucket_name].patch_bars
    starts = np.linspace(WARMUP_BARS, len(market()) - tokens * patch, batch, dtype=np.int64)
    stretch = np.stack(
        [market().features[start : start + tokens * patch].reshape(tokens, patch, -1) for start in starts]
    )
    found = session((folder / "encoder.onnx").read_bytes(), folder / "encoder.onnx").run(None, {"tokens": stretch})
    with torch.no_grad():
        graph = EncoderGraph(model, settings().buckets[bucket_name].horizons_bars, LOG_SIGMA)
        expected = [tensor.numpy() for tensor in graph(torch.from_numpy(stretch))]
    unit, far = expected[3], np.maximum(1.0, expected[5])
    for array, reference, scale in zip(found, expected, (1, 1, unit, unit, unit[..., None], far), strict=True):
        assert array.shape == reference.shape
        assert array.shape[:2] == (batch, tokens - TOKENS + 1)
        assert (np.abs(array - reference) / scale).max() < 1e-4


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_fused_policy_is_head_after_encoder(batch: int) -> None:
    model, folder = exported("medium")
    starts = WARMUP_BARS + 900 * np.arange(batch)
    stretch = np.stack([market().features[start : start + 1440].reshape(TOKENS, 10, -1) for start in starts])
    account = np.random.default_rng(0).random((batch, len(ACCOUNT_FEATURES)), np.float32)
    account[:, -2:] = 1.0
    fused = session((folder / "policy.onnx").read_bytes(), folder / "policy.onnx")
    names = [output.name for output in fused.get_outputs()]
    outputs = dict(zip(names, fused.run(names, {"tokens": stretch, "account": account}), strict=True))
    with torch.no_grad():
        said = EncoderGraph(model, (288, 1008, 2016), LOG_SIGMA)(torch.from_numpy(stretch))
        latent, _, mean, std, quantiles, unfamiliarity = said
        probabilities, value = HeadGraph(model)(latent[:, 0], torch.from_numpy(account))
    assert set(outputs) == {"probabilities", "value", "mean", "std", "quantiles", "unfamiliarity"}
    assert np.allclose(outputs["unfamiliarity"], unfamiliarity[:, 0].numpy(), rtol=1e-4)
    assert np.abs(outputs["probabilities"] - probabilities.numpy()).max() < 1e-4
    assert np.abs(outputs["value"] - value.numpy()).max() < 1e-4 * max(1.0, np.abs(value.numpy()).max())
    assert np.abs(outputs["mean"] / std[:, 0].numpy() - (mean / std)[:, 0].numpy()).max() < 1e-4
    assert np.abs(outputs["std"] / std[:, 0].numpy() - 1).max() < 1e-4
    unit = std[:, 0, :, None].numpy()
    assert np.abs(outputs["quantiles"] / unit - quantiles[:, 0].numpy() / unit).max() < 1e-4


def test_the_same_weights_exported_in_two_folders_are_the_same_bytes(tmp_path: Path) -> None:
    model, first = exported("scalping")
    second = export_to(tmp_path / "some other place", model, "scalping")
    assert contents(first) == contents(second)


@pytest.mark.parametrize("bucket_name", ["scalping", "medium"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_says_nothing_of_the_machine_that_made_it(bucket_name: str, name: str) -> None:
    _, folder = exported(bucket_name)
    proto = onnx.load(folder / name)
    graph = proto.graph
    parts = [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    assert len(parts) > 10
    assert not [part.name for part in (graph, *parts) if part.doc_string or part.metadata_props]
    assert proto.doc_string == READ_FIRST
    assert [entry.key for entry in proto.metadata_props] == ["io"]  # the contract, see test_contract
    for tensor in graph.initializer:
        tensor.raw_data = b""  # random bytes that may spell anything
    text = re.sub(rb"(encoder|head|window)/", b"", proto.SerializeToString())  # the fused graph's own prefixes
    for telling in (b"site-packages", b".py", b"torch/", b"File ", str(folder).encode(), str(Path.home()).encode()):
        assert telling not in text
    names = {name for node in graph.node for name in (node.name, node.domain, *node.input, *node.output)}
    names |= {part.name for part in parts}
    assert not [name for name in names if "/" in re.sub(r"^(encoder|head|window)/", "", name)]
    assert not [a.name for node in graph.node for a in node.attribute if a.doc_string or b"/" in a.s]


def test_a_network_altered_after_its_export_is_found_out() -> None:
    model, folder = exported("scalping")
    bundle = load_bundle(folder)
    assert max(prove_parity(model, bundle, market(), windows=32).values()) < 1e-4
    altered = loud_network(settings(), "scalping")
    with torch.no_grad():
        altered.head.policy.bias[1] += 0.01
    with pytest.raises(ArtifactError, match=r"scalping: the exported graphs differ .* nothing written"):
        prove_parity(altered, bundle, market(), windows=32)


@pytest.mark.parametrize("buffer", ["quantile_offset", "std_factor"])
def test_another_calibration_is_found_out(buffer: str) -> None:
    _, folder = exported("scalping")
    altered = loud_network(settings(), "scalping")
    getattr(altered, buffer).add_(0.01)
    with pytest.raises(ArtifactError, match="differ from the trained network"):
        prove_parity(altered, load_bundle(folder), market(), windows=32)


def test_a_network_that_says_nan_is_never_at_parity() -> None:
    _, folder = exported("scalping")
    broken = loud_network(settings(), "scalping")
    broken.std_factor.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="nan"):
        prove_parity(broken, load_bundle(folder), market(), windows=32)


def test_a_failed_export_leaves_the_old_bundle_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, bundle = saved_with_the_graphs_of_another(tmp_path, monkeypatch)
    before = contents(bundle)
    with pytest.raises(ArtifactError, match="nothing written"):
        export_bundle(trained, "scalping", settings(), market(), scaler(), VERSIONS, bundle)
    assert contents(bundle) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "trained"]


@pytest.mark.parametrize("part", ["mean", "std"])
def test_a_scaler_other_than_the_trained_one_is_refused(tmp_path: Path, part: str) -> None:
    save_model(loud_network(settings(), "scalping"), tmp_path / "trained")
    parts = {"mean": scaler().mean.copy(), "std": scaler().std.copy()}
    parts[part][3] *= 1.01
    with pytest.raises(ArtifactError, match=r"another scaler; train again with: btcai stage train@scalping"):
        export_bundle(
            tmp_path / "trained", "scalping", settings(), market(), Scaler(**parts), VERSIONS, tmp_path / "bundle"
        )
    assert not (tmp_path / "bundle").exists()
