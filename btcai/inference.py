"""Policies as evaluation and live trading see them, and the ONNX bundle that is one. numpy and onnxruntime only."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from btcai.config import BucketConfig, SizingConfig
from btcai.environment import telemetry_off
from btcai.errors import ArtifactError, DataError
from btcai.features.pipeline import build_market
from btcai.features.table import FEATURE_NAMES, WARMUP_BARS
from btcai.holdings import NOT_ALLOWED, account_at_close, settle
from btcai.market.account import OPEN_LONG, OPEN_SHORT, PENDING
from btcai.market.rules import Rules
from btcai.market.single import observe_one, packed
from btcai.market.sizing import lot_sizes
from btcai.schema import (
    ACCOUNT_FEATURES,
    BAR_NS,
    BAR_SECONDS,
    BARS_PER_DAY,
    TOKENS,
    Action,
    Bars,
    Decision,
    Float32Array,
    FloatArray,
    Forecast,
    MarketData,
)

MANIFEST = "manifest.json"
if TYPE_CHECKING:
    import onnxruntime as ort

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


def tokens_of(features: Float32Array, patch_bars: int, *, copy: bool | None = True) -> Float32Array:
    """Feature rows (N * patch_bars, F) -> one stretch of tokens (1, N, patch_bars, F); copy as np.array has it."""
    rows, n_features = features.shape
    if rows % patch_bars or rows < TOKENS * patch_bars:
        raise DataError(
            f"a stretch must be whole patches of {patch_bars} bars, at least {TOKENS} of them, was {rows} rows; "
            f"pass at least {TOKENS * patch_bars} rows that end at a decision time"
        )
    return np.array(features, dtype=np.float32, copy=copy).reshape(1, rows // patch_bars, patch_bars, n_features)


class Versions(BaseModel):
    """Hashes of what a bundle was made from; more of them may be noted than deciding needs."""

    data: str


class Manifest(BaseModel):
    """What deciding reads of manifest.json; the rest of the file is for people."""

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

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.bucket = manifest.bucket
        self.settings = manifest.bucket_config
        self.patch_bars = self.settings.patch_bars
        self.lookback_bars = self.settings.lookback_bars
        self.horizons_bars = self.settings.horizons_bars
        self._encoder = session(folder / "encoder.onnx")
        self._head = session(folder / "head.onnx")
        given, wanted = (
            tuple(output.name for output in self._encoder.get_outputs()),
            tuple(Encoded.__dataclass_fields__),
        )
        if given != wanted:
            raise ArtifactError(
                f"an encoder must put out {', '.join(wanted)}, the one in {folder} puts out {', '.join(given)}: it was "
                "exported by another version of btcai; remake it with: btcai run"
            )

    @cached_property
    def version(self) -> str:
        """First 12 hex digits of the hash over the three graphs."""
        digest = hashlib.sha256("".join(self.manifest.sha256[name] for name in GRAPHS).encode())
        return digest.hexdigest()[:12]

    def encode(self, features: Float32Array) -> Encoded:
        """Raw feature rows ((D + 143) * patch_bars, F) -> D decision times."""
        arrays = self._encoder.run(None, {"tokens": tokens_of(features, self.patch_bars, copy=None)})
        return Encoded(*(array[0] for array in arrays))

    def head(self, latent: Float32Array, account: Float32Array) -> tuple[Float32Array, Float32Array]:
        """latent (B, Z), account (B, A) -> probabilities (B, 4), value (B,)."""
        probabilities, value = self._head.run(None, {"latent": latent, "account": account})
        return probabilities, value

    def probabilities(self, latent: Float32Array, account: Float32Array) -> Float32Array:
        """latent (B, Z), account (B, A) -> probabilities (B, 4) in the order of Action."""
        return self.head(latent, account)[0]


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_bundle(folder: Path) -> PolicyBundle:
    """Open a bundle; ArtifactError when it is missing, damaged, or made for other features."""
    manifest = _read_manifest(folder / MANIFEST)
    for name in GRAPHS:
        if not (folder / name).is_file() or file_sha256(folder / name) != manifest.sha256.get(name):
            raise ArtifactError(
                f"{folder / name} is missing or not the file its manifest names; remake it with: btcai run"
            )
    if manifest.feature_names != FEATURE_NAMES or manifest.warmup_bars != WARMUP_BARS:
        odd = sorted(set(manifest.feature_names) ^ set(FEATURE_NAMES)) or ["their order"]
        raise ArtifactError(
            f"a bundle must be made for this btcai's {len(FEATURE_NAMES)} features and {WARMUP_BARS} bars of warm-up, "
            f"the one in {folder} was made for {len(manifest.feature_names)} and {manifest.warmup_bars} (different: "
            f"{', '.join(odd[:3])}); remake it with: btcai run"
        )
    return PolicyBundle(folder, manifest)


def _read_manifest(path: Path) -> Manifest:
    if not path.is_file():
        raise ArtifactError(f"no bundle in {path.parent} ({MANIFEST} is missing); make one with: btcai run")
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ArtifactError(f"{path} is damaged ({where}: {first['msg']}); remake it with: btcai run") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); remake it with: btcai run") from error


Account = Mapping[str, Any] | None
"""As holdings.account_at_close reads it; None is a flat one with the bundle's equity."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a bundle sees at one decision time, before any account is known: nothing in it changes, so threads share it.

    data: lookback and warm-up up to the decision's bar; encoded: of that time alone; mark, sigma: of that bar.
    """

    bundle: PolicyBundle
    data: MarketData
    encoded: Encoded
    close_ts_ns: int
    mark: float
    sigma: float
    forecasts: tuple[Forecast, ...]

    @cached_property
    def lot(self) -> tuple[float, bool]:
        """Size of a lot as a share of equity, and whether one may be opened; made when an order asks for it."""
        bundle = self.bundle
        size_frac, allowed = sizes(
            bundle, bundle.settings, bundle.manifest.sizing, self.encoded, np.asarray(self.data.sigma[-1:])
        )
        return float(size_frac[-1]), bool(allowed[-1])


class AccountHalf(NamedTuple):
    """An account at a decision time: row (N_ACCOUNT,) and lots (max_lots, N_LOT) of the kernel, halts applied, and what
    the policy observes of them (1, A)."""

    row: FloatArray
    lots: FloatArray
    observation: Float32Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Considered:
    """A decision beside what it was taken on.

    data: lookback and warm-up up to the decision's bar; account (N_ACCOUNT,) and lots (max_lots, N_LOT): rows of the
    kernel at its close, before the order.
    """

    decision: Decision
    data: MarketData
    encoded: Encoded
    account: FloatArray
    lots: FloatArray


def decide(bundle: PolicyBundle, bars: Bars, account: Account = None) -> Decision:
    """The decision of `consider`."""
    return consider(bundle, bars, account).decision


def consider(bundle: PolicyBundle, bars: Bars, account: Account = None) -> Considered:
    """Decide at the close of the newest bar that falls on the bucket's clock, under the market's own rules.

    `account` describes the account at that close. DataError when fewer bars than lookback and warm-up are given.
    """
    bars = _until_decision(bars, bundle.patch_bars)
    needed = bundle.lookback_bars + WARMUP_BARS
    if len(bars) < needed:
        raise DataError(
            f"{bundle.bucket} needs {needed} bars (lookback {bundle.lookback_bars} + warm-up {WARMUP_BARS}) up to its "
            f"last decision time, was {len(bars)}; pass a longer file"
        )
    return consider_seen(look(bundle, build_market(_last(bars, needed))), account)


def look(bundle: PolicyBundle, data: MarketData) -> Seen:
    """Encode the decision time at the last bar of `data`, which holds lookback and warm-up."""
    encoded = bundle.encode(data.features[-bundle.lookback_bars :])
    return Seen(
        bundle=bundle,
        data=data,
        encoded=encoded,
        close_ts_ns=int(data.bars.close_ts_ns[-1]),
        mark=float(data.mark[-1]),
        sigma=float(data.sigma[-1]),
        forecasts=_forecasts(bundle.horizons_bars, encoded),
    )


def consider_seen(seen: Seen, account: Account = None) -> Considered:
    """The decision of one account; DataError names what is wrong with its description."""
    half = account_half(seen, account)
    before = half.row.copy()
    decision = decided(seen, half, *seen.bundle.head(seen.encoded.latent[-1:], half.observation))
    return Considered(decision=decision, data=seen.data, encoded=seen.encoded, account=before, lots=half.lots)


def account_half(seen: Seen, account: Account) -> AccountHalf:
    """The account half of a decision, before the head."""
    bundle, rules = seen.bundle, seen.bundle.manifest.rules
    described = {"cash_usdt": bundle.manifest.equity_usdt} if account is None else account
    day = (seen.close_ts_ns - BAR_NS) // (BAR_NS * BARS_PER_DAY)  # in which the bar opened
    row, lots = account_at_close(described, rules, seen.mark, day)
    observation = np.empty((1, len(ACCOUNT_FEATURES)), np.float32)
    observe_one(row, lots, seen.mark, seen.sigma, packed(rules), observation)
    return AccountHalf(row, lots, observation)


def decided(seen: Seen, half: AccountHalf, probabilities: Float32Array, value: Float32Array) -> Decision:
    """What the rules make of the likeliest action; probabilities (1, 4), value (1,). Writes the order into half.row."""
    bundle, row = seen.bundle, half.row
    wanted = Action(int(probabilities.argmax()))
    size_frac, allowed = seen.lot if wanted in (Action.BUY, Action.SELL) else (0.0, False)  # no other opens a lot
    action, note = settle(row, half.lots, wanted, size_frac, allowed, bundle.manifest.rules)
    if note == NOT_ALLOWED:
        note += _doubt(bundle, seen.encoded, seen.sigma)
    return Decision(
        bucket=bundle.bucket,
        close_ts_ns=seen.close_ts_ns,
        action=action,
        size_frac=size_frac if action is not Action.HOLD and row[PENDING] in (OPEN_LONG, OPEN_SHORT) else 0.0,
        probabilities=tuple(probabilities[0].tolist()),
        value=float(value[0]),
        forecasts=seen.forecasts,
        model_version=bundle.version,
        unfamiliarity=float(seen.encoded.unfamiliarity[-1]),
        data_version=bundle.manifest.versions.data,
        note=note,
    )


def _doubt(bundle: PolicyBundle, encoded: Encoded, sigma: float) -> str:
    """The figure for which market.sizing allows no lot."""
    limits, unfamiliarity = bundle.manifest.sizing, float(encoded.unfamiliarity[-1])
    uncertainty = float(encoded.std[-1, 0]) / (sigma * math.sqrt(bundle.horizons_bars[0]))
    if not math.isfinite(uncertainty) or not np.isfinite(encoded.mean[-1, 0]):
        return ": the forecast is not a finite number"
    if uncertainty > limits.max_uncertainty:
        return f": predicted uncertainty {uncertainty:.3g} is above {limits.max_uncertainty:g}"
    return f": the market's unfamiliarity {unfamiliarity:.3g} is above {limits.max_unfamiliarity:g}"


def sizes(
    policy: Policy, bucket: BucketConfig, sizing: SizingConfig, encoded: Encoded, sigma: FloatArray
) -> tuple[FloatArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Lot size (D,) as a share of equity and whether a lot may be opened (D,), from the shortest horizon's forecast."""
    return lot_sizes(
        encoded.mean[:, 0].astype(np.float64),
        encoded.std[:, 0].astype(np.float64),
        sigma,
        encoded.unfamiliarity.astype(np.float64),
        policy.horizons_bars[0],
        bucket.max_lots,
        sizing,
    )


