"""Deciding from a bundle: the clock, the account, the size, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_fakes import VERSIONS, exported, hand_made_bundle, market, newest_bars
from learning_tasks import settings

from btcai.checksums import CHECKSUM
from btcai.errors import ArtifactError, DataError
from btcai.evaluation.backtest import decision_bars
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.inference import bundle as bundle_module
from btcai.inference.bundle import MANIFEST, file_sha256, load_bundle, read_graphs, write_manifest
from btcai.inference.decision import decide
from btcai.schema import BAR_NS, QUANTILE_LEVELS, TOKENS, Action, Bars, Span

NEEDED = {"scalping": TOKENS + WARMUP_BARS, "medium": 10 * TOKENS + WARMUP_BARS}


@pytest.fixture(scope="module")
def buying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_made_bundle(tmp_path_factory.mktemp("scalping"))


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_made_bundle(tmp_path_factory.mktemp("medium"), "medium", logits=(2.0, 0.0, 0.0, 0.0))


def bars(n: int, stop: int = 9000) -> Bars:
    return newest_bars(market().bars, stop, n)


def clock_stop(patch_bars: int) -> int:
    """The stop of a slice that ends at a decision time."""
    return int(decision_bars(market().bars.close_ts_ns, Span(8000, 9000), patch_bars)[-1]) + 1


def test_a_decision_carries_all_it_rests_on(buying: Path) -> None:
    bundle = load_bundle(buying)
    given = bars(NEEDED["scalping"])
    decision = decide(bundle, given)
    assert decision.bucket == "scalping"
    assert decision.close_ts_ns == given.close_ts_ns[-1]
    assert decision.action is Action.BUY
    assert sum(decision.probabilities) == pytest.approx(1.0, abs=1e-6)
    # logits 0, 1, 0, 0: a buy has e / (e + 3)
    assert decision.probabilities[Action.BUY] == pytest.approx(np.e / (np.e + 3), rel=1e-6)
    assert decision.value == 0.25
    assert [f.horizon_bars for f in decision.forecasts] == [3, 12, 36]
    assert [f.mean for f in decision.forecasts] == pytest.approx([0.001, 0.002, 0.003])
    assert all(len(f.quantiles) == len(QUANTILE_LEVELS) for f in decision.forecasts)
    assert all(np.diff(f.quantiles).min() > 0 for f in decision.forecasts)
    assert decision.data_version == VERSIONS["data"]
    assert len(decision.model_version) == 12


def test_size_aims_at_the_target_volatility_shared_by_the_lots(buying: Path) -> None:
    decision = decide(load_bundle(buying), bars(NEEDED["scalping"]))
    sigma = float(market().sigma[8999])
    doubt = max(1.0, 0.002 / (sigma * 3**0.5))
    held = min(1.0, 0.5 / (sigma * (365 * 288) ** 0.5 * doubt))
    assert decision.size_frac == pytest.approx(held / 25, rel=1e-5)


def test_only_a_buy_has_a_size(tmp_path: Path) -> None:
    bundle = load_bundle(hand_made_bundle(tmp_path, logits=(0.0, 0.0, 0.0, 1.0)))
    lot = {"btc": 0.1, "entry_price": 30_000.0}
    decision = decide(bundle, bars(NEEDED["scalping"]), {"cash_usdt": 1e5, "lots": [lot]})
    assert (decision.action, decision.size_frac) == (Action.CLOSE_ALL, 0.0)


def test_a_buy_under_too_much_doubt_becomes_hold(tmp_path: Path) -> None:
    bundle = load_bundle(hand_made_bundle(tmp_path, std=0.5))  # far above 3 * sigma * sqrt(3)
    decision = decide(bundle, bars(NEEDED["scalping"]))
    assert (decision.action, decision.size_frac) == (Action.HOLD, 0.0)
    assert decision.probabilities[Action.BUY] > 0.4  # what the network said stays readable
    uncertainty = 0.5 / (float(market().sigma[8999]) * 3**0.5)
    assert decision.note == f"a lot is not allowed: predicted uncertainty {uncertainty:.3g} is above 3"


def test_an_unfamiliar_market_opens_no_lot_and_says_so(tmp_path: Path) -> None:
    decision = decide(load_bundle(hand_made_bundle(tmp_path, unfamiliarity=2.5)), bars(NEEDED["scalping"]))
    assert (decision.action, decision.unfamiliarity) == (Action.HOLD, 2.5)
    assert decision.note == "a lot is not allowed: the market's unfamiliarity 2.5 is above 2"


def test_a_bundle_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = hand_made_bundle(tmp_path)
    graph = onnx.load(folder / "encoder.onnx")
    del graph.graph.output[-1]
    onnx.save(graph, folder / "encoder.onnx")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["sha256"]["encoder.onnx"] = file_sha256(folder / "encoder.onnx")
    write_manifest(folder, manifest)
    with pytest.raises(ArtifactError, match=r"puts out latent, gates, mean, std, quantiles: .*remake it with: btcai"):
        load_bundle(folder)


def test_a_buy_of_nothing_becomes_hold(tmp_path: Path) -> None:
    # half Kelly of a forecast loss is nothing, though it is certain enough to be allowed
    sizing = settings().sizing.model_dump(mode="json") | {"strategy": "full_probabilistic"}
    given = bars(NEEDED["scalping"])
    gaining = decide(load_bundle(hand_made_bundle(tmp_path / "gain", sizing=sizing, mean=0.001)), given)
    losing = decide(load_bundle(hand_made_bundle(tmp_path / "loss", sizing=sizing, mean=-0.001)), given)
    assert (gaining.action, losing.action) == (Action.BUY, Action.HOLD)
    assert (gaining.note, losing.note) == ("", "a lot's size is 0: the forecast promises no gain")


@pytest.mark.parametrize("newer", range(10))
def test_bars_after_the_last_decision_time_change_nothing(holding: Path, newer: int) -> None:
    bundle, stop = load_bundle(holding), clock_stop(10)
    on_time = decide(bundle, bars(NEEDED["medium"], stop))
    assert on_time.close_ts_ns // BAR_NS % 10 == 0
    assert decide(bundle, bars(NEEDED["medium"] + newer, stop + newer)) == on_time


def test_without_the_clocks_bar_the_decision_before_it_is_made(holding: Path) -> None:
    bundle, stop = load_bundle(holding), clock_stop(10)
    before = decide(bundle, bars(NEEDED["medium"] + 9, stop - 1))
    assert before.close_ts_ns == market().bars.close_ts_ns[stop - 1] - 10 * BAR_NS


def test_older_bars_than_needed_change_nothing(buying: Path) -> None:
    bundle = load_bundle(buying)
    assert decide(bundle, bars(NEEDED["scalping"] + 500)) == decide(bundle, bars(NEEDED["scalping"]))


@pytest.mark.parametrize(("bucket", "needed"), [("buying", 2160), ("holding", 3456)])
def test_one_bar_too_few_is_refused_with_the_number_needed(
    bucket: str, needed: int, request: pytest.FixtureRequest
) -> None:
    bundle = load_bundle(request.getfixturevalue(bucket))
    stop = clock_stop(bundle.patch_bars)
    assert decide(bundle, bars(needed, stop)).bucket == bundle.bucket
    with pytest.raises(DataError, match=f"needs {needed} bars .* was {needed - 1}"):
        decide(bundle, bars(needed - 1, stop))


def test_no_bars_at_all_are_refused(buying: Path) -> None:
    with pytest.raises(DataError, match="no bars"):
        decide(load_bundle(buying), bars(0))


def test_no_account_is_a_flat_one_with_the_bundles_equity(buying: Path) -> None:
    bundle = load_bundle(buying)
    given = bars(NEEDED["scalping"])
    assert decide(bundle, given) == decide(bundle, given, {"cash_usdt": 100_000})


def test_a_missing_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no bundle in .*; make one with: btcai run"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx", "policy.onnx"])
def test_a_damaged_or_missing_graph_is_refused(tmp_path: Path, name: str) -> None:
    path = hand_made_bundle(tmp_path) / name
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=f"{name} is missing or not the file its manifest names"):
        load_bundle(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing or not the file its manifest names"):
        load_bundle(tmp_path)


def test_a_manifest_cut_short_is_refused(tmp_path: Path) -> None:
    path = hand_made_bundle(tmp_path) / MANIFEST
    path.write_text(path.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest.json is not valid JSON .*btcai run"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"sha256": None}, "sha256"),
        ({"sha256": ["abc"]}, "sha256"),
        ({"rules": {"fee_frac": 0.001}}, "rules"),
        ({"bucket_config": {}}, "bucket_config"),
        ({"sizing": {"strategy": "all in"}}, "sizing"),
        ({"versions": {}}, "versions.data"),
        ({"equity_usdt": 0}, "equity_usdt"),
        ({"warmup_bars": "many"}, "warmup_bars"),
    ],
)
def test_a_manifest_with_a_damaged_part_is_refused_by_its_name(
    tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    with pytest.raises(
        ArtifactError, match=rf"manifest.json is damaged \({where}.*remake it with: btcai run"
    ) as refused:
        load_bundle(hand_made_bundle(tmp_path, **change))
    assert "\n" not in str(refused.value)


def test_a_manifest_without_any_of_its_keys_is_refused(tmp_path: Path) -> None:
    path = hand_made_bundle(tmp_path) / MANIFEST
    whole = json.loads(path.read_text(encoding="utf-8"))
    for key in whole.keys() - {CHECKSUM}:
        write_manifest(tmp_path, {name: part for name, part in whole.items() if name != key})
        with pytest.raises(ArtifactError, match=f"damaged .{key}: Field required"):
            load_bundle(tmp_path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest.json is damaged: .*remake it with: btcai run"):
        load_bundle(tmp_path)
    write_manifest(tmp_path, whole | {"sha256": {}})
    with pytest.raises(ArtifactError, match=r"encoder.onnx is missing or not the file"):
        load_bundle(tmp_path)


def test_a_manifest_that_does_not_prove_itself_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = hand_made_bundle(tmp_path) / MANIFEST
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(whole | {"equity_usdt": 100_001.0}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest.json is damaged: it says other .*remake it with: btcai run"):
        load_bundle(tmp_path)
    path.write_text(json.dumps({name: part for name, part in whole.items() if name != CHECKSUM}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"must carry the hash .* Older versions .*remake it with: btcai run"):
        load_bundle(tmp_path)
    path.write_text(json.dumps(whole, indent=4), encoding="utf-8")
    assert load_bundle(tmp_path).manifest.equity_usdt == whole["equity_usdt"]


@pytest.mark.parametrize("change", [{"feature_names": ["return_1", "mask"]}, {"warmup_bars": WARMUP_BARS - 1}])
def test_a_bundle_for_other_features_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(
        ArtifactError, match=f"{len(FEATURE_NAMES)} features and 2016 bars of warm-up, the one in .* was"
    ):
        load_bundle(hand_made_bundle(tmp_path, **change))


def test_other_graphs_are_another_version(tmp_path: Path) -> None:
    versions = [
        load_bundle(hand_made_bundle(tmp_path / str(logit), logits=(0.0, logit, 0.0, 0.0))).version
        for logit in (1.0, 1.5, 1.0)
    ]
    assert versions[0] == versions[2] != versions[1]


def test_features_that_are_no_whole_patches_are_refused(holding: Path) -> None:
    bundle = load_bundle(holding)
    for rows in (10 * TOKENS + 1, 10 * TOKENS - 10):
        with pytest.raises(DataError, match=f"at least {10 * TOKENS} rows"):
            bundle.encode(market().features[:rows])


@pytest.mark.slow
def test_an_exported_network_decides() -> None:
    _, folder = exported("medium")
    decision = decide(load_bundle(folder), bars(NEEDED["medium"], clock_stop(10)))
    assert sum(decision.probabilities) == pytest.approx(1.0, abs=1e-6)
    assert decision.probabilities[Action.SELL] == decision.probabilities[Action.CLOSE_ALL] == 0.0  # nothing to sell
    assert all(np.diff(forecast.quantiles).min() >= 0 for forecast in decision.forecasts)
    assert all(forecast.std > 0 for forecast in decision.forecasts)


@pytest.mark.slow
def test_deciding_imports_no_torch_mlflow_or_prefect(buying: Path, tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from btcai.simulator.bars import simulate_bars\n"
        "from btcai.data.store import to_grid\n"
        "from btcai.inference.bundle import load_bundle\n"
        "from btcai.inference.decision import decide\n"
        f"decision = decide(load_bundle(Path({str(buying)!r})), to_grid(simulate_bars(2500, 1)))\n"
        "heavy = [m for m in ('torch', 'mlflow', 'prefect', 'onnx') if m in sys.modules]\n"
        "print(json.dumps([decision.action.name, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["BUY", []]


def test_what_is_run_are_the_very_bytes_that_were_checked(buying: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another bundle may take this one's place between the two."""

    def read_and_swap(folder: Path, manifest: Any) -> dict[str, bytes]:
        found = read_graphs(folder, manifest)
        for name in found:
            (folder / name).write_bytes(b"another graph")
        return found

    folder = shutil.copytree(buying, buying.with_name("swapped"))
    monkeypatch.setattr(bundle_module, "read_graphs", read_and_swap)
    given = bars(NEEDED["scalping"])
    assert decide(load_bundle(folder), given) == decide(load_bundle(buying), given)
