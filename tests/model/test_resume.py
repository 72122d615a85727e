"""Checkpoints come back to the bit, or the one before does: after damage, full disks, interruptions and other runs."""

import errno
import logging
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from btcai.errors import DiskError
from btcai.training import resume
from btcai.training.resume import Checkpoint, Checkpoints, run_key

WEIGHTS = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "step": torch.tensor(7, dtype=torch.int64)}
FACTS = {"best": 0.1, "rows": [{"update": 1, "loss": 0.30000000000000004}]}
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
)  # fmt: skip


def held(folder: Path) -> list[str]:
    """Names in the folder."""
    return sorted(path.name for path in folder.iterdir())


def files(*updates: int) -> list[str]:
    return [f"update-{update:09d}.safetensors" for update in updates]


def bits(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """Tensors as what can be compared to the bit, nan with nan."""
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(folder=tmp_path / "checkpoints", key="this run")


@pytest.fixture
def two(store: Checkpoints) -> tuple[Checkpoints, Path]:
    """A folder that holds updates 10 and 20, and the newer one's path."""
    for update in (10, 20):
        store.save(update, {"a": torch.full((3,), float(update))}, {"update": update})
    return store, store.folder / files(20)[0]


def newest(store: Checkpoints) -> Checkpoint:
    found = store.latest()
    assert found is not None
    return found


@st.composite
def tensors_of_any_bits(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4).map(tuple))
    n = int(np.prod(shape)) * dtype.itemsize
    if n == 0:
        return torch.empty(shape, dtype=dtype)
    content = draw(st.binary(min_size=n, max_size=n))
    if dtype is torch.bool:
        content = bytes(byte % 2 for byte in content)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=30)
@given(
    tensors=st.dictionaries(st.text(min_size=1, max_size=8), tensors_of_any_bits(), max_size=4),
    facts=st.dictionaries(st.text(), JSON, max_size=4),
    update=st.integers(0, 10**9 - 1),
)
def test_tensors_and_facts_come_back_to_the_bit(
    tensors: dict[str, Tensor], facts: dict[str, object], update: int
) -> None:
    tensors.pop("__metadata__", None)
    with tempfile.TemporaryDirectory() as folder:
        store = Checkpoints(folder=Path(folder), key="k")
        store.save(update, tensors, facts)
        found = newest(store)
    assert found.update == update
    assert bits(found.tensors) == bits(tensors)
    assert repr(found.facts) == repr(facts)  # nan and the sign of zero too


def test_a_transposed_tensor_comes_back(store: Checkpoints) -> None:
    store.save(1, {"a": WEIGHTS["a"].T}, {})
    assert torch.equal(newest(store).tensors["a"], torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in "ab":
        Checkpoints(folder=tmp_path / name, key="k").save(3, WEIGHTS, FACTS)
        written.append((tmp_path / name / files(3)[0]).read_bytes())
    assert written[0] == written[1]


def test_an_empty_or_missing_folder_has_no_checkpoint(store: Checkpoints) -> None:
    assert store.latest() is None
    store.folder.mkdir()
    assert store.latest() is None


def test_the_newest_is_by_number_and_not_by_text(store: Checkpoints) -> None:
    for update in (9, 10, 100):
        store.save(update, {}, {})
    assert newest(store).update == 100


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_older_ones_past_the_limit_are_removed(tmp_path: Path, keep: int) -> None:
    store = Checkpoints(folder=tmp_path, key="k", keep=keep)
    for update in range(1, 6):
        store.save(update, WEIGHTS, FACTS)
        assert held(tmp_path) == files(*range(max(1, update - keep + 1), update + 1))


def test_what_was_just_saved_is_kept_beside_ones_with_a_higher_number(two: tuple[Checkpoints, Path]) -> None:
    store = Checkpoints(folder=two[0].folder, key="this run", keep=1)
    store.save(15, {}, {})
    assert held(store.folder) == files(15)


def test_files_that_are_not_checkpoints_stay(two: tuple[Checkpoints, Path]) -> None:
    store, _ = two
    (store.folder / "notes.txt").write_text("mine", encoding="utf-8")
    store.save(30, {}, {})
    store.clear()
    assert held(store.folder) == ["notes.txt"]


def test_an_ended_run_leaves_nothing(two: tuple[Checkpoints, Path]) -> None:
    two[0].clear()
    assert not two[0].folder.exists()
    two[0].clear()  # nor minds that there is nothing


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1 checkpoint, was 0"):
        Checkpoints(folder=tmp_path, key="k", keep=0)


def assert_the_one_before_is_used(store: Checkpoints, newer: Path, damaged: bytes) -> None:
    newer.write_bytes(damaged)
    found = newest(store)
    assert (found.update, found.facts, found.tensors["a"].tolist()) == (10, {"update": 10}, [10.0, 10.0, 10.0])
    assert held(store.folder) == files(10)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flip_in_any_byte_is_refused_and_the_one_before_is_used(two: tuple[Checkpoints, Path], mask: int) -> None:
    store, newer = two
    content = newer.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= mask
        assert_the_one_before_is_used(store, newer, bytes(damaged))


def test_one_cut_at_any_length_is_refused_and_the_one_before_is_used(two: tuple[Checkpoints, Path]) -> None:
    store, newer = two
    content = newer.read_bytes()
    for length in range(len(content)):
        assert_the_one_before_is_used(store, newer, content[:length])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: content[len(content) // 2 :] + content[: len(content) // 2],
        lambda content: content[:-12] + bytes(12),  # the disk never wrote the last block
    ],
)
def test_other_damage_is_refused_and_the_one_before_is_used(
    two: tuple[Checkpoints, Path], damage: Callable[[bytes], bytes]
) -> None:
    store, newer = two
    assert_the_one_before_is_used(store, newer, damage(newer.read_bytes()))


