"""A record that proves itself: every change of what it says is seen, none of how it is written."""

import json
import math

from hypothesis import assume, given
from hypothesis import strategies as st

from btcai.checksums import CHECKSUM, is_intact, with_checksum

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text().filter(lambda name: name != CHECKSUM), VALUES, min_size=1, max_size=4)


def test_the_hash_is_of_the_json_with_sorted_keys() -> None:
    # printf '{"a": 1.5, "b": [2]}' | sha256sum
    known = "e7e220ccfa430a897ff382f9c5889d761be6afd9a71d0e47534361a7961e83cb"
    assert with_checksum({"b": [2], "a": 1.5}) == {"b": [2], "a": 1.5, CHECKSUM: known}


@given(RECORDS)
def test_a_record_survives_disk_other_blanks_and_another_order(record: dict[str, object]) -> None:
    found = json.loads(json.dumps(with_checksum(record), indent=3))
    assert is_intact(found)
    assert is_intact(dict(reversed(found.items())))
    assert with_checksum(found) == found


@given(RECORDS, st.data(), VALUES)
def test_another_value_under_any_key_is_seen(record: dict[str, object], data: st.DataObject, value: object) -> None:
    found = with_checksum(record)
    key = data.draw(st.sampled_from(sorted(found)))
    assume(json.dumps(found[key], sort_keys=True) != json.dumps(value, sort_keys=True))
    assert not is_intact(found | {key: value})
    assert not is_intact({name: part for name, part in found.items() if name != key})


def test_what_is_no_record_is_not_intact() -> None:
    for content in ([], None, "x", 1, {}, {"a": 1}, {CHECKSUM: "0" * 64}):
        assert not is_intact(content)


def test_a_score_that_is_not_a_number_has_a_checksum_as_any_other() -> None:
    found = json.loads(json.dumps(with_checksum({"score": math.nan})))
    assert is_intact(found)
    assert not is_intact(found | {"score": 1.0})
