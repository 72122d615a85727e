"""The state of a training, on disk and in memory: what a killed run goes on from to the bits of one that was not.

A checkpoint is one safetensors file; nothing is pickled. Its header holds, beside the tensors' places, one JSON text:
a SHA-256 of the whole file (of every byte, its own 64 digits counted as zeros), the format, the run's key, the update
and the run's facts. It is written under a draft's name, forced onto the disk and renamed, so that a kill leaves it
whole or not there; what a disk damages afterwards, the checksum tells. One run at a time writes to a folder.

The same bits follow only from the border of two updates, and only where all that an update reads is captured: see
`Live`. So what is rolled back to must not depend on when a run was killed: the state of the last checkpoint's update.
`phase.survivable` keeps to it.
"""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from btcai.agent.shards import place
from btcai.errors import DiskError
from btcai.files import NO_ROOM, sync
from btcai.training.parallel import of_first, require_same

logger = logging.getLogger(__name__)

FORMAT: Final = 1
"""Of the files; another number is refused."""

_ENTRY: Final = "btcai"
_SEAL: Final = b'\\"sha256\\": \\"'  # the first field of a JSON text inside a JSON text
_UNSEALED: Final = b"0" * 64

Facts = dict[str, Any]


class _Refused(Exception):
    """A checkpoint that cannot be gone on from, and why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What was saved after so many updates; the facts are JSON values, floats to the bit."""

    update: int
    tensors: dict[str, Tensor]
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """A folder with the newest `keep` checkpoints of the run that `key` names: see `run_key`."""

    folder: Path
    key: str
    keep: int = 3

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, was {self.keep}")

    def save(self, update: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Add a checkpoint and remove those past `keep`; facts must be JSON values.

        Of processes that train together the first one does; TrainingError where they hold different states. Where this
        raises or is killed the older ones are as they were. DiskError where the disk takes no more.
        """
        content = _sealed(update, self.key, tensors, facts)
        require_same(content)
        if place()[0] > 0:
            return
        path = self.folder / f"update-{update:09d}.safetensors"
        draft = path.with_name(f".{path.name}.new")
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)
            sync(self.folder)
            older = [file for file in self._files() if file != path]
            for file in older[: max(0, len(older) - self.keep + 1)]:
                file.unlink()

    def latest(self) -> Checkpoint | None:
        """The newest sound checkpoint of this run; None where there is none.

        Damaged ones and those of other runs or formats are reported and removed; so is what a kill left half written.
        """
        content = of_first(self._newest() if place()[0] == 0 else None)
        return None if content is None else _opened(content, self.key)

    def clear(self) -> None:
        """Remove every checkpoint, and the folder if that leaves it empty: the run has ended."""
        with _told(self.folder):
            for file in [*self._files(), *self.folder.glob(".update-*.new")]:
                file.unlink()
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _newest(self) -> bytes | None:
        """Of the newest sound checkpoint."""
        with _told(self.folder):
            for draft in self.folder.glob(".update-*.new"):
                draft.unlink()
            for file in reversed(self._files()):
                try:
                    _opened(content := _read(file), self.key)
                    return content
                except _Refused as refused:
                    logger.warning("checkpoint %s is refused and removed: %s", file, refused)
                    file.unlink()
        return None

    def _files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("update-*.safetensors"))


def run_key(**facts: Any) -> str:
    """A hash of everything that decides a run's bits, as JSON values: settings, data version, code version, seed."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Live:
    """The objects that training changes, by name; torch's global generators belong to them unnamed.

    Optimizers whose state is tensors (Adam's kind); generators of numpy's default kind (PCG64), with how often they
    spawned.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    generators: Mapping[str, np.random.Generator]

    def capture(self, kept: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[dict[str, Tensor], Facts]:
        """A copy of their state for `Checkpoints.save`, or to roll back to.

        Beside it `kept`, tensors of the caller's own (the best weights so far), and `facts`, JSON values of its own
        (counters, the best score, the curves so far).
        """
        tensors = {f"kept/{name}": tensor for name, tensor in kept.items()}
        groups = {}
        for name, module in self.modules.items():
            tensors |= {f"module/{name}/{place}": tensor for place, tensor in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            groups[name] = state["param_groups"]
            for index, fields in state["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{field}": tensor for field, tensor in fields.items()}
        tensors["torch/cpu"] = torch.get_rng_state()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            tensors |= {f"torch/cuda/{k}": state for k, state in enumerate(torch.cuda.get_rng_state_all())}
        own = {
            "groups": groups,
            "generators": {name: _generator_state(generator) for name, generator in self.generators.items()},
            "facts": dict(facts),
        }
        plain = torch.contiguous_format  # as a file gives them back
        copies = {name: t.detach().to("cpu", copy=True, memory_format=plain) for name, t in tensors.items()}
        return copies, _copied(own)

    def restore(
        self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, generators: bool = True
    ) -> tuple[dict[str, Tensor], Facts]:
        """Put a captured state back, all or all but random generators; returns copies of the caller's own things."""
        for name, module in self.modules.items():
            module.load_state_dict(_under(tensors, f"module/{name}/"))
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for where, tensor in _under(tensors, f"optimizer/{name}/").items():
                index, field = where.split("/")
                state.setdefault(int(index), {})[field] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": _copied(facts["groups"][name])})
        if generators:
            self._restore_generators(tensors, facts["generators"])
        return _under(tensors, "kept/"), _copied(facts["facts"])

    def _restore_generators(self, tensors: Mapping[str, Tensor], saved: Mapping[str, Facts]) -> None:
        for name, generator in self.generators.items():
            words = {word: int(digits) for word, digits in saved[name]["state"].items()}
            seeds = np.random.SeedSequence(**json.loads(saved[name]["seeds"]))
            generator.bit_generator.__setstate__(({**saved[name], "state": words}, seeds))  # type: ignore[attr-defined]
        torch.set_rng_state(tensors["torch/cpu"])
        if cuda := _under(tensors, "torch/cuda/"):
            torch.cuda.set_rng_state_all([cuda[str(k)] for k in range(len(cuda))])


def _sealed(update: int, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """The file's bytes; the same state gives the same ones."""
    header = {"sha256": _UNSEALED.decode(), "format": FORMAT, "key": key, "update": update, "facts": dict(facts)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    blank = save(plain, metadata={_ENTRY: json.dumps(header)})
    at = blank.index(_SEAL) + len(_SEAL)
    return blank[:at] + hashlib.sha256(blank).hexdigest().encode() + blank[at + len(_UNSEALED) :]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise _Refused(str(error)) from error


def _opened(content: bytes, key: str) -> Checkpoint:
    """The checkpoint in a file's bytes; _Refused where they are damaged, or of another format or run."""
    at = content.find(_SEAL) + len(_SEAL)
    blank = content[:at] + _UNSEALED + content[at + len(_UNSEALED) :]
    if hashlib.sha256(blank).hexdigest().encode() != content[at : at + len(_UNSEALED)]:
        raise _Refused(f"its {len(content)} bytes do not give its checksum")
    stop = 8 + int.from_bytes(content[:8], "little")  # of the safetensors header
    header = json.loads(json.loads(content[8:stop])["__metadata__"][_ENTRY])
    if header["format"] != FORMAT:
        raise _Refused(f"its format is {header['format']}, this version reads {FORMAT}")
    if header["key"] != key:
        raise _Refused("it is of a run with other settings, data or code")
    return Checkpoint(update=header["update"], tensors=load(content), facts=header["facts"])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copies of the tensors below a prefix, by the rest of their names: an optimizer would go on writing into them."""
    return {name.removeprefix(prefix): tensor.clone() for name, tensor in tensors.items() if name.startswith(prefix)}


def _copied(facts: Mapping[str, Any]) -> Facts:
    """As they come back from a file, so that going on from memory and from disk are the same."""
    copy: Facts = json.loads(json.dumps(facts))
    return copy


def _generator_state(generator: np.random.Generator) -> Facts:
    """PCG64's words have 128 bits, seeds any number of them: as text, for JSON's readers may round whole numbers.

    What it will spawn depends on how often it has: its seeds count that, its state does not.
    """
    state, seeds = dict(generator.bit_generator.state), generator.bit_generator.seed_seq
    if state["bit_generator"] != "PCG64" or not isinstance(seeds, np.random.SeedSequence):
        raise ValueError(f"a generator must be numpy's PCG64, was {state['bit_generator']}; make it with default_rng")
    words = {word: str(value) for word, value in state["state"].items()}
    return {**state, "state": words, "seeds": json.dumps(seeds.state)}


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (*NO_ROOM, errno.EIO):
            raise
        raise DiskError(
            f"checkpoints in {folder} could not be read or written: {error}; older ones stay: free or mend the disk, "
            "then run it again, and training goes on from the newest"
        ) from error