def test_a_file_of_another_program_is_refused_and_the_one_before_is_used(two: tuple[Checkpoints, Path]) -> None:
    store, newer = two
    save_file(WEIGHTS, newer)
    assert_the_one_before_is_used(store, newer, newer.read_bytes())


def test_a_damaged_one_is_reported_by_name_and_reason(
    two: tuple[Checkpoints, Path], caplog: pytest.LogCaptureFixture
) -> None:
    store, newer = two
    newer.write_bytes(newer.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert newest(store).update == 10
    assert caplog.messages == [
        f"checkpoint {newer} is refused and removed: its 100 bytes do not give its checksum",
    ]


def test_where_all_are_damaged_training_starts_anew(two: tuple[Checkpoints, Path]) -> None:
    store, _ = two
    for path in store.folder.iterdir():
        path.write_bytes(b"")
    assert store.latest() is None
    assert held(store.folder) == []


def test_a_file_that_the_disk_cannot_read_is_refused_and_the_one_before_is_used(
    two: tuple[Checkpoints, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, newer = two
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == newer:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert newest(store).update == 10


def test_those_of_another_run_are_ignored_and_removed(
    two: tuple[Checkpoints, Path], caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = two
    other = Checkpoints(folder=store.folder, key="other settings")
    other.save(15, WEIGHTS, FACTS)
    assert newest(other).update == 15
    assert held(store.folder) == files(10, 15)  # 20 stood before it
    assert "it is of a run with other settings, data or code" in caplog.messages[0]


def test_one_of_another_format_is_refused_and_the_one_before_is_used(
    two: tuple[Checkpoints, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = two
    monkeypatch.setattr(resume, "FORMAT", 2)
    store.save(30, WEIGHTS, FACTS)
    monkeypatch.undo()
    assert newest(store).update == 20
    assert "its format is 2, this version reads 1" in caplog.messages[0]


def test_a_key_names_settings_whatever_their_order_and_tells_any_change() -> None:
    key = run_key(settings={"rate": 0.1, "epochs": 4}, data="d", code="c")
    assert key == run_key(code="c", data="d", settings={"epochs": 4, "rate": 0.1})
    assert key != run_key(settings={"rate": 0.2, "epochs": 4}, data="d", code="c")
    assert key != run_key(settings={"rate": 0.1, "epochs": 4}, data="e", code="c")


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskError),
        (OSError(errno.EACCES, "Permission denied"), DiskError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_an_interrupted_write_leaves_the_older_ones_and_nothing_beside(
    two: tuple[Checkpoints, Path],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: BaseException,
    told: type[BaseException],
) -> None:
    store, _ = two
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}

    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, interrupted)
    with pytest.raises(told):
        store.save(30, WEIGHTS, FACTS)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before
    store.save(30, WEIGHTS, FACTS)
    assert newest(store).update == 30


@contextmanager
def short_files() -> Iterator[None]:
    """No file may grow past 200 bytes, as on a disk that is almost full: nor may what pytest writes, so briefly."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_the_disk_breaks_off_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    store = Checkpoints(folder=tmp_path, key="k")
    message = r"could not be read or written: .*; older ones stay: free .*run it again"
    with pytest.raises(DiskError, match=message), short_files():
        store.save(1, WEIGHTS, FACTS)
    assert held(tmp_path) == []


def test_a_half_written_file_of_a_killed_run_is_removed(two: tuple[Checkpoints, Path]) -> None:
    store, newer = two
    (store.folder / f".{files(30)[0]}.new").write_bytes(newer.read_bytes()[:50])
    assert newest(store).update == 20
    assert held(store.folder) == files(10, 20)


def test_facts_that_json_cannot_hold_are_refused_before_anything_is_written(store: Checkpoints) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.save(1, {}, {"folder": Path()})
    assert not store.folder.exists()
