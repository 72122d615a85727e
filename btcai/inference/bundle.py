"""An exported policy: what anything that can be backtested looks like, and the ONNX bundle that is one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from btcai.checksums import CHECKSUM, is_intact, with_checksum
from btcai.config import BucketConfig, SizingConfig
from btcai.environment import telemetry_off
from btcai.errors import ArtifactError, DamageError, DataError
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.inference.holdings import Rulebook
from btcai.market.rules import Rules
from btcai.schema import TOKENS, Float32Array

if TYPE_CHECKING:
    import onnxruntime as ort

MANIFEST = "manifest.json"
GRAPHS = ("encoder.onnx", "head.onnx", "policy.onnx")


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a stretch of market says at each of its D decision times, before any account is known; as an encoder puts
    it out, in this order.

    latent (D, Z) float32; gates (D, 3): shares of the convolution, LSTM and attention branches; mean, std (D, H) and
    quantiles (D, H, Q): of the log return over each horizon, calibrated; unfamiliarity (D,): how unlike the training
    span the market is to the network, where 1 is exceeded one time in a hundred on the validation span.
    """

    latent: Float32Array
    gates: Float32Array
    mean: Float32Array
    std: Float32Array
    quantiles: Float32Array
    unfamiliarity: Float32Array

    def __len__(self) -> int:
        return len(self.latent)


ENCODER_OUTPUTS = list(Encoded.__dataclass_fields__)
"""Outputs of an encoder, in order."""

HEAD_OUTPUTS = ["probabilities", "value"]
"""Outputs of a head. Who names them spares ONNX Runtime asking the graph for them at every run."""


class Policy(Protocol):
    """Anything that can be backtested: a torch model in training, a bundle everywhere else."""

    @property
    def bucket(self) -> str: ...

    @property
    def patch_bars(self) -> int: ...

    @property
    def lookback_bars(self) -> int: ...

    @property
    def horizons_bars(self) -> tuple[int, ...]: ...

    def encode(self, features: Float32Array) -> Encoded:
        """Raw feature rows ((D + 143) * patch_bars, F), the last one a decision time -> D decision times."""
        ...

    def probabilities(self, latent: Float32Array, account: Float32Array) -> Float32Array:
        """latent (B, Z), account (B, A) -> probabilities (B, 4) in the order of Action."""
        ...


