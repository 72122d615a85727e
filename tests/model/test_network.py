"""The network's promises: exact reach, one stretch = many windows, one trunk for every bucket."""

import pytest
import torch

from btcai.config import ModelConfig
from btcai.models.actor_critic import ActorCritic
from btcai.models.heads import ActorCriticHead
from btcai.models.stem import PatchStem
from btcai.schema import ACCOUNT_FEATURES, TOKENS, Action

CONFIG = ModelConfig(width=16, attention_heads=2, hidden=16, latent=16)
N_FEATURES = 6


def network(patch_bars: int = 1, seed: int = 0) -> ActorCritic:
    torch.manual_seed(seed)
    return ActorCritic(CONFIG, patch_bars, N_FEATURES, 3).eval()


def stretch(tokens: int, patch_bars: int = 1, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    x = torch.randn(2, tokens, patch_bars, N_FEATURES)
    x[..., -1] = 1.0
    return x


@pytest.mark.parametrize("patch_bars", [1, 2, 10])
def test_a_decision_depends_on_exactly_the_last_144_tokens(patch_bars: int) -> None:
    tokens = stretch(TOKENS + 20, patch_bars).requires_grad_(True)
    model = network(patch_bars)
    model.latent(model.encode(tokens))[0, 12].sum().backward()
    assert tokens.grad is not None
    rows = tokens.grad[0].abs().sum(-1).flatten().nonzero().flatten()  # bars with any influence on decision 12
    assert rows.min().item() == 12 * patch_bars
    assert rows.max().item() == (12 + TOKENS) * patch_bars - 1
    assert len(rows) == TOKENS * patch_bars


def test_a_stretch_gives_the_numbers_of_its_windows() -> None:
    model, tokens = network(), stretch(TOKENS + 40)
    with torch.no_grad():
        together = model.latent(model.encode(tokens))
        apart = [model.latent(model.encode(tokens[:, k : k + TOKENS]))[:, 0] for k in range(41)]
    assert (together - torch.stack(apart, 1)).abs().max() < 1e-5


def test_banded_attention_gives_the_numbers_of_gathered_keys() -> None:
    model, tokens = network(), stretch(TOKENS - 1 + 256)
    with torch.no_grad():
        gathered, banded = model.encode(tokens), model.encode(tokens, banded=True)
    for name in ("trunk", "gates", "location", "log_scale", "degrees", "quantiles"):
        assert (getattr(gathered, name) - getattr(banded, name)).abs().max() < 1e-5, name


def test_banded_and_gathered_attention_have_the_same_gradients() -> None:
    gradients = []
    for banded in (False, True):
        model = network()
        model.encode(stretch(TOKENS - 1 + 128), banded=banded).trunk.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.trunk.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3)


def test_banded_attention_refuses_a_stretch_it_cannot_cut() -> None:
    with pytest.raises(ValueError, match="multiple of 128"):
        network().encode(stretch(TOKENS + 5), banded=True)


def test_values_of_missing_bars_are_never_read() -> None:
    model, tokens = network(), stretch(TOKENS)
    tokens[:, 100:110, :, -1] = 0.0
    poisoned = tokens.clone()
    poisoned[:, 100:110, :, :-1] = 1e6
    with torch.no_grad():
        assert torch.equal(model.encode(tokens).trunk, model.encode(poisoned).trunk)


def test_quantiles_never_cross() -> None:
    model = network()
    torch.manual_seed(3)
    for parameter in model.forecast.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    quantiles = model.encode(stretch(TOKENS + 10)).quantiles
    assert (quantiles.diff(dim=-1) >= 0).all()


def test_every_bucket_has_the_same_trunk() -> None:
    shapes = [
        {name: tuple(w.shape) for name, w in network(patch).trunk.state_dict().items()} for patch in (1, 2, 10, 28)
    ]
    assert all(shape == shapes[0] for shape in shapes)


def test_invalid_actions_have_no_probability() -> None:
    head = ActorCriticHead(8, 16)
    account = torch.randn(5, len(ACCOUNT_FEATURES))
    account[:, -2:] = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    probabilities = head(torch.randn(5, 8), account)[0].softmax(-1)
    assert probabilities[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert (probabilities[:, Action.BUY] > 0).tolist() == [False, False, True, True, False]
    assert (probabilities[:, Action.CLOSE_ALL] > 0).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 10), (10, 28), (28, 10)])
def test_a_resampled_stem_embeds_a_constant_market_the_same(source: int, target: int) -> None:
    torch.manual_seed(0)
    old, new = PatchStem(source, N_FEATURES, 16), PatchStem(target, N_FEATURES, 16)
    new.resample_from(old)
    bar = torch.randn(N_FEATURES)
    constant = [bar.expand(1, 3, patch, N_FEATURES) for patch in (source, target)]
    with torch.no_grad():
        assert torch.allclose(old(constant[0]), new(constant[1]), atol=1e-5)
