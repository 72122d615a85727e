"""A training state put back goes on to the bit, in this process or after SIGKILL."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from btcai.training.resume import Checkpoints, Live

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
            x[1, 0] += float(self.rng.spawn(1)[0].random())  # another child every time
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


def test_a_rollback_that_keeps_the_generators_meets_other_random_numbers() -> None:
    run = Toy(1)
    run.learn(2)
    state = run.live.capture({}, {})
    losses, drawn = run.learn(3), run.rng.bit_generator.state
    run.live.restore(*state, generators=False)
    assert run.rng.bit_generator.state == drawn
    tensors, facts = run.live.capture({}, {})
    assert bits({name: tensors[name] for name in tensors if not name.startswith("torch/")}) == bits(
        {name: state[0][name] for name in tensors if not name.startswith("torch/")}
    )
    assert facts["groups"] == state[1]["groups"]
    assert run.learn(3) != losses


def test_facts_come_back_from_memory_as_they_do_from_a_file() -> None:
    run = Toy(1)
    assert run.live.restore(*run.live.capture({}, {"span": (1, 2), "by_bar": {3: 4}}))[1] == {
        "span": [1, 2],
        "by_bar": {"3": 4},
    }


def test_a_generator_put_back_spawns_the_children_it_would_have() -> None:
    rng = np.random.default_rng([2**70, 3])
    live = Live(modules={}, optimizers={}, generators={"sampling": rng})
    rng.spawn(2)
    state = live.capture({}, {})
    expected = [child.random() for child in rng.spawn(2)]
    for other in (rng, np.random.default_rng(9)):
        Live(modules={}, optimizers={}, generators={"sampling": other}).restore(*state)
        assert [child.random() for child in other.spawn(2)] == expected
    assert expected[0] != np.random.default_rng([2**70, 3]).spawn(1)[0].random()  # the first two were others


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


def survived(root: Path, folder: Path, name: str, kills: int, limit_s: float) -> dict[str, object]:
    """What the program says of a training that was killed so often."""
    command = [sys.executable, str(root / "tests" / "killed_training.py"), name, str(folder), str(kills), "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit_s)
    assert done.stdout, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy", "learner"])
def test_a_run_killed_fifty_times_ends_with_the_bits_of_the_one_that_was_not(
    root: Path, tmp_path: Path, name: str
) -> None:
    report = survived(root, tmp_path, name, kills=50, limit_s=1200)
    assert report["same"]
    assert len(report["killed_after"]) == 50
    assert len(set(map(tuple, report["killed_after"]))) > 5  # lives went on from where others ended
