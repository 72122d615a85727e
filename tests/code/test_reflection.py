"""What a bundle learns from what happened: from spans that nothing is judged on, and told to its own model alone."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from export_fakes import loud_bundle, market
from learning_tasks import settings

from btcai import reflection
from btcai.errors import ArtifactError
from btcai.features.splits import Splits
from btcai.inference.bundle import PolicyBundle, load_bundle
from btcai.reasoning.components import COMPONENTS
from btcai.reflection import MEMORY, Reflection, memory_of, metrics_json, reflect, table, weights_of
from btcai.schema import BAR_NS, Bars, MarketData, SealedSpan, Span

SPLITS = Splits(
    train=Span(2016, 6000), valid=Span(6100, 8500), test=Span(8600, 9500), folds=(Span(8600, 9500),),
    sealed=SealedSpan(9600, 10_000),
)  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> PolicyBundle:
    return load_bundle(loud_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def found(bundle: PolicyBundle) -> Reflection:
    return reflect(bundle, market(), SPLITS, settings(), {"data": "d", "model": bundle.version})


def test_it_remembers_both_spans_and_weighs_every_component(found: Reflection, bundle: PolicyBundle) -> None:
    memory = found.memory
    assert memory.model_version == bundle.version
    assert memory.horizon_bars == bundle.horizons_bars[0]
    assert memory.close_ts_ns.min() <= market().bars.close_ts_ns[SPLITS.train.stop]
    assert memory.close_ts_ns.max() > market().bars.close_ts_ns[SPLITS.valid.first]
    end_ts_ns = market().bars.close_ts_ns[SPLITS.valid.stop - 1]  # 2,400 decisions: two blocks and a part of one
    assert end_ts_ns - memory.horizon_bars * BAR_NS < memory.known_ts_ns.max() <= end_ts_ns
    assert 0.0 <= found.recalled_frac <= 1.0
    assert tuple(found.adjustment.weights) == COMPONENTS
    assert found.adjustment.span == SPLITS.valid


def test_nothing_after_the_validation_span_changes_it(found: Reflection, bundle: PolicyBundle) -> None:
    stop = SPLITS.valid.stop
    bars = {field.name: getattr(market().bars, field.name).copy() for field in fields(Bars)}
    for name in ("open", "high", "low", "close", "volume"):
        bars[name][stop:] *= 3.0
    mark, features = market().mark.copy(), market().features.copy()
    mark[stop:] *= 3.0
    features[stop:] = 7.0
    other: MarketData = replace(market(), bars=Bars(**bars), mark=mark, features=features)
    again = reflect(bundle, other, SPLITS, settings(), {"data": "d", "model": bundle.version})
    assert again.adjustment == found.adjustment
    for name in ("close_ts_ns", "place", "outcome", "weight"):
        np.testing.assert_array_equal(getattr(again.memory, name), getattr(found.memory, name))


def test_what_is_saved_is_told_to_its_own_model_alone(found: Reflection, bundle: PolicyBundle, tmp_path: Path) -> None:
    assert memory_of(tmp_path, bundle.version) is None
    assert weights_of(tmp_path, bundle.version) is None
    reflection.save(found, tmp_path)
    kept = memory_of(tmp_path, bundle.version)
    assert kept is not None
    np.testing.assert_array_equal(kept.place, found.memory.place)
    assert memory_of(tmp_path, "another") is None
    assert weights_of(tmp_path, bundle.version) == found.adjustment.weights
    assert weights_of(tmp_path, "another") is None
    (tmp_path / MEMORY).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ArtifactError, match="btcai run"):
        memory_of(tmp_path, bundle.version)


def test_figures_are_strict_json_and_the_table_has_a_row_each(found: Reflection) -> None:
    assert '"lean_error"' in metrics_json({"scalping": found})
    unknown = replace(found, lean_ic=float("nan"))
    assert '"lean_ic": null' in metrics_json({"scalping": unknown})
    rows = table({"scalping": found, "short": found})
    assert len(rows) == 2 * len(COMPONENTS)
    assert rows["before"].sum() == pytest.approx(rows["after"].sum())


def test_a_memory_knows_outcomes_a_horizon_later(found: Reflection) -> None:
    memory = found.memory
    assert np.all(memory.known_ts_ns - memory.close_ts_ns >= memory.horizon_bars * BAR_NS)
