"""Where a market's bars were fetched from: kept beside them, so that no other source's join them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from btcai.errors import DataError
from btcai.files import write_bytes

FILE = "origin.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Exchange, symbol and timeframe as ccxt names them; through which address, and with the archive or without, is no
    part of what it is."""

    exchange: str
    symbol: str
    timeframe: str
    url: str | None = field(default=None, compare=False)
    archive: bool = field(default=True, compare=False)

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
    text = json.dumps(asdict(origin), indent=2) + "\n"
    if not (folder / FILE).is_file() or (folder / FILE).read_text(encoding="utf-8") != text:
        write_bytes(folder / FILE, text.encode())
