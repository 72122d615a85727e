"""How often a source that fails is asked again, how long apart, and when it is left alone."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from btcai.errors import DataError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Failed(Exception):
    """A request that went wrong and may go well another time: why, and for how long the other side asked to wait."""

    def __init__(self, reason: str, asked_s: float = 0.0) -> None:
        super().__init__(reason)
        self.asked_s = asked_s


class Down(DataError):
    """A source that is left alone from now on."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Waits between tries are random up to a limit that doubles, so that many clients do not come back at once (Brooker
    2015, "Exponential backoff and jitter": full jitter); one that the source asks for (Retry-After) is kept in full."""

    tries: int = 8
    first_s: float = 1.0
    most_s: float = 60.0
    longest_asked_s: float = 300.0
    """A source that asks for more is left alone: it has banned us, and asking again makes bans longer."""
    sleep: Callable[[float], None] = time.sleep


class Circuit:
    """A circuit breaker around one source (Nygard 2018, Release It!, chapter 5).

    `tries` failures of one request in a row open it; what is asked of it then is refused without a request. It does not
    close again: what a run has got by then is kept, and the next run starts with a closed one.
    """

    def __init__(self, name: str, patience: Patience) -> None:
        self.name, self._patience = name, patience
        self.asked = 0  # tries included
        self.failures: Counter[str] = Counter()  # by reason, of requests that were made again or given up
        self._open = ""

    def ask(self, request: Callable[[], T]) -> T:
        """request(), again where it raises Failed; Down where it failed for good or the circuit is open."""
        if self._open:
            raise Down(self._open)
        patience = self._patience
        retrying = Retrying(
            retry=retry_if_exception_type(Failed),
            stop=lambda state: stop_after_attempt(patience.tries)(state) or _asked_s(state) > patience.longest_asked_s,
            wait=self._wait_s,
            sleep=patience.sleep,
            before_sleep=self._announce,
            retry_error_callback=self._give_up,
        )
        answer: T = retrying(self._counted, request)
        return answer

    def _counted(self, request: Callable[[], T]) -> T:
        self.asked += 1
        try:
            return request()
        except Failed as failed:
            self.failures[str(failed)] += 1
            raise

    def _wait_s(self, state: RetryCallState) -> float:
        return _asked_s(state) + wait_random_exponential(self._patience.first_s, self._patience.most_s)(state)

    def _announce(self, state: RetryCallState) -> None:
        waits_s = state.next_action.sleep if state.next_action else 0.0
        logger.warning("%s: %s; try %d in %.1f s", self.name, _failure(state), state.attempt_number + 1, waits_s)

    def _give_up(self, state: RetryCallState) -> None:
        failed = _failure(state)
        why = (
            f"asked to be left alone for {failed.asked_s:.0f} s"
            if failed.asked_s > self._patience.longest_asked_s
            else f"failed {state.attempt_number} times in a row"
        )
        self._open = f"{self.name} {why}, the last time: {failed}"
        raise Down(self._open)


def _failure(state: RetryCallState) -> Failed:
    failed = state.outcome.exception() if state.outcome else None
    assert isinstance(failed, Failed)
    return failed


def _asked_s(state: RetryCallState) -> float:
    return _failure(state).asked_s
