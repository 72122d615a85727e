"""Policies as evaluation and live trading see them, and the ONNX bundle that is one. numpy and onnxruntime only."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from btcai.config import BucketConfig, SizingConfig
from btcai.environment import telemetry_off
from btcai.errors import ArtifactError, DataError
from btcai.features.pipeline import FEATURE_NAMES, WARMUP_BARS, build_market
from btcai.market.account import (
    CASH,
    EQUITY,
    LOT_BTC,
    LOT_COST_USDT,
    LOT_ENTRY_PRICE,
    N_LOTS,
    PEAK_EQUITY,
    START_EQUITY,
    equity_usdt,
    new_accounts,
)
from btcai.market.kernel import Rules, bar_arrays, observe
from btcai.market.sizing import lot_sizes
from btcai.schema import (
    ACCOUNT_FEATURES,
    BAR_SECONDS,
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What a stretch of market says at each of its D decision times, before any account is known.

    latent (D, Z) float32; gates (D, 3): shares of the convolution, LSTM and attention branches; mean, std (D, H) and
    quantiles (D, H, Q): of the log return over each horizon, calibrated.
    """

    latent: Float32Array
    gates: Float32Array
    mean: Float32Array
    std: Float32Array
    quantiles: Float32Array

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


def tokens_of(features: Float32Array, patch_bars: int) -> Float32Array:
    """Feature rows (N * patch_bars, F) -> one stretch of tokens (1, N, patch_bars, F)."""
    rows, n_features = features.shape
    if rows % patch_bars or rows < TOKENS * patch_bars:
        raise DataError(
            f"a stretch must be whole patches of {patch_bars} bars, at least {TOKENS} of them, was {rows} rows; "
            f"pass at least {TOKENS * patch_bars} rows that end at a decision time"
        )
    return np.array(features, dtype=np.float32).reshape(1, rows // patch_bars, patch_bars, n_features)


class PolicyBundle:
    """A bucket's exported model: encoder and head run by ONNX Runtime, one thread (fastest at batch 1)."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.bucket: str = manifest["bucket"]
        self.settings = BucketConfig.model_validate(manifest["bucket_config"])
        self.patch_bars = self.settings.patch_bars
        self.lookback_bars = self.settings.lookback_bars
        self.horizons_bars = self.settings.horizons_bars
        self._encoder = session(folder / "encoder.onnx")
        self._head = session(folder / "head.onnx")

    @property
    def version(self) -> str:
        """First 12 hex digits of the hash over the three graphs."""
        digest = hashlib.sha256("".join(self.manifest["sha256"][name] for name in GRAPHS).encode())
        return digest.hexdigest()[:12]

    def encode(self, features: Float32Array) -> Encoded:
        """Raw feature rows ((D + 143) * patch_bars, F) -> D decision times."""
        arrays = self._encoder.run(None, {"tokens": tokens_of(features, self.patch_bars)})
        latent, gates, mean, std, quantiles = (array[0] for array in arrays)
        return Encoded(latent=latent, gates=gates, mean=mean, std=std, quantiles=quantiles)

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
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise ArtifactError(f"no bundle in {folder} ({MANIFEST} is missing); make one with: btcai run")
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{manifest_path} is not valid JSON ({error}); remake it with: btcai run") from error
    for name in GRAPHS:
        if not (folder / name).is_file() or file_sha256(folder / name) != manifest["sha256"][name]:
            raise ArtifactError(
                f"{folder / name} is missing or not the file its manifest names; remake it with: btcai run"
            )
    if tuple(manifest["feature_names"]) != FEATURE_NAMES or manifest["warmup_bars"] != WARMUP_BARS:
        raise ArtifactError(
            f"the bundle in {folder} was made for other features than this btcai; remake it with: btcai run"
        )
    return PolicyBundle(folder, manifest)


def decide(bundle: PolicyBundle, bars: Bars, account: dict[str, Any] | None = None) -> Decision:
    """Decide at the close of the newest bar that falls on the bucket's clock.

    `account` is {"cash_usdt", "equity_start_usdt", "peak_equity_usdt", "lots": [{"btc", "entry_price"}]}; None is flat.
    DataError when fewer bars than lookback and warm-up are given.
    """
    bars = _until_decision(bars, bundle.patch_bars)
    needed = bundle.lookback_bars + WARMUP_BARS
    if len(bars) < needed:
        raise DataError(
            f"{bundle.bucket} needs {needed} bars (lookback {bundle.lookback_bars} + warm-up {WARMUP_BARS}) up to its "
            f"last decision time, was {len(bars)}; pass a longer file"
        )
    data = build_market(_last(bars, needed))
    encoded = bundle.encode(data.features[-bundle.lookback_bars :])
    observation, size_frac, allowed = _account_half(bundle, data, encoded, account)
    probabilities, value = bundle.head(encoded.latent[-1:], observation[None])
    action = Action(int(probabilities[0].argmax()))
    if action is Action.BUY and not allowed:
        action = Action.HOLD
    return Decision(
        bucket=bundle.bucket,
        close_ts_ns=int(data.bars.close_ts_ns[-1]),
        action=action,
        size_frac=size_frac if action is Action.BUY else 0.0,
        probabilities=tuple(float(p) for p in probabilities[0]),
        value=float(value[0]),
        forecasts=_forecasts(bundle.horizons_bars, encoded),
        model_version=bundle.version,
        data_version=bundle.manifest["versions"]["data"],
    )


def _account_half(
    bundle: PolicyBundle, data: MarketData, encoded: Encoded, account: dict[str, Any] | None
) -> tuple[Float32Array, float, bool]:
    """The account's observation at the last bar, and the size and permission of a lot bought there."""
    rules = Rules(**bundle.manifest["rules"])
    if account is None:
        account = {"cash_usdt": bundle.manifest["equity_usdt"]}
    row, lots = account_rows(account, rules.max_lots, float(data.mark[-1]))
    observation = np.empty(len(ACCOUNT_FEATURES), np.float32)
    observe(row, lots, bar_arrays(data), len(data) - 1, rules, observation)
    size_frac, allowed = sizes(
        bundle, bundle.settings, SizingConfig(**bundle.manifest["sizing"]), encoded, data.sigma[-1:]
    )
    return observation, float(size_frac[-1]), bool(allowed[-1] and size_frac[-1] > 0.0)  # as the market's `place`


def account_rows(account: dict[str, Any], max_lots: int, mark: float) -> tuple[FloatArray, FloatArray]:
    """A described account as kernel rows, valued at `mark`; DataError names what is wrong with the description."""
    known = {"cash_usdt", "equity_start_usdt", "peak_equity_usdt", "lots"}
    if unknown := set(account) - known:
        raise DataError(f"an account holds {', '.join(sorted(known))}; remove {', '.join(sorted(unknown))}")
    if "cash_usdt" not in account:
        raise DataError('an account needs "cash_usdt"; an empty one is {"cash_usdt": 100000}')
    lots = account.get("lots", [])
    if not isinstance(lots, list) or any(
        not isinstance(lot, dict) or set(lot) - {"btc", "entry_price"} for lot in lots
    ):
        raise DataError(f'account: lots must be a list of {{"btc": ..., "entry_price": ...}}, was {lots!r:.80}')
    if len(lots) > max_lots:
        raise DataError(
            f"this bucket holds at most {max_lots} open lots, the account has {len(lots)}; close some first"
        )
    rows, lot_rows = new_accounts(1, max_lots, 0.0)
    row, lot_row = rows[0], lot_rows[0]
    row[CASH] = _amount(account["cash_usdt"], "cash_usdt", least=0.0)
    for k, lot in enumerate(lots):
        lot_row[k, LOT_BTC] = _amount(lot.get("btc"), f"lots[{k}].btc", least=1e-12)
        lot_row[k, LOT_ENTRY_PRICE] = _amount(lot.get("entry_price"), f"lots[{k}].entry_price", least=1e-12)
        lot_row[k, LOT_COST_USDT] = lot_row[k, LOT_BTC] * lot_row[k, LOT_ENTRY_PRICE]
    row[N_LOTS] = len(lots)
    row[EQUITY] = equity_usdt(row, lot_row, mark)
    if row[EQUITY] <= 0.0:  # every share of the observation is of it
        raise DataError("an account must be worth more than nothing: give cash_usdt above 0 or its open lots")
    row[START_EQUITY] = _amount(account.get("equity_start_usdt", row[EQUITY]), "equity_start_usdt", least=1e-12)
    row[PEAK_EQUITY] = max(row[EQUITY], _amount(account.get("peak_equity_usdt", 0.0), "peak_equity_usdt", least=0.0))
    return row, lot_row


def _amount(value: object, name: str, least: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) and value >= least:
        return float(value)
    raise DataError(f"account: {name} must be a finite number of at least {least:g}, was {value!r}")


def sizes(
    policy: Policy, bucket: BucketConfig, sizing: SizingConfig, encoded: Encoded, sigma: FloatArray
) -> tuple[FloatArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Lot size (D,) as a share of equity and whether a lot may be opened (D,), from the shortest horizon's forecast."""
    return lot_sizes(
        encoded.mean[:, 0].astype(np.float64),
        encoded.std[:, 0].astype(np.float64),
        sigma,
        policy.horizons_bars[0],
        bucket.max_lots,
        sizing,
    )


def _forecasts(horizons_bars: tuple[int, ...], encoded: Encoded) -> tuple[Forecast, ...]:
    return tuple(
        Forecast(
            horizon_bars=horizon,
            mean=float(encoded.mean[-1, h]),
            std=float(encoded.std[-1, h]),
            quantiles=tuple(float(q) for q in encoded.quantiles[-1, h]),
        )
        for h, horizon in enumerate(horizons_bars)
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
