"""JSON that proves itself: a record that carries the hash of what it says, so that one changed digit is seen."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CHECKSUM = "content_sha256"
"""Key of the hash. It is of the content, so other blanks, or keys in another order, are the same record."""


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with its hash; one that it held before is replaced."""
    bare = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**bare, CHECKSUM: _digest(bare)}


def is_intact(content: object) -> bool:
    """Whether this is what `with_checksum` made, whatever a disk or a person did to it meanwhile."""
    return isinstance(content, Mapping) and content.get(CHECKSUM) == with_checksum(content)[CHECKSUM]


def _digest(bare: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()
