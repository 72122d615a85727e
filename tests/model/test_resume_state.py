"""A training state put back goes on to the bit, in this process or after SIGKILL; what is not sound is named."""

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from btcai.schema import Action
from btcai.training.resume import Checkpoints, Live, behaviour, collapse, fault

FACTS = {"best": 0.1, "rows": [{"update": 1, "loss": 0.30000000000000004}]}


def bits(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """Tensors as what can be compared to the bit, nan with nan."""
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


class Toy:
    """A model with dropout and batch norm, two rates, its average, and a generator: all that a state can hold."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.rng.integers(5, dtype=np.uint32)  # leaves half a word behind, which is state too
        self.model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 1))
        self.average = copy.deepcopy(self.model)
        groups = [{"params": self.model[0].parameters()}, {"params": self.model[3].parameters(), "lr": 0.3}]
        self.optimizer = torch.optim.Adam(groups, lr=0.1, betas=(0.8, 0.9))
        self.live = Live(
            modules={"model": self.model, "average": self.average},
            optimizers={"adam": self.optimizer},
            generators={"sampling": self.rng},
        )

    def learn(self, updates: int) -> list[float]:
        """The losses on the way, which depend on everything."""
        losses = []
        for _ in range(updates):
            x = torch.from_numpy(self.rng.standard_normal((6, 4)).astype(np.float32))
            x[0, 0] += float(self.rng.integers(5, dtype=np.uint32))
            loss = (self.model(x) - x[:, :1]).square().mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            for group in self.optimizer.param_groups:
                group["lr"] *= 0.9
            with torch.no_grad():
                for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
                    mean.lerp_(weight, 0.5)
            losses.append(loss.item())
        return losses

    def everything(self) -> dict[str, object]:
        tensors, facts = self.live.capture({}, {})
        return {**bits(tensors), "facts": facts}


@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_fresh_process_goes_on_from_the_file_as_if_nothing_had_been(tmp_path: Path, before: int) -> None:
    store, run = Checkpoints(folder=tmp_path, key="k"), Toy(1)
    run.learn(before)
    store.save(before, *run.live.capture({"best": torch.ones(2)}, FACTS))
    losses, end = run.learn(4), run.everything()
    fresh = Toy(2)
    fresh.learn(3)
    found = store.latest()
    assert found is not None
    kept, facts = fresh.live.restore(found.tensors, found.facts)
    assert (facts, kept["best"].tolist()) == (FACTS, [1.0, 1.0])
    assert fresh.learn(4) == losses
    assert fresh.everything() == end


def test_a_state_in_memory_can_be_rolled_back_to_again_and_again() -> None:
    run = Toy(1)
    run.learn(2)
    rows = [1.0]
    state = run.live.capture({"best": run.model[0].weight}, {"rows": rows})
    rows.append(2.0)
    losses, end = run.learn(4), run.everything()
    for _ in range(3):
        kept, facts = run.live.restore(*state)
        assert facts == {"rows": [1.0]}
        facts["rows"].append(3.0)
        assert torch.equal(kept["best"], run.model[0].weight)
        kept["best"].zero_()
        assert run.learn(4) == losses
        assert run.everything() == end


def test_facts_come_back_from_memory_as_they_do_from_a_file() -> None:
    run = Toy(1)
    assert run.live.restore(*run.live.capture({}, {"span": (1, 2), "by_bar": {3: 4}}))[1] == {
        "span": [1, 2],
        "by_bar": {"3": 4},
    }


def test_the_words_of_a_generator_are_text_that_any_reader_of_json_keeps() -> None:
    _, facts = Toy(1).live.capture({}, {})
    words = json.loads(json.dumps(facts), parse_int=float)["generators"]["sampling"]["state"]  # as JavaScript reads
    truth = np.random.default_rng(1).bit_generator.state["state"]
    assert int(words["inc"]) == truth["inc"]
    assert truth["inc"] > 2**64


def test_another_kind_of_generator_is_refused() -> None:
    live = Live(modules={}, optimizers={}, generators={"old": np.random.Generator(np.random.MT19937(1))})
    with pytest.raises(ValueError, match=r"must be numpy's PCG64, was MT19937; make it with default_rng"):
        live.capture({}, {})


FINE = {"policy": 0.1, "value": 2.0}


@pytest.mark.parametrize(
    ("losses", "grad_norm", "expected"),
    [
        (FINE, 0.0, None),
        (FINE, 1000.0, None),
        ({**FINE, "value": float("nan")}, 1.0, "the value loss is nan"),
        ({**FINE, "policy": float("-inf")}, 1.0, "the policy loss is -inf"),
        (FINE, 1000.1, "the gradient's norm is 1000, above 1000"),
        (FINE, float("nan"), "the gradient's norm is nan, above 1000"),
        (FINE, float("inf"), "the gradient's norm is inf, above 1000"),
    ],
)
def test_losses_and_gradients_that_blew_up_are_named(
    losses: dict[str, float], grad_norm: float, expected: str | None
) -> None:
    assert fault(losses, grad_norm, Toy(1).model) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_single_weight_or_buffer_that_is_not_finite_is_named(value: float) -> None:
    run = Toy(1)
    run.model[1].running_var[3] = value
    assert fault(FINE, 1.0, run.average, run.model) == "the weight 1.running_var is not finite"


def shares(hold: float, buy: float, sell: float, close_all: float, long_frac: float, short_frac: float = 0.0) -> dict:
    """Of a behaviour."""
    names = ("share_hold", "share_buy", "share_sell", "share_close_all", "long_frac", "short_frac")
    return dict(zip(names, (hold, buy, sell, close_all, long_frac, short_frac), strict=True))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (shares(0.43, 0.28, 0.14, 0.15, 0.43), None),  # the first update of a training on the yardstick
        (shares(0.95, 0.02, 0.02, 0.01, 0.41), None),  # its 25th, which earns
        (shares(0.998, 0.001, 0.001, 0.0, 0.5), None),  # one trade in five hundred decisions
        (shares(1.0, 0.0, 0.0, 0.0, 0.0), "flat"),
        (shares(0.5, 0.0, 0.25, 0.25, 0.01), "flat"),
        (shares(0.5, 0.0, 0.25, 0.25, 0.011), None),
        (shares(0.9, 0.1, 0.0, 0.0, 0.99), "always long"),
        (shares(0.9, 0.1, 0.0, 0.0, 0.98), None),
        (shares(0.9, 0.0, 0.1, 0.0, 0.0, 0.995), "always short"),
        (shares(0.9, 0.05, 0.05, 0.0, 0.5, 0.495), None),  # always in the market, on both sides
        (shares(1.0, 0.0, 0.0, 0.0, 0.5), "one action"),  # half the accounts began with lots and keep them
        (shares(0.001, 0.999, 0.0, 0.0, 0.6), "one action"),  # stops close what it buys
    ],
)
def test_collapse_is_named_by_what_a_policy_does(seen: dict[str, float], expected: str | None) -> None:
    assert collapse(seen) == expected


def test_behaviour_counts_actions_and_sides() -> None:
    action = np.array([[Action.HOLD, Action.BUY, Action.HOLD], [Action.CLOSE_ALL, Action.HOLD, Action.HOLD]])
    lots_frac = np.array([[0.0, 0.5, 1.0], [0.2, 0.0, -1.0]], np.float32)
    assert behaviour(action, lots_frac) == pytest.approx(shares(4 / 6, 1 / 6, 0, 1 / 6, 3 / 6, 1 / 6))


def survived(root: Path, folder: Path, name: str, kills: int, limit_s: float) -> dict[str, object]:
    """What the program says of a training that was killed so often."""
    command = [sys.executable, str(root / "tests" / "killed_training.py"), name, str(folder), str(kills), "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit_s)
    assert done.stdout, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.slow
def test_a_run_killed_fifty_times_ends_with_the_bits_of_the_one_that_was_not(root: Path, tmp_path: Path) -> None:
    report = survived(root, tmp_path, "toy", kills=50, limit_s=300)
    assert report["same"]
    assert len(report["killed_after"]) == 50
    assert len(set(report["killed_after"])) > 10  # lives went on from where others ended


@pytest.mark.slow
def test_the_learner_killed_fifty_times_ends_with_the_bits_of_the_one_that_was_not(root: Path, tmp_path: Path) -> None:
    if not hasattr(importlib.import_module("btcai.training.trainer"), "train"):
        pytest.skip("the learner does not take checkpoints yet")
    report = survived(root, tmp_path, "train", kills=50, limit_s=900)
    assert report["same"]
    assert len(set(report["killed_after"])) > 2
