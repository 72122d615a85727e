"""What a bundle's graphs take and put out, for whoever runs them without btcai: `io` of the manifest and of each graph.

Names, types and shapes are read from the graphs themselves; the words beside them are here. Formulas are Python with
numpy's names.
"""

import json
from pathlib import Path
from typing import Any

import onnx

from btcai.config import BucketConfig, SizingConfig
from btcai.features.scaling import CLIP
from btcai.inference.bundle import GRAPHS
from btcai.market.risk import MIN_LOT_FRAC
from btcai.market.rules import Rules
from btcai.market.sizing import KELLY_SHARE
from btcai.schema import ACCOUNT_FEATURES, BAR_SECONDS, BARS_PER_YEAR, TOKENS, Action

READ_FIRST = (
    "Features go in RAW, as btcai.features.pipeline.build_market makes them: scaler, clip and mask are applied in the "
    "graph. Forecasts come out as calibrated log returns: nothing is left to scale, to calibrate or to multiply by "
    "sigma. Whoever does either again gets wrong numbers without an error."
)

SCALER = f"clip((x - mean) / std, -{CLIP:g}, {CLIP:g}) * mask"
CALIBRATION = "mean / temperature, std * std_factor, sort(quantiles + quantile_offset), each * unit"
"""What the graphs do with the numbers that the manifest keeps for the record."""

ACCOUNT = {
    "cash_frac": "cash / equity",
    "lots_frac": "lots / max_lots",
    "open_return_sigmas": "clip(mean(mark / entry - 1) / (sigma * sqrt(patch_bars)), -5, 5) if lots else 0",
    "oldest_return_sigmas": "clip((mark / entry[0] - 1) / (sigma * sqrt(patch_bars)), -5, 5) if lots else 0",
    "drawdown_frac": "1 - equity / peak_equity",
    "goal_progress": "clip((equity / start_equity - 1) / goal_frac, -1, 1)",
    "decisions_since_trade": "log1p(decisions_since_fill) / 5",
    "can_buy": "float(can_open)",
    "can_sell": "float(not order_waits if lots else allow_short and can_open)",
}
"""Of an account that is long or flat; of a short one market.kernel.observe_at has the formulas."""

LEAST = f"max(min_notional_usdt, {MIN_LOT_FRAC:g} * start_equity)"
CAN_OPEN = (
    "not order_waits and not halted and lots < max_lots and cash > least * (1 + taker_fee_frac) "
    "and max_exposure_frac * equity - (equity - cash) > least"
)
"""market.risk.can_open, and the smallest lot."""

ACCOUNT_NAMES = (
    "cash, equity = cash + btc held * mark, peak_equity, start_equity: USDT; mark: last close, USDT; lots: number of "
    "open ones; entry: their fill prices, USDT, oldest first; sigma: exp(log_sigma) of the newest row; max_lots, "
    "goal_frac, patch_bars, allow_short, taker_fee_frac, max_exposure_frac, min_notional_usdt: of rules; "
    "decisions_since_fill: decisions since the last fill or, without one, the start; order_waits: for its fill; "
    f"halted: a halt of rules runs; can_open: {CAN_OPEN}; least: {LEAST}"
)

_VOLATILITY = f"target_volatility / (sigma * sqrt({BARS_PER_YEAR}))"

SIZE_FRAC = {
    "confidence_adjusted": f"min(1, {_VOLATILITY}) * norm.cdf(mean / std) / max_lots",
    "uncertainty_adjusted": f"min(1, {_VOLATILITY} / max(1, uncertainty)) / max_lots",
    "full_probabilistic": f"min(1, {_VOLATILITY}, max(0, {KELLY_SHARE:g} * (mean / std**2 + 0.5))) / max_lots",
    "fixed": "min(1, target_volatility) / max_lots",
}
"""market.sizing's lot, by strategy."""

SIZE_NAMES = (
    "share of equity of the lot that an entry opens; mean, std: of the shortest horizon, horizons_bars[0]; sigma: "
    "exp(log_sigma) of the newest row; uncertainty: std / (sigma * sqrt(horizons_bars[0])); target_volatility: of "
    "sizing; max_lots: of rules"
)


FINITE = "isfinite(mean) and isfinite(std) and isfinite(sigma) and std > 0 and sigma > 0"
"""Of a forecast; size_frac is 0 without it."""

OPENS = "action == 'BUY' and btc >= 0 or action == 'SELL' and btc <= 0 and allow_short"
"""Which actions market.kernel.place takes for an entry; the others close lots, which nothing forbids."""


