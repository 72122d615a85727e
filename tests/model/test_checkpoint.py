"""A bucket's weights on disk: what is damaged, not finite or of another btcai is refused with its remedy."""

from pathlib import Path

import pytest
import torch
from export_fakes import loud_network, tiny_config
from safetensors.torch import load_file, save_file

from btcai.errors import ArtifactError
from btcai.paths import WEIGHTS
from btcai.training.checkpoint import load_model, save_model


def test_weights_come_back_as_they_were_and_one_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    model = loud_network(tiny_config(), "scalping")
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, "scalping", tiny_config()).state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in model.state_dict().items())
    with torch.no_grad():
        model.trunk.state_dict()["convolution.weight"].view(-1)[3] = torch.nan
    save_model(model, tmp_path)
    with pytest.raises(ArtifactError, match=r"finite, trunk.convolution.weight of .* is not; .* btcai run"):
        load_model(tmp_path, "scalping", tiny_config())


def test_weights_of_an_older_btcai_are_refused(tmp_path: Path) -> None:
    save_model(loud_network(tiny_config(), "scalping"), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors["reward_unit"]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ArtifactError, match=r'does not fit .*"reward_unit".*; make it with: btcai run'):
        load_model(tmp_path, "scalping", tiny_config())
