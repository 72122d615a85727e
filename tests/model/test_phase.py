"""Updates that survive: a run that stopped anywhere goes on to the bit, one that blew up comes back and is told of."""

import logging
import signal
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_tasks import settings
from torch import nn

from btcai.training import stopping
from btcai.training.health import BlewUp, TrainingError
from btcai.training.phase import Memory, Row, is_due, survivable, updates_apart
from btcai.training.resume import Checkpoints, Live
from btcai.training.schedules import controlled_rate, rate_at

UPDATES = 35  # checkpoints after 10, 20, 30 and 35

Fault = Callable[[int, float], str | None]
"""Update from 0, share of the learning rate -> what is wrong."""


def sound(update: int, rate_share: float) -> None:
    """Nothing ever is wrong."""


def twice(update: int, rate_share: float) -> str | None:
    """At the 14th update, and again at the 28th with half the rate."""
    return "the loss is nan" if (update, rate_share) in {(13, 1.0), (27, 0.5)} else None


def asked_to_stop_at(at: int) -> Fault:
    """Somebody asks, in the middle of an update counted from 0; nothing is wrong."""

    def asked(update: int, rate_share: float) -> None:
        if update == at:
            signal.raise_signal(signal.SIGTERM)

    return asked


class Regression:
    """A line fitted by Adam to random points; what it remembers beside it: a sum over updates."""

    def __init__(self, fault: Fault = sound) -> None:
        torch.manual_seed(1)
        self.model = nn.Linear(3, 1)
        self.rng = np.random.default_rng(2)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.memory = Memory(kept={}, facts={"best": np.inf, "sum": 0.0})
        self.met: list[tuple[int, float]] = []
        self.fault = fault

    def step(self, update: int, rate_share: float) -> Row:
        self.met.append((update, rate_share))
        x = torch.from_numpy(self.rng.standard_normal((4, 3)).astype(np.float32))
        loss = (self.model(x) - x[:, :1]).square().mean()
        self.optimizer.param_groups[0]["lr"] = rate_share * 0.1
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.memory.facts["sum"] += loss.item()
        if reason := self.fault(update, rate_share):
            with torch.no_grad():
                self.model.weight.fill_(float("nan"))
            raise BlewUp(reason)
        if loss.item() < self.memory.facts["best"]:
            self.memory.facts["best"] = loss.item()
            self.memory.kept = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        return {"loss": loss.item()}

    def rows(self, store: Checkpoints | None, stop: int | None = None) -> list[Row]:
        """Of the run, given up after so many rows."""
        live = Live(
            modules={"model": self.model}, optimizers={"adam": self.optimizer}, generators={"sampling": self.rng}
        )
        return list(islice(survivable(self.step, live, self.memory, UPDATES, store), stop))

    def everything(self) -> tuple[object, ...]:
        """To compare runs by."""
        weights, kept = (
            {name: weight.tolist() for name, weight in tensors.items()}
            for tensors in (self.model.state_dict(), self.memory.kept)
        )
        return weights, kept, dict(self.memory.facts), self.rng.bit_generator.state


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(folder=tmp_path / "checkpoints", key="this run")


def saved(store: Checkpoints) -> list[int]:
    """Updates of the checkpoints there are."""
    return sorted(int(path.stem.split("-")[1]) for path in store.folder.iterdir())


@pytest.mark.parametrize("fault", [sound, twice])
def test_a_run_that_stopped_at_any_row_goes_on_to_the_bit(store: Checkpoints, fault: Fault) -> None:
    undisturbed = Regression(fault)
    rows = undisturbed.rows(None)
    for stop in (0, 9, 10, 12, 14, 20, 26, 31, len(rows)):
        Regression(fault).rows(store, stop)
        resumed = Regression(fault)
        assert resumed.rows(store) == rows
        assert resumed.everything() == undisturbed.everything()
        store.clear()


