"""Decisions on what was seen once, as often as accounts ask: inference's own two halves, many accounts at a time."""

from collections.abc import Mapping, Sequence

import numpy as np

from btcai.errors import DataError
from btcai.explanation import explain_considered
from btcai.inference.decision import Account, AccountHalf, Seen, account_half, consider_seen, decided
from btcai.reasoning.components import EQUAL_WEIGHTS
from btcai.reasoning.memory import Memory
from btcai.reasoning.records import Reasoning
from btcai.schema import Decision


def decide_each(seen: Seen, accounts: Sequence[Account]) -> list[Decision | DataError]:
    """Each account's decision, in their order, from one run of the head; the error where a description is wrong."""
    halves = [_half_or_error(seen, account) for account in accounts]
    sound = [half for half in halves if isinstance(half, AccountHalf)]
    found = iter(_decided_together(seen, sound) if sound else ())
    return [half if isinstance(half, DataError) else next(found) for half in halves]


def explain(
    seen: Seen, account: Account, account_text: str, memory: Memory | None, weights: Mapping[str, float] | None
) -> tuple[Decision, Reasoning]:
    """A decision with every step to it, as explanation.explain_decision puts them.

    Of a memory that forgot by what came after this decision nothing is recalled: that would be looking ahead.
    """
    considered = consider_seen(seen, account)
    if memory is not None and memory.forgot_ts_ns > seen.close_ts_ns:
        memory = None
    return considered.decision, explain_considered(
        seen.bundle, considered, account_text, memory, weights or EQUAL_WEIGHTS
    )


def _decided_together(seen: Seen, halves: Sequence[AccountHalf]) -> list[Decision]:
    latent = np.repeat(seen.encoded.latent[-1:], len(halves), axis=0)
    probabilities, values = seen.bundle.head(latent, np.concatenate([half.observation for half in halves]))
    return [decided(seen, half, probabilities[k : k + 1], values[k : k + 1]) for k, half in enumerate(halves)]


def _half_or_error(seen: Seen, account: Account) -> AccountHalf | DataError:
    try:
        return account_half(seen, account)
    except DataError as error:
        return error
