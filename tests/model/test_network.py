"""The network's promises: exact reach, one stretch = many windows, one trunk for every bucket."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from btcai.config import ModelConfig
from btcai.models.actor_critic import N_SIGNALS, ActorCritic, Encoding
from btcai.models.heads import ActorCriticHead, forecast_loss
from btcai.models.stem import SUMMARIES, PatchStem
from btcai.schema import ACCOUNT_FEATURES, QUANTILE_LEVELS, TOKENS, Action

CONFIG = ModelConfig(width=16, attention_heads=2, hidden=16, latent=16)
N_FEATURES = 6
N_HORIZONS = 3


PATCHES = (1, 2, 10, 28)


def network(patch_bars: int = 1, seed: int = 0) -> ActorCritic:
    torch.manual_seed(seed)
    model = ActorCritic(CONFIG, patch_bars, N_FEATURES, N_HORIZONS).eval()
    with torch.no_grad():
        model.stem.relevance.normal_(std=0.05)
    return model


def stretch(tokens: int, patch_bars: int = 1, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    x = torch.randn(2, tokens, patch_bars, N_FEATURES)
    x[..., -1] = 1.0
    return x


@pytest.mark.parametrize("patch_bars", PATCHES)
def test_a_decision_depends_on_exactly_the_last_144_tokens(patch_bars: int) -> None:
    tokens = stretch(TOKENS + 20, patch_bars).requires_grad_(True)
    model = network(patch_bars)
    model.latent(model.encode(tokens))[0, 12].sum().backward()
    assert tokens.grad is not None
    rows = tokens.grad[0].abs().sum(-1).flatten().nonzero().flatten()  # bars with any influence on decision 12
    assert rows.min().item() == 12 * patch_bars
    assert rows.max().item() == (12 + TOKENS) * patch_bars - 1
    assert len(rows) == TOKENS * patch_bars


@pytest.mark.parametrize("banded", [False, True])
@pytest.mark.parametrize("patch_bars", PATCHES)
def test_the_oldest_bar_of_the_lookback_counts_and_the_one_before_it_does_not(patch_bars: int, banded: bool) -> None:
    lookback, model, tokens = TOKENS * patch_bars, network(patch_bars), stretch(TOKENS - 1 + 128, patch_bars)
    decision = 70
    newest = (TOKENS + decision) * patch_bars - 1  # its bar

    def said(changed_bar: int | None) -> list[torch.Tensor]:
        """Everything that the network says at that decision with one bar changed."""
        bars = tokens.flatten(1, 2).clone()
        if changed_bar is not None:
            bars[:, changed_bar, :-1] += 1.0
        with torch.no_grad():
            encoding = model.encode(bars.view_as(tokens), banded=banded)
            return [model.latent(encoding)[:, decision], *(x[:, decision] for x in model.calibrated(encoding))]

    before = said(None)
    for untouched in (newest - lookback, newest + 1):
        assert all(torch.equal(a, b) for a, b in zip(before, said(untouched), strict=True))
    for read in (newest - lookback + 1, newest):
        assert not any(torch.equal(a, b) for a, b in zip(before, said(read), strict=True))


def test_a_stretch_gives_the_numbers_of_its_windows() -> None:
    model, tokens = network(), stretch(TOKENS + 40)
    with torch.no_grad():
        together = model.latent(model.encode(tokens))
        apart = [model.latent(model.encode(tokens[:, k : k + TOKENS]))[:, 0] for k in range(41)]
    assert (together - torch.stack(apart, 1)).abs().max() < 1e-5


SAID = ("trunk", "gates", "location", "log_scale", "degrees", "quantiles")


@pytest.mark.parametrize(("decisions", "patch_bars"), [(128, 1), (384, 2), (128, 28)])
def test_the_compiled_passes_give_the_numbers_and_gradients_of_the_plain_network(
    decisions: int, patch_bars: int
) -> None:
    model, tokens = network(patch_bars), stretch(TOKENS - 1 + decisions, patch_bars)
    with torch.no_grad():
        for parameter in (model.trunk.distance, *model.forecast.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    oracle = copy.deepcopy(model).double()
    encodings = model.encode(tokens, banded=True), oracle.encode(tokens.double())
    for name in SAID:
        fast, plain = (getattr(encoding, name) for encoding in encodings)
        assert (fast - plain).abs().max() < 1e-5 * plain.abs().max(), name
    fast, plain = (gradients(network, encoding) for network, encoding in zip((model, oracle), encodings, strict=True))
    for name in plain:
        assert (fast[name] - plain[name]).norm() < 1e-4 * plain[name].norm(), name


def gradients(model: ActorCritic, encoding: Encoding) -> dict[str, torch.Tensor]:
    """Of the sum of everything that is said, each number by a weight of its own."""
    torch.manual_seed(5)
    said = [getattr(encoding, name) for name in SAID]
    sum((torch.randn(x.shape).to(x) * x).sum() for x in said).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("width", "heads"), [(12, 2), (12, 1), (20, 5)])  # the LSTM of the last two has 6 and 10 units
def test_a_width_that_the_compiled_passes_do_not_take_is_computed_plainly(width: int, heads: int) -> None:
    config = CONFIG.model_copy(update={"width": width, "attention_heads": heads})
    model, tokens = ActorCritic(config, 1, N_FEATURES, 1), stretch(TOKENS - 1 + 128)
    with torch.no_grad():
        plain, banded = model.encode(tokens), model.encode(tokens, banded=True)
    assert torch.equal(plain.trunk, banded.trunk)
    assert (plain.quantiles - banded.quantiles).abs().max() < 1e-5


def test_quantiles_of_the_compiled_passes_never_cross() -> None:
    model = network()
    torch.manual_seed(3)
    for parameter in model.forecast.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    quantiles = model.encode(stretch(TOKENS - 1 + 128), banded=True).quantiles
    assert (quantiles.diff(dim=-1) >= 0).all()


def test_the_forecast_loss_and_its_gradients_are_those_of_its_formula() -> None:
    torch.manual_seed(0)
    shape, n_levels = (2, 5, 3), len(QUANTILE_LEVELS)
    location, log_scale = torch.randn(2, *shape, dtype=torch.float64).requires_grad_(True).unbind()
    degrees = (3 + torch.rand(shape, dtype=torch.float64)).requires_grad_(True)
    quantiles = torch.randn(*shape, n_levels, dtype=torch.float64).requires_grad_(True)
    target, known = 3 * torch.randn(shape, dtype=torch.float64), torch.rand(shape) < 0.7
    target[0, 0, 0] = 50.0  # clipped to ten
    weight = torch.tensor([2.0, 0.7, 0.3], dtype=torch.float64)

    def formula(*said: torch.Tensor) -> torch.Tensor:
        clipped = target.clamp(-10.0, 10.0)
        student = torch.distributions.StudentT(said[2], said[0], said[1].exp())
        error, levels = clipped.unsqueeze(-1) - said[3], torch.tensor(QUANTILE_LEVELS, dtype=torch.float64)
        pinball = torch.where(error > 0, levels * error, (levels - 1.0) * error).mean(-1)
        share = known * weight
        return ((pinball - student.log_prob(clipped)) * share).sum() / share.sum()

    said = location, log_scale, degrees, quantiles
    loss, oracle = forecast_loss(*said, target, known, weight), formula(*said)
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-9)
    for ours, theirs in zip(*(torch.autograd.grad(x, said) for x in (loss, oracle)), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert forecast_loss(*said, target, torch.zeros_like(known), weight).item() == 0.0  # nothing known


def test_the_compiled_passes_refuse_a_stretch_that_is_not_whole_vectors() -> None:
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
    shapes = [{name: tuple(w.shape) for name, w in network(patch).trunk.state_dict().items()} for patch in PATCHES]
    assert all(shape == shapes[0] for shape in shapes)


def test_invalid_actions_have_no_probability() -> None:
    head = ActorCriticHead(8, 16)
    account = torch.randn(5, len(ACCOUNT_FEATURES))
    account[:, -2:] = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    probabilities = head(torch.randn(5, 8), account)[0].softmax(-1)
    assert probabilities[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert (probabilities[:, Action.BUY] > 0).tolist() == [False, False, True, True, False]
    assert (probabilities[:, Action.CLOSE_ALL] > 0).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 10), (10, 28), (28, 10), (10, 2), (2, 1), (1, 28)])
def test_a_resampled_stem_embeds_a_constant_market_the_same(source: int, target: int) -> None:
    # whatever it learned: its sums over a patch (a short one is taken as it is), its selection and its bias too
    torch.manual_seed(0)
    old, new = PatchStem(source, N_FEATURES, 16), PatchStem(target, N_FEATURES, 16)
    for weight in (old.relevance, old.embed.bias, *([old.summaries] if source > SUMMARIES else [])):
        torch.nn.init.normal_(weight, std=0.3)
    take_over(old, new)
    assert constant_difference(old, new) < 1e-5


def test_a_stem_that_travels_through_all_buckets_embeds_a_constant_market_the_same() -> None:
    torch.manual_seed(0)
    stems = [PatchStem(patch_bars, N_FEATURES, 16) for patch_bars in PATCHES]
    torch.nn.init.normal_(stems[0].relevance, std=0.1)
    for old, new in pairwise(stems):
        take_over(old, new)
    assert constant_difference(stems[0], stems[-1]) < 1e-5


def take_over(old: PatchStem, new: PatchStem) -> None:
    """The map of a patch, and the selection that it was made for."""
    new.resample_from(old)
    with torch.no_grad():
        new.relevance.copy_(old.relevance)


def constant_difference(old: PatchStem, new: PatchStem) -> float:
    """The largest between their embeddings of markets that are constant within patches."""
    bars = torch.randn(2, 5, 1, N_FEATURES)
    with torch.no_grad():
        embedded = [stem(bars.expand(-1, -1, stem.patch_bars, -1)) for stem in (old, new)]
    assert embedded[0].std() > 0.1
    return float((embedded[0] - embedded[1]).abs().max())


def test_there_is_a_forecast_to_the_next_decision_and_one_for_every_horizon() -> None:
    model, tokens = network(), stretch(TOKENS + 4)
    with torch.no_grad():
        encoding = model.encode(tokens)
        mean, std, quantiles = model.calibrated(encoding)
    for inside in (encoding.location, encoding.log_scale, encoding.degrees):
        assert inside.shape == (2, 5, 1 + N_HORIZONS)
    assert mean.shape == std.shape == (2, 5, N_HORIZONS)  # what is told of the horizons, without the next decision
    assert quantiles.shape == (2, 5, N_HORIZONS, len(QUANTILE_LEVELS))
    assert torch.equal(mean, encoding.location[..., 1:])
    assert torch.equal(quantiles, encoding.quantiles[..., 1:, :])
    assert model.latent(encoding).shape == (2, 5, CONFIG.latent + N_SIGNALS * (1 + N_HORIZONS))


def test_calibration_worked_by_hand() -> None:
    # location 3 at temperature 2; scale e^0 with 4 degrees of freedom: std sqrt(4 / 2) times its factor 3
    model = network()
    model.temperature.fill_(2.0)
    model.std_factor.fill_(3.0)
    model.quantile_offset.copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, -5.0]).expand(N_HORIZONS, -1))
    one = torch.ones(1, 1, 1 + N_HORIZONS)
    levels = torch.arange(len(QUANTILE_LEVELS)).float()
    encoding = Encoding(
        trunk=one, gates=one, location=3 * one, log_scale=0 * one, degrees=4 * one,
        quantiles=levels.expand(1, 1, 1 + N_HORIZONS, -1),
    )  # fmt: skip
    mean, std, quantiles = model.calibrated(encoding)
    assert mean.flatten().tolist() == [1.5] * N_HORIZONS
    assert std.flatten().tolist() == pytest.approx([3 * 2**0.5] * N_HORIZONS)
    assert quantiles[0, 0, 0].tolist() == [0.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0]  # in order again


def test_the_policy_reads_the_forecasts_and_does_not_bend_them() -> None:
    model = network()
    encoding = model.encode(stretch(TOKENS + 4))
    latent = model.latent(encoding)
    latent[..., CONFIG.latent :].sum().backward()
    assert not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)
    moved = replace(encoding, location=encoding.location + 1.0)
    assert not torch.equal(model.latent(moved), latent)


def test_the_signals_that_the_head_reads_are_standardised() -> None:
    model = network()
    torch.nn.init.normal_(model.forecast.student.weight)
    encodings = [model.encode(stretch(TOKENS + 100, seed=seed)) for seed in (1, 2)]
    model.refresh_signal_scale(encodings)
    signals = torch.cat([model.latent(encoding) for encoding in encodings])[..., CONFIG.latent :].flatten(0, 1)
    assert signals.mean(0).abs().max() < 0.1  # but for what is clipped at five
    assert (signals[:, : 1 + N_HORIZONS].std(0) - 1).abs().max() < 0.1
