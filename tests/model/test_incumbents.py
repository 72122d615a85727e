"""A network and its bundle are known as one; a network of another seed is not."""

import pytest
from export_fakes import exported, loud_network, market, settings

from btcai.evaluation.incumbents import is_same
from btcai.inference.bundle import load_bundle
from btcai.schema import Span
from btcai.training.checkpoint import TorchPolicy


@pytest.mark.slow
def test_a_network_is_its_bundle_and_no_other_network_is() -> None:
    model, folder = exported("scalping")
    bundle, span = load_bundle(folder), Span(5_000, 9_000)
    assert is_same(bundle, TorchPolicy(model, "scalping", settings()), market(), span)
    assert not is_same(
        bundle, TorchPolicy(loud_network(settings(), "scalping", seed=1), "scalping", settings()), market(), span
    )