def _forecasts(horizons_bars: tuple[int, ...], encoded: Encoded) -> tuple[Forecast, ...]:
    means, stds, quantiles = encoded.mean[-1].tolist(), encoded.std[-1].tolist(), encoded.quantiles[-1].tolist()
    return tuple(
        Forecast(horizon_bars=horizon, mean=mean, std=std, quantiles=tuple(levels))
        for horizon, mean, std, levels in zip(horizons_bars, means, stds, quantiles, strict=True)
    )


def _until_decision(bars: Bars, patch_bars: int) -> Bars:
    """Drop the bars after the last decision time of the absolute clock."""
    if len(bars) == 0:
        raise DataError("no bars to decide on; pass a file with bars")
    past = int(bars.close_ts_ns[-1] // 1_000_000_000 // BAR_SECONDS % patch_bars)
    return _last(bars, len(bars), drop=past)


def _last(bars: Bars, n: int, drop: int = 0) -> Bars:
    """The last n bars before the `drop` newest ones."""
    stop = len(bars) - drop
    rows = slice(max(0, stop - n), max(0, stop))
    return Bars(**{name: getattr(bars, name)[rows] for name in Bars.__dataclass_fields__})


def session(path: Path) -> "ort.InferenceSession":
    """A graph to run on one thread: fastest at batch 1."""
    telemetry_off()  # onnxruntime reads it as it is imported, so here and not above
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
