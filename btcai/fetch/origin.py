"""Where a market's bars were fetched from: kept beside them, so that no other source's join them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from btcai.errors import DataError

FILE = "origin.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """As ccxt names them."""

    exchange: str
    symbol: str
    timeframe: str

    def __str__(self) -> str:
        return f"{self.exchange} {self.symbol} {self.timeframe}"


def read_origin(folder: Path) -> Origin | None:
    """None where the market was not fetched."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} must say exchange, symbol and timeframe: {error}; restore it with: dvc checkout"
        ) from error


def check_origin(folder: Path, wanted: Origin) -> None:
    """DataError where the market was fetched from elsewhere."""
    if (found := read_origin(folder)) not in (None, wanted):
        raise DataError(
            f"{folder.name} holds bars of {found}, was asked for {wanted}: bars of two sources must not mix; give "
            "these a market of their own: --market"
        )


def write_origin(folder: Path, origin: Origin) -> None:
    """In one step; a market that says so already is left alone."""
    if read_origin(folder) == origin:
        return
    draft = folder.with_name(f".{folder.name}.{FILE}")
    draft.write_text(json.dumps(asdict(origin), indent=2) + "\n", encoding="utf-8")
    with draft.open("rb+") as stream:
        os.fsync(stream.fileno())
    draft.replace(folder / FILE)
