"""A command on a disk that is full at any of its writes: what was there is whole, one line says so, and it goes on."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from faults import Disk, Mode, contents, watched

from btcai import cli
from btcai.errors import BtcaiError

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came of a command on a disk that filled: how many writes it has, how often it ended with an error."""

    writes: int
    errors: int


def one_line(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line makes of it."""

    def fails() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(cli, "app", fails)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told


class Sweep:
    """Lets each write of a command fail in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._told = partial(one_line, monkeypatch=monkeypatch, capsys=capsys)

    def __call__(
        self,
        root: Path,
        command: Callable[[Path], object],
        *,
        apart: Callable[[str], bool] = lambda name: False,
        in_turn: bool = False,
        every: int = 1,
    ) -> Tried:
        """`apart`: files that are no result of the command, by their path. `in_turn`: it ends with one of its results
        before it begins the next, so that a fault leaves some old and some new, each whole; it goes on from there to
        the same end. `every`: 7 tries each seventh write of a slow command, and the last ones."""

        def held(folder: Path) -> dict[str, bytes]:
            return {name: text for name, text in contents(folder).items() if not apart(name)}

        undisturbed = root.with_name("undisturbed")
        shutil.copytree(root, undisturbed)
        with watched(Disk(undisturbed)) as disk:
            command(undisturbed)
        before, after, errors = held(root), held(undisturbed), 0
        assert disk.writes
        assert before != after
        for mode in MODES:
            for number in [*range(1, len(disk.writes) - 2, every), *range(len(disk.writes) - 1, len(disk.writes) + 1)]:
                try:
                    with watched(Disk(root, number, mode)):
                        command(root)
                except (BtcaiError, OSError) as error:
                    errors += 1
                    self._told(error)
                    now = held(root)
                    if in_turn and now != before:
                        assert before.keys() & after.keys() <= now.keys()
                        odd = [name for name, text in now.items() if text not in (before.get(name), after.get(name))]
                        assert not odd, (odd, mode, number, disk.writes[number - 1])
                        command(root)  # from there
                        assert held(root) == after, (mode, number, disk.writes[number - 1])
                        now = renewed(root, before)
                    assert now.keys() == before.keys(), (mode, number, disk.writes[number - 1])
                    assert now == before, (mode, number, disk.writes[number - 1])
                else:  # it did without what it could not write, or had written all
                    assert held(root) == after, (mode, number, disk.writes[number - 1])
                    renewed(root, before)
        command(root)
        assert held(root) == after
        return Tried(writes=len(disk.writes), errors=errors)


def renewed(root: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """The folder with these files and no others."""
    shutil.rmtree(root)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return files


def once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """What a function computes is computed once."""
    whole, kept = getattr(module, name), {}

    def remembered(*arguments: Any, **named: Any) -> Any:
        if name not in kept:
            kept[name] = whole(*arguments, **named)
        return kept[name]

    monkeypatch.setattr(module, name, remembered)


def locks(name: str) -> bool:
    return name.endswith("btcai.lock")
