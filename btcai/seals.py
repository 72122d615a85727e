"""JSON that proves itself: a record that carries the hash of what it says, so that one changed digit is seen."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "content_sha256"
"""Key of the hash. It is of the content, so other blanks, or keys in another order, are the same record."""


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with its hash; one that it held before is replaced."""
    said = {key: value for key, value in content.items() if key != SEAL}
    return {**said, SEAL: _digest(said)}


def is_sealed(content: object) -> bool:
    """Whether this is what `sealed` made, whatever a disk or a person did to it meanwhile."""
    return isinstance(content, Mapping) and content.get(SEAL) == sealed(content)[SEAL]


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