def tokens_of(features: Float32Array, patch_bars: int, *, copy: bool = True) -> Float32Array:
    """Feature rows (N * patch_bars, F) -> one stretch of tokens (1, N, patch_bars, F); copy as astype has it."""
    rows, n_features = features.shape
    if rows % patch_bars or rows < TOKENS * patch_bars:
        raise DataError(
            f"a stretch must be whole patches of {patch_bars} bars, at least {TOKENS} of them, was {rows} rows; "
            f"pass at least {TOKENS * patch_bars} rows that end at a decision time"
        )
    return features.astype(np.float32, copy=copy).reshape(1, rows // patch_bars, patch_bars, n_features)


class Versions(BaseModel):
    """Hashes of what a bundle was made from; more of them may be noted than deciding needs."""

    data: str


class Manifest(BaseModel):
    """What deciding reads of manifest.json. Others read more of it: serving the scaler, warm starts what was seen."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    bucket_config: BucketConfig
    rules: Rules
    sizing: SizingConfig
    equity_usdt: float = Field(gt=0, allow_inf_nan=False)
    feature_names: tuple[str, ...]
    warmup_bars: int
    versions: Versions
    sha256: dict[str, str]


class PolicyBundle:
    """A bucket's exported model: encoder and head run by ONNX Runtime, one thread (fastest at batch 1)."""

    def __init__(self, folder: Path, manifest: Manifest, graphs: Mapping[str, bytes]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.bucket = manifest.bucket
        self.settings = manifest.bucket_config
        self.patch_bars = self.settings.patch_bars
        self.lookback_bars = self.settings.lookback_bars
        self.horizons_bars = self.settings.horizons_bars
        self._encoder = session(graphs["encoder.onnx"], folder / "encoder.onnx")
        self._head = session(graphs["head.onnx"], folder / "head.onnx")
        given = [output.name for output in self._encoder.get_outputs()]
        if given != ENCODER_OUTPUTS:
            raise ArtifactError(
                f"an encoder must put out {', '.join(ENCODER_OUTPUTS)}, the one in {folder} puts out "
                f"{', '.join(given)}: it was exported by another version of btcai; remake it with: btcai run"
            )
        self.book = Rulebook.of(manifest.rules)

    @cached_property
    def version(self) -> str:
        """First 12 hex digits of the hash over the three graphs."""
        digest = hashlib.sha256("".join(self.manifest.sha256[name] for name in GRAPHS).encode())
        return digest.hexdigest()[:12]

    def encode(self, features: Float32Array) -> Encoded:
        """Raw feature rows ((D + 143) * patch_bars, F) -> D decision times."""
        arrays = self._encoder.run(ENCODER_OUTPUTS, {"tokens": tokens_of(features, self.patch_bars, copy=False)})
        return Encoded(*[array[0] for array in arrays])

    def head(self, latent: Float32Array, account: Float32Array) -> tuple[Float32Array, Float32Array]:
        """latent (B, Z), account (B, A) -> probabilities (B, 4), value (B,)."""
        probabilities, value = self._head.run(HEAD_OUTPUTS, {"latent": latent, "account": account})
        return probabilities, value

    def probabilities(self, latent: Float32Array, account: Float32Array) -> Float32Array:
        """latent (B, Z), account (B, A) -> probabilities (B, 4) in the order of Action."""
        return self.head(latent, account)[0]


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_bundle(folder: Path) -> PolicyBundle:
    """Open a bundle; ArtifactError when it is missing or made for other features, its DamageError when damaged.

    The manifest proves itself and names the hashes of the graphs: no byte that deciding reads may differ, also where
    another bundle takes this one's place meanwhile.
    """
    manifest = _read_manifest(folder / MANIFEST)
    graphs = read_graphs(folder, manifest)
    if manifest.feature_names != FEATURE_NAMES or manifest.warmup_bars != WARMUP_BARS:
        odd = sorted(set(manifest.feature_names) ^ set(FEATURE_NAMES)) or ["their order"]
        raise ArtifactError(
            f"a bundle must be made for this btcai's {len(FEATURE_NAMES)} features and {WARMUP_BARS} bars of warm-up, "
            f"the one in {folder} was made for {len(manifest.feature_names)} and {manifest.warmup_bars} (different: "
            f"{', '.join(odd[:3])}); remake it with: btcai run"
        )
    return PolicyBundle(folder, manifest, graphs)


def read_graphs(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """File name -> what is in it; DamageError where that is not what the manifest names."""
    graphs = {name: (folder / name).read_bytes() for name in GRAPHS if (folder / name).is_file()}
    for name in GRAPHS:
        if name not in graphs or hashlib.sha256(graphs[name]).hexdigest() != manifest.sha256.get(name):
            raise DamageError(
                f"{folder / name} is missing or not the file its manifest names; remake it with: btcai run"
            )
    return graphs


def _read_manifest(path: Path) -> Manifest:
    if not path.is_file():
        raise ArtifactError(f"no bundle in {path.parent} ({MANIFEST} is missing); make one with: btcai run")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _check_intact(path, content)
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ArtifactError(f"{path} is damaged ({where}: {first['msg']}); remake it with: btcai run") from error
    except ValueError as error:
        raise DamageError(f"{path} is not valid JSON ({error}); remake it with: btcai run") from error


def _check_intact(path: Path, content: object) -> None:
    if is_intact(content):
        return
    if isinstance(content, dict) and CHECKSUM not in content:
        raise ArtifactError(
            f"{path} must carry the hash of its own content, {CHECKSUM}; without it no damage to its numbers would be "
            "seen. Older versions of btcai wrote none; remake it with: btcai run"
        )
    raise DamageError(f"{path} is damaged: it says other than what was written; remake it with: btcai run")


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write a bundle's manifest.json, which proves itself from then on; the same content gives the same bytes."""
    text = json.dumps(with_checksum(content), indent=1, sort_keys=True, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def session(graph: bytes, path: Path) -> "ort.InferenceSession":
    """What the .onnx file at `path` holds, to run on one thread: fastest at batch 1. ArtifactError where it is no graph
    that this ONNX Runtime can run."""
    telemetry_off()  # onnxruntime reads it as it is imported, so here and not above
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own have no common base below this
        raise ArtifactError(
            f"{path} must be a graph that ONNX Runtime {ort.__version__} can run: {error}; remake it with: btcai run"
        ) from error
