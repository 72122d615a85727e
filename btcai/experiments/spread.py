"""Pieces of work that rest on what they are given alone: made here or in other processes, the same bytes come of them.

A piece leaves files in a folder of its own. Elsewhere it works in a scratch folder that begins as a copy of that one,
and what it added is brought back when it has ended: a worker that dies takes nothing with it, and a piece that is made
twice is kept once. `on_ray.cluster` says where.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from btcai.errors import ConfigError
from btcai.records.versions import code_sha256

Files = dict[str, bytes]
"""Content by path below a folder, with slashes."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """work: (what all pieces share, a folder) -> a small value; can be pickled, and goes on from what the folder holds.

    folder: where its files are kept; memory_bytes: what it takes at most, which decides how many are made at a time.
    """

    work: Callable[[Any, Path], Any]
    folder: Path
    memory_bytes: float


Runner = Callable[[Any, Sequence[Piece]], Iterator[tuple[int, Any]]]
"""(what all pieces share, the pieces) -> the number of each and its value, as they end: its files are kept by then."""


def here(shared: Any, pieces: Sequence[Piece]) -> Iterator[tuple[int, Any]]:
    """In this process, one after the other."""
    for number, piece in enumerate(pieces):
        yield number, piece.work(shared, piece.folder)


def elsewhere(
    work: Callable[[Any, Path], Any], shared: Any, files: Files, code: str, scratch: Path | None = None
) -> tuple[Any, Files]:
    """A piece's value and the files that it added; ConfigError where this machine runs other code than `code`.

    scratch: where it works, in a folder that goes unless it is killed; the system's temporary folder without.
    """
    if (own := code_here()) != code:
        raise ConfigError(
            f"all machines must run the same btcai, this one has code {own[:12]} and {code[:12]} was asked for; "
            "install the same commit on all of them"
        )
    with TemporaryDirectory(prefix="btcai-", dir=scratch) as name:
        folder = Path(name) / "piece"
        _unpack(files, folder)
        value = work(shared, folder)
        found = packed(folder)
    return value, {path: content for path, content in found.items() if path not in files}


@cache
def code_here() -> str:
    """A hash of the code that this process runs: files that change meanwhile are not read any more."""
    return code_sha256(["."])


def packed(folder: Path) -> Files:
    """What lies in a folder, drafts left out; nothing where there is none."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder): path for path in found}
    return {
        place.as_posix(): path.read_bytes()
        for place, path in named.items()
        if not any(part.startswith(".") for part in place.parts)
    }


def bring(files: Files, folder: Path) -> None:
    """Add what a piece made elsewhere: folders as a whole, and after them the files that say that all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".brought-", dir=folder) as name:
        draft = Path(name)
        _unpack(files, draft)
        for made in sorted(draft.iterdir(), key=lambda path: (path.is_file(), path.name)):
            if not (folder / made.name).exists():
                made.rename(folder / made.name)


def _unpack(files: Files, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
