"""Served decisions: the bits of inference.decide and of the registered model, one or many, explained or not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_fakes import exported, frame, hand_made_bundle, loud_bundle, market
from serving_fakes import ACCOUNTS, HELD, cut

from btcai.errors import DataError
from btcai.explanation import explain_decision
from btcai.inference.bundle import PolicyBundle, load_bundle, tokens_of
from btcai.inference.decision import Account, Seen, consider_seen, decide, look
from btcai.inference.pyfunc import DecisionModel, decision_row
from btcai.reasoning.memory import Memory, Situations, new_memory
from btcai.reasoning.records import reasoning_json
from btcai.reasoning.remembering import remember
from btcai.schema import BAR_NS, Action, Decision
from btcai.serving import deciding
from btcai.serving.deciding import decide_each
from btcai.serving.live import KEPT_BARS, Market

STOPS = (8_990, 9_007)


def decide_seen(seen: Seen, account: Account = None) -> Decision:
    return consider_seen(seen, account).decision


def seen_at(bundle: PolicyBundle, stop: int) -> Seen:
    return Market(cut(market().bars, stop, KEPT_BARS)).seen(bundle)


@pytest.mark.parametrize("bucket", ["scalping", "medium"])
def test_a_served_decision_has_the_bits_of_decide_and_of_the_registered_model(tmp_path: Path, bucket: str) -> None:
    folder = loud_bundle(tmp_path, bucket)
    bundle = load_bundle(folder)
    said = set()
    for stop in STOPS:
        seen = seen_at(bundle, stop)
        for account in ACCOUNTS:
            decision = decide_seen(seen, account)
            assert decision == decide(bundle, cut(market().bars, stop, 6_000), account)
            params = {"account": json.dumps(account) if account else ""}
            registered = DecisionModel(bundle, "none").predict(frame().iloc[stop - 6_000 : stop], params)
            assert registered.iloc[0].to_dict() == decision_row(decision, "none")
            said.add((decision.action, decision.note))
    assert len(said) >= 3  # held back by different rules, not one answer to all


def test_many_accounts_get_the_decisions_of_each_alone_in_their_order(tmp_path: Path) -> None:
    bundle = load_bundle(loud_bundle(tmp_path))
    seen = seen_at(bundle, 9_007)
    found = decide_each(seen, ACCOUNTS * 3)
    assert found == [decide_seen(seen, account) for account in ACCOUNTS * 3]
    assert len({decision.probabilities for decision in found if isinstance(decision, Decision)}) == len(ACCOUNTS)


def test_a_wrong_account_among_many_gets_its_error_and_the_others_their_decisions(tmp_path: Path) -> None:
    seen = seen_at(load_bundle(loud_bundle(tmp_path)), 9_007)
    first, wrong, last = decide_each(seen, [None, {"cash_usdt": "much"}, HELD])
    assert [first, last] == [decide_seen(seen, None), decide_seen(seen, HELD)]
    assert isinstance(wrong, DataError)
    assert "cash_usdt must be a number" in str(wrong)
    (alone,) = decide_each(seen, [{"cash": 1.0}])
    assert isinstance(alone, DataError)


@pytest.mark.parametrize(
    ("logits", "changes", "note"),
    [
        ((0.0, 1.0, 0.0, 0.0), {"std": float("nan")}, "a lot is not allowed: the forecast is not a finite number"),
        ((0.0, 1.0, 0.0, 0.0), {"unfamiliarity": 9.0}, "a lot is not allowed: the market's unfamiliarity 9 is above"),
        ((0.0, 0.0, 1.0, 0.0), {}, "no lot is open to sell"),
        ((0.0, 0.0, 0.0, 1.0), {}, "no lot is open to sell"),
    ],
    ids=["no forecast", "unfamiliar", "sell", "close all"],
)
def test_what_the_rules_hold_against_an_order_is_said_as_decide_says_it(
    tmp_path: Path, logits: tuple[float, float, float, float], changes: dict[str, Any], note: str
) -> None:
    bundle = load_bundle(hand_made_bundle(tmp_path, logits=logits, **changes))
    seen = seen_at(bundle, 9_007)
    assert decide_seen(seen).note.startswith(note)
    for account in ACCOUNTS:
        wanted = decide(bundle, cut(market().bars, 9_007, 6_000), account)
        assert repr(decide_seen(seen, account)) == repr(wanted)  # nan is not equal to itself


def test_an_order_changes_nothing_that_is_shared(tmp_path: Path) -> None:
    seen = seen_at(load_bundle(hand_made_bundle(tmp_path)), 9_007)
    first = decide_seen(seen)
    assert first.action is Action.BUY
    assert decide_seen(seen) == first


def remembered(folder: Path, bundle: PolicyBundle, stop: int) -> Memory:
    """Situations of the bars before row `stop`, all known by then."""
    picked = range(stop - 3_000, stop - 20, 12)
    stamps, latents = market().bars.close_ts_ns[list(picked)], np.tanh(market().features[list(picked)])
    known = Situations(
        close_ts_ns=stamps,
        known_ts_ns=stamps + 3 * BAR_NS,
        embedding=latents,
        outcome=np.linspace(-1, 1, len(stamps)),
    )
    empty = new_memory(latents, stamps, model_version=bundle.version, horizon_bars=bundle.horizons_bars[0])
    return remember(empty, known, int(stamps[-1]) + 3 * BAR_NS)


@pytest.mark.parametrize("account", [None, HELD], ids=["flat", "invested"])
def test_a_decision_is_explained_letter_by_letter_as_btcai_explain_does(
    tmp_path: Path, account: dict[str, Any] | None
) -> None:
    bundle = load_bundle(loud_bundle(tmp_path))
    seen, memory = seen_at(bundle, 9_007), remembered(tmp_path, bundle, 9_007)
    decision, found = deciding.explain(seen, account, "as told", memory, None)
    bars = cut(market().bars, 9_007, 6_000)
    assert reasoning_json(found) == reasoning_json(explain_decision(bundle, bars, account, "as told", memory))
    assert found.recalled is not None
    assert found.recalled.n > 0
    assert decision == decide_seen(seen, account)


def test_a_memory_that_forgot_by_what_came_later_is_not_asked(tmp_path: Path) -> None:
    bundle = load_bundle(loud_bundle(tmp_path))
    seen = seen_at(bundle, 9_007)
    later = replace(remembered(tmp_path, bundle, 9_007), forgot_ts_ns=seen.close_ts_ns + BAR_NS)
    _, found = deciding.explain(seen, None, "flat", later, None)
    assert found.recalled is None


def test_a_window_is_encoded_where_it_lies_to_the_bit_of_a_copy(tmp_path: Path) -> None:
    bundle = load_bundle(loud_bundle(tmp_path, "medium"))
    rows = seen_at(bundle, 9_007).data.features[-1440:]
    rows.flags.writeable = False
    copied = bundle._encoder.run(None, {"tokens": tokens_of(rows, bundle.patch_bars)})
    for ours, theirs in zip(vars(bundle.encode(rows)).values(), copied, strict=True):
        np.testing.assert_array_equal(ours, theirs[0])


@pytest.mark.slow
def test_an_exported_network_says_the_same_to_one_as_to_many() -> None:
    _, folder = exported("medium")
    bundle = load_bundle(folder)
    seen = look(bundle, seen_at(bundle, 9_007).data)
    for n in (1, 2, 3, 7, 16, 33, 64, 129):
        described = [
            {"cash_usdt": 1_000.0 * (k + 1), "lots": [{"btc": 0.01 * (k + 1), "entry_price": 20_000.0 + 50 * k}]}
            for k in range(n)
        ]
        assert decide_each(seen, described) == [decide_seen(seen, account) for account in described]