def test_a_run_that_stops_again_and_again_goes_on_to_the_bit(store: Checkpoints) -> None:
    undisturbed = Regression(twice)
    rows = undisturbed.rows(None)
    for stop in range(1, len(rows)):
        assert Regression(twice).rows(store, stop) == rows[:stop]
    resumed = Regression(twice)
    assert resumed.rows(store) == rows
    assert resumed.everything() == undisturbed.everything()


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(store: Checkpoints) -> None:
    undisturbed = Regression()
    rows = undisturbed.rows(None)
    Regression().rows(store, 25)
    newest = max(store.folder.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = Regression()
    assert resumed.rows(store) == rows
    assert resumed.met[0] == (10, 1.0)
    assert resumed.everything() == undisturbed.everything()


def test_a_phase_that_had_ended_is_told_again_without_an_update(store: Checkpoints) -> None:
    ended = Regression(twice)
    rows = ended.rows(store)
    again = Regression(twice)
    assert again.rows(store) == rows
    assert again.met == []
    assert again.everything() == ended.everything()
    assert saved(store) == [20, 30, 35]


def test_checkpoints_of_another_run_are_not_gone_on_from(store: Checkpoints) -> None:
    Regression().rows(Checkpoints(folder=store.folder, key="other settings"), 25)
    fresh = Regression()
    fresh.rows(store)
    assert fresh.met[0] == (0, 1.0)


def test_what_blew_up_goes_back_to_the_last_checkpoint_at_half_the_rate_on_other_samples(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Regression(twice)
    with caplog.at_level(logging.WARNING):
        rows = run.rows(None)
    whole, half, quarter = ([(update, share) for update in range(35)] for share in (1.0, 0.5, 0.25))
    assert run.met == whole[:14] + half[10:28] + quarter[20:]
    assert [row["update"] for row in rows] == [*range(1, 14), *range(11, 28), *range(21, 36)]
    told = {k: row for k, row in enumerate(rows) if "rolled_back_from" in row}
    assert {k: (row["update"], row["rolled_back_from"], row["rate_share"]) for k, row in told.items()} == {
        13: (11, 14, 0.5),
        30: (21, 28, 0.25),
    }
    losses = [row["loss"] for row in rows]
    assert np.isfinite(losses).all()
    assert len(set(losses)) == len(losses)  # no batch is met twice
    assert caplog.messages == [
        f"update {update} of 35 blew up: the loss is nan; back to update {back} at half the learning rate, "
        f"rollback {n} of 3"
        for update, back, n in ((14, 10, 1), (28, 20, 2))
    ]


def test_nothing_of_the_update_that_blew_up_or_those_before_it_is_left() -> None:
    at_ten = Regression()
    at_ten.rows(None, 10)
    run = Regression(lambda update, share: "the loss is nan" if (update, share) == (13, 1.0) else None)
    seen = []

    def look(update: int, rate_share: float) -> Row:
        if (update, rate_share) == (10, 0.5):
            seen.append(run.everything())
        return step(update, rate_share)

    step, run.step = run.step, look  # type: ignore[method-assign]
    run.rows(None)
    assert seen[0][:3] == at_ten.everything()[:3]


def test_what_blows_up_again_and_again_is_given_up_with_the_remedy(store: Checkpoints) -> None:
    run = Regression(lambda update, _: "the loss is nan" if update == 13 else None)
    with pytest.raises(TrainingError, match=r"blew up 4 times, now at update 14 of 35: the loss is nan; .*btcai stage"):
        run.rows(store)
    assert [share for update, share in run.met if update == 13] == [1.0, 0.5, 0.25, 0.125]
    assert saved(store) == [10]


def test_what_blows_up_at_once_goes_back_to_the_start() -> None:
    run = Regression(lambda update, share: "the loss is nan" if share == 1.0 else None)
    assert [row["update"] for row in run.rows(None)] == list(range(1, 36))
    assert run.met[:2] == [(0, 1.0), (0, 0.5)]


@pytest.mark.parametrize(("updates", "apart"), [(1, 10), (40, 10), (500, 10), (501, 11), (2400, 48)])
def test_checkpoints_are_ten_updates_apart_or_a_fiftieth_of_a_long_phase(updates: int, apart: int) -> None:
    assert updates_apart(updates) == apart


@pytest.mark.parametrize("updates", [8, 40, 2401])
def test_a_phase_validates_four_times_and_at_its_end(updates: int) -> None:
    due = [update for update in range(updates) if is_due(update, updates)]
    assert len(due) == 4
    assert due[-1] == updates - 1


def test_a_phase_of_fewer_updates_than_validations_validates_at_each() -> None:
    assert [is_due(update, 3) for update in range(3)] == [True] * 3


def test_the_rate_rises_first_and_falls_to_nothing() -> None:
    config = settings().ppo.model_copy(update={"learning_rate": 1.0, "warm_up_updates": 2})
    # a half of 4/4, all of 3/4, then 2/4 and 1/4
    assert [rate_at(update, 4, config) for update in range(4)] == [0.5, 0.75, 0.5, 0.25]
    at_once = config.model_copy(update={"warm_up_updates": 0})
    assert [rate_at(update, 2, at_once) for update in range(2)] == [1.0, 0.5]


def test_a_training_that_is_asked_to_stop_does_so_at_its_next_checkpoint(tmp_path: Path) -> None:
    whole = Regression()
    rows = whole.rows(None)
    checkpoints = Checkpoints(folder=tmp_path, key="k")
    first = Regression(fault=asked_to_stop_at(13))
    with (
        stopping.on_signals(),
        pytest.raises(stopping.Stopped, match=r"after update 20 of 35; .*; go on with: .*run --force"),
    ):
        first.rows(checkpoints)
    assert len(first.met) == 20
    assert not stopping.is_asked()
    again = Regression()
    assert again.rows(checkpoints) == rows
    assert again.everything() == whole.everything()


def test_one_that_has_ended_has_nothing_to_stop(tmp_path: Path) -> None:
    with stopping.on_signals():
        assert len(Regression(fault=asked_to_stop_at(33)).rows(Checkpoints(folder=tmp_path, key="k"))) == UPDATES
        assert stopping.is_asked()


def test_asking_twice_ends_it_at_once_and_afterwards_signals_are_as_before() -> None:
    before = [signal.getsignal(sign) for sign in stopping.SIGNALS]
    with stopping.on_signals():
        signal.raise_signal(signal.SIGINT)
        assert stopping.is_asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert not stopping.is_asked()
    assert [signal.getsignal(sign) for sign in stopping.SIGNALS] == before


@pytest.mark.parametrize(
    ("rate", "kl", "expected"),
    [(1.0, 0.03, 1.0), (1.0, 0.044, 1.0), (1.0, 0.046, 1 / 1.5), (1.0, 0.019, 1.5), (0.12, 1.0, 0.1), (2.5, 0.0, 3.0)],
)
def test_the_rate_follows_how_far_an_update_moved_the_policy(rate: float, kl: float, expected: float) -> None:
    assert controlled_rate(rate, kl, target_kl=0.03) == pytest.approx(expected)