def describe(folder: Path, bucket: BucketConfig, rules: Rules, sizing: SizingConfig) -> dict[str, Any]:
    """`io` of the manifest for the graphs in `folder`; writes into each graph what it says of it.

    A graph's part is its metadata `io` (JSON) and its doc string READ_FIRST: the same graphs get the same bytes.
    """
    graphs = {}
    for name in GRAPHS:
        proto = onnx.load(folder / name)
        graphs[name] = _said(proto, _words(bucket, rules, _WINDOWS.get(name, "")))
        proto.doc_string = READ_FIRST
        onnx.helper.set_model_props(proto, {"io": json.dumps(graphs[name], sort_keys=True)})
        (folder / name).write_bytes(proto.SerializeToString(deterministic=True))
    return {"read_first": READ_FIRST, "graphs": graphs, "decision": _decision(bucket, sizing)}


def _said(proto: onnx.ModelProto, words: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each input and output of a graph: dtype and shape as the graph has them, and the words for its name."""
    sides = {"inputs": proto.graph.input, "outputs": proto.graph.output}
    return {side: {value.name: _tensor(value) | words[value.name] for value in found} for side, found in sides.items()}


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return {"dtype": dtype.name, "shape": [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]}


_WINDOWS = {
    "encoder.onnx": f"at least {TOKENS} patches, and as many decision times as patches less {TOKENS - 1}",
    "policy.onnx": f"exactly {TOKENS} patches, and one decision time at their end",
}
"""How many patches a graph takes."""


def _words(bucket: BucketConfig, rules: Rules, windows: str) -> dict[str, dict[str, Any]]:
    """By the name of an input or output, of a graph that takes `windows`."""
    of_return = {"unit": "log return over each horizon", "calibration_applied_in_graph": True}
    horizons = f"horizons of {', '.join(map(str, bucket.horizons_bars))} bars"
    return {
        "tokens": {
            "what": f"feature rows in patches of {bucket.patch_bars} bars; {windows}",
            "unit": "raw features, float32, as build_market makes them",
            "order": "patches oldest first, bars in a patch oldest first, the last bar the decision's; features as in "
            "feature_names, the mask (1 = the bar is there) last",
            "scaler_applied_in_graph": True,
        },
        "account": {
            "what": "the account at the decision's close, " + ACCOUNT_NAMES,
            "unit": "none",
            "order": list(ACCOUNT_FEATURES),
            "formulas": ACCOUNT,
            "flat": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, float(rules.allow_short)],
        },
        "latent": {"what": "the market half, from encoder to head", "unit": "none", "order": "of no meaning"},
        "gates": {
            "what": "shares of the branches in the latent",
            "unit": "share, 1 in all",
            "order": "convolution, LSTM, attention",
        },
        "mean": {"what": "predicted mean", "order": horizons, **of_return},
        "std": {"what": "predicted standard deviation", "order": horizons, **of_return},
        "quantiles": {"what": "predicted quantiles", "order": f"{horizons}; then as quantile_levels", **of_return},
        "unfamiliarity": {
            "what": "how unlike the training span the market is to the network",
            "unit": "1 is exceeded one time in a hundred on the validation span",
            "order": "one a decision time",
        },
        "probabilities": {
            "what": "chance of each action; can_buy and can_sell of the account are applied in the graph",
            "unit": "share, 1 in all",
            "order": [action.name for action in Action],
        },
        "value": {"what": "expected discounted reward", "unit": "reward", "order": "one an account"},
    }


def _decision(bucket: BucketConfig, sizing: SizingConfig) -> dict[str, Any]:
    """From the outputs to an order."""
    return {
        "clock": f"decide where close_time_s // {BAR_SECONDS} % {bucket.patch_bars} == 0, close_time_s the close of "
        "the newest bar in seconds since 1970 UTC; later bars wait for the next such close",
        "action": "argmax of probabilities; HOLD where that opens a lot and not (entry_allowed and size_frac > 0)",
        "opens": OPENS,
        "opens_names": "action: its name; btc: held, below 0 where short; allow_short: of rules",
        "size_frac": SIZE_FRAC[sizing.strategy],
        "size_frac_names": SIZE_NAMES,
        "entry_allowed": f"{FINITE} and uncertainty <= {sizing.max_uncertainty:g} "
        f"and unfamiliarity <= {sizing.max_unfamiliarity:g}",
        "account": "halts and limits of rules are the caller's to apply, by can_buy and can_sell",
    }
