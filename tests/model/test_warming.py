"""`btcai warm-start`: the setting moves where bars are new, to networks with what they really saw."""

from dataclasses import asdict
from pathlib import Path

import pytest
from export_fakes import change_manifest, loud_bundle, loud_network, tiny_config
from registry_fakes import PARAMS

from btcai import paths, warming
from btcai.errors import ArtifactError
from btcai.params import changed, load_config
from btcai.schema import BUCKETS
from btcai.training import starts
from btcai.training.checkpoint import save_model
from btcai.training.starts import DataSeen

SEEN = DataSeen(market="m", data_version="d" * 64, fitted_until_ts_ns=1, chosen_from_ts_ns=2, until_ts_ns=3)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for bucket in BUCKETS:
        save_model(loud_network(tiny_config(), bucket), tmp_path / paths.CONSOLIDATE / bucket)
    bundle = loud_bundle(tmp_path / paths.CANDIDATE / "scalping")
    change_manifest(bundle, seen=asdict(SEEN))
    (tmp_path / paths.PARAMS).write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(warming, "_bars_now", lambda root, market: "e" * 64)
    return tmp_path


def test_new_bars_move_the_setting_to_the_last_networks_and_off_takes_it_back(project: Path) -> None:
    config = changed(load_config(project / paths.PARAMS), {"data.market": "m"})
    old, new = warming.go_on(project, config)
    assert old == "none"
    assert load_config(project / paths.PARAMS).warm_start.name == new
    assert starts.read(new, project / paths.STARTS) == SEEN
    assert warming.off(project) == (new, "none")


def test_nothing_moves_while_the_bars_are_those_trained_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_bars_now", lambda root, market: SEEN.data_version)
    config = changed(load_config(project / paths.PARAMS), {"data.market": "m"})
    assert warming.go_on(project, config) == ("none", "none")
    assert not (project / paths.STARTS).exists()


def test_networks_of_another_market_or_without_a_record_are_refused(project: Path) -> None:
    config = load_config(project / paths.PARAMS)
    with pytest.raises(ArtifactError, match="must have been of simulated to go on from it, was of m"):
        warming.go_on(project, config)
    change_manifest(project / paths.CANDIDATE / "scalping", seen=None)
    with pytest.raises(ArtifactError, match="must say what it was trained on"):
        warming.go_on(project, config)
