"""The daily run of a market that was fetched, under the real services: what comes, what that starts, who is told."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from operated_market import BAR_MS, DAY_MS, exchange_now, make_project
from operated_project import Operated, free_port, until
from webhook import webhook

from bench.loopback_exchange import LoopbackExchange, serving
from btcai.data.store import market_status
from btcai.operation import processes, services

pytestmark = pytest.mark.slow

ENDED = ("Completed", "Up to date", "Failed", "Crashed", "Cancelled")


@dataclass
class Fetched:
    """The project, its exchange, and what people were told."""

    operated: Operated
    exchange: LoopbackExchange
    told: list[dict[str, str]]

    def learned(self) -> int:
        """How often it has trained."""
        lives = self.operated.root / "learned"
        return len(lives.read_text(encoding="utf-8").split()) if lives.is_file() else 0

    def bars(self) -> int:
        return int(market_status(self.operated.root / "data", "binance_btcusdt")["rows"])

    def titles(self) -> list[str]:
        """Of the notices since the last call."""
        found = [notice["title"].removeprefix("btcai: ") for notice in self.told]
        self.told.clear()
        return found

    def refreshed(self, *tasks: str) -> dict[str, object]:
        """The last state of a run that somebody starts, with what became of its tasks, these among them."""
        run = self.operated.start()
        state = self.operated.wait(run, "Completed", "Failed", "Crashed")

        def ended() -> dict[str, str] | None:
            found = self.operated.tasks(run)
            return found if all(found.get(name) in ENDED for name in tasks) else None

        return {"name": state["name"], "message": state["message"], **until(ended)}  # tasks are told later


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fetched]:
    root = tmp_path_factory.mktemp("fetched")
    with serving(exchange_now()) as exchange, webhook() as (address, told):
        make_project(root, exchange)
        operated = Operated(root, free_port(), free_port(), address)
        started = operated.up("--no-mlflow")
        try:
            assert started.returncode == 0, started.stderr
            yield Fetched(operated, exchange, told)
        finally:
            operated.btcai("down")
            processes.send(services.marked(root), signal.SIGKILL)


def test_days_off_are_caught_up_with_one_run_which_tells_that_no_bars_come_and_who_is_champion(
    fetched: Fetched,
) -> None:
    before = fetched.bars()
    fetched.exchange.now_ms += DAY_MS  # of three: the last two are withheld
    fetched.operated.due(3, days=3)
    names = until(lambda: found if set(found := states(fetched)) == {"Cancelled", "Completed"} else None)
    assert names == ["Cancelled", "Cancelled", "Completed"]
    assert fetched.bars() == before + DAY_MS // BAR_MS
    assert fetched.learned() == 1
    silence, *others = fetched.titles()
    assert silence in ("no new bars of binance_btcusdt for 48 h", "no new bars of binance_btcusdt for 49 h")
    assert others == ["new champion: scalping, short, medium, long"]


def states(fetched: Fetched) -> list[str]:
    return sorted(run["state_name"] for run in fetched.operated.scheduled())


def test_new_bars_like_the_old_are_validated_and_train_nothing(fetched: Fetched) -> None:
    before = fetched.bars()
    fetched.exchange.now_ms += DAY_MS
    assert fetched.refreshed("new bars", "validate", "features", "drift") == {
        "name": "Completed",
        "message": "3 of 3 stages had to run; champions unchanged",
        "new bars": "Completed",
        "validate": "Completed",
        "features": "Completed",
        "drift": "Completed",
    }
    assert fetched.bars() == before + DAY_MS // BAR_MS
    assert fetched.learned() == 1
    assert fetched.titles() in (
        ["no new bars of binance_btcusdt for 24 h"],
        ["no new bars of binance_btcusdt for 25 h"],
    )


def test_new_bars_unlike_the_old_are_told_and_trained_on_and_the_champion_is_told(fetched: Fetched) -> None:
    fetched.exchange.now_ms += DAY_MS
    found = fetched.refreshed("learn")
    assert (found["name"], found["learn"]) == ("Completed", "Completed"), found
    assert found["message"] == "3 of 4 stages had to run; new champion: scalping, short, medium, long"
    assert fetched.learned() == 2
    assert fetched.titles() == [
        "the newest bars have drifted: training again",
        "new champion: scalping, short, medium, long",
    ]


def test_a_run_with_nothing_new_runs_no_stage_and_tells_nobody(fetched: Fetched) -> None:
    before = fetched.bars()
    stages = ("validate", "features", "learn", "drift")
    found = fetched.refreshed("new bars", *stages)
    assert found.pop("new bars") == "Completed"
    assert found == {
        "name": "Completed",
        "message": "nothing had changed, so no stage had to run; champions unchanged",
        **dict.fromkeys(stages, "Up to date"),
    }
    assert (fetched.bars(), fetched.learned(), fetched.titles()) == (before, 2, [])
