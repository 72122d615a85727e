"""Training the four buckets from the shortest to the longest, then letting all of them share what they learned."""

import copy
import hashlib
import logging
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numba
import numpy as np
import torch

from btcai.agent.kickstart import Kickstart
from btcai.agent.shards import shards
from btcai.agent.task import Task
from btcai.agent.transfer import at_full_cost, blend_trunk, gives_policy, hand_over, mean_trunk
from btcai.config import BucketConfig, Config
from btcai.features.scaling import Scaler
from btcai.features.splits import Splits
from btcai.logs import fields
from btcai.market.bars import bar_arrays
from btcai.market.rules import make_rules
from btcai.market.sizing import lot_sizes
from btcai.models.actor_critic import ActorCritic
from btcai.records.versions import code_sha256
from btcai.schema import BUCKETS, BoolArray, FloatArray, MarketData
from btcai.training.augmentation import augmented
from btcai.training.calibrating import calibrate
from btcai.training.checkpoint import load_model, new_model, require_device, save_model, set_up_torch
from btcai.training.convergence import Standing, gain, standing, surprises
from btcai.training.curves import Curves, record, write
from btcai.training.importance import write_gates, write_importance
from btcai.training.meta import shared_start
from btcai.training.play import validate
from btcai.training.pretraining import forecast_error
from btcai.training.resume import Checkpoints, run_key
from btcai.training.trainer import pretrain, train_ppo

log = logging.getLogger(__name__)


@fields.bound(bucket="bucket_name")
def train_bucket(
    data: MarketData,
    splits: Splits,
    scaler: Scaler,
    bucket_name: str,
    config: Config,
    teacher: Path | None,
    out: Path,
    checkpoints: Path | None = None,
    start: Path | None = None,
) -> dict[str, float]:
    """Train one bucket: hand-over from `teacher` (the previous bucket's folder), prediction, PPO, calibration.

    With a `start` (a folder with the bucket's own weights of an earlier run) it goes on from that in place of the
    hand-over, and keeps of it what further training does not significantly better.

    Writes model.safetensors, curves.csv, importance.csv and metrics.json into `out`; returns the metrics. All
    randomness comes from config.seed and the bucket's place in the order. A run that was killed goes on from its
    `checkpoints`, a folder that whoever moves `out` to its place removes afterwards.
    """
    require_device(config)
    data, splits = augmented(data, splits, config.augment, config.seed)
    rng = _start(config, "train", bucket_name)
    task = make_task(data, splits, bucket_name, config)
    model = new_model(config, bucket_name)
    set_scaler(model, scaler)
    kickstart, losses = None, {"valid_forecast_loss_fresh": _loss(model, task)}
    if start is not None:
        model = load_model(start, bucket_name, config).train()
        set_scaler(model, scaler)
        losses["valid_forecast_loss_warm"] = _loss(model, task)
    elif teacher is None and config.meta.rounds:
        _share_start(model, task, bucket_name, data, splits, scaler, config)
        losses["valid_forecast_loss_shared_start"] = _loss(model, task)
    elif teacher is not None:
        previous = BUCKETS[BUCKETS.index(bucket_name) - 1]
        bars = (config.buckets[name].target_bars for name in (previous, bucket_name))
        giver = load_model(teacher, previous, config)
        kickstart = hand_over(giver, model, config.transfer, *bars)
        losses["valid_forecast_loss_handed_over"] = _loss(model, task)
        if gives_policy(giver, config.transfer):
            config = _at_full_cost(config)
    curves: Curves = []
    goes_on = start is not None
    model, found = _to_convergence(model, task, config, rng, checkpoints, bucket_name, curves, kickstart, goes_on)
    judged = validate(model, task)
    metrics = {
        "parameters": model.n_parameters(),
        **found,
        **losses,
        "valid_forecast_loss": _loss(model, task),
        **{f"valid_{name}": value for name, value in asdict(judged).items()},
    }
    save_model(model, out)
    write_gates(out, model, data.feature_names)
    write(out, metrics, judged, curves)
    return metrics


def _share_start(
    model: ActorCritic,
    task: Task,
    bucket_name: str,
    data: MarketData,
    splits: Splits,
    scaler: Scaler,
    config: Config,
) -> None:
    """Start from where all buckets and regimes are near. A killed one begins anew: it takes seconds."""
    models, tasks = {bucket_name: model}, {bucket_name: task}
    for other in BUCKETS:
        if other != bucket_name:
            models[other], tasks[other] = new_model(config, other), make_task(data, splits, other, config)
            set_scaler(models[other], scaler)
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, *b"shared start"]))
    shared_start(models, tasks, config.pretrain, config.meta, rng)


@fields.bound(bucket="bucket_name")
def train_further(
    data: MarketData, splits: Splits, bucket_name: str, config: Config, trained: Path, out: Path, number: int
) -> float:
    """Round `number`, from 2, of prediction and PPO for the network in `trained`, which train_bucket or this one wrote.

    Writes model.safetensors into `out`; returns the prediction loss on the validation span.
    """
    require_device(config)
    data, splits = augmented(data, splits, config.augment, config.seed)
    model = load_model(trained, bucket_name, config).train()
    rng = _start(config, f"round {number}", bucket_name)
    task = make_task(data, splits, bucket_name, config)
    amounts = config.budget.pretrain_updates, config.budget.ppo_updates
    _teach(model, task, _at_full_cost(config), amounts, rng, None, f"{bucket_name}: round {number}, ", [])
    save_model(model, out)
    return _loss(model, task)


def consolidate(
    data: MarketData,
    splits: Splits,
    scaler: Scaler,
    config: Config,
    trained: Path,
    out: Path,
    checkpoints: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Rounds in which each bucket takes a share of the four trunks' mean and trains on; kept where it gains.

    As many as configured at most, and no more after one that helped nobody.

    Reads trained/BUCKET, writes out/BUCKET (the models that are judged); returns the metrics by bucket. `checkpoints`
    as in train_bucket.
    """
    require_device(config)
    data, splits = augmented(data, splits, config.augment, config.seed)
    models = {name: load_model(trained / name, name, config).train() for name in BUCKETS}
    curves: dict[str, Curves] = {name: [] for name in BUCKETS}
    tasks = {name: make_task(data, splits, name, config) for name in BUCKETS}
    results: dict[str, dict[str, float]] = {}
    budget = config.budget
    amounts = budget.consolidate_pretrain_updates, budget.consolidate_ppo_updates
    log.info("measuring what the four networks are worth as they were trained")
    rounds, share = config.consolidate.rounds if amounts[1] else 0, config.ppo.surprise_control
    missed = {name: surprises(models[name], tasks[name]) for name in BUCKETS if rounds}
    best = {name: standing(models[name], tasks[name], missed[name], share) for name in missed}
    judged = {name: validate(models[name], tasks[name]) for name in BUCKETS}
    for name in BUCKETS:
        score = judged[name].score
        results[name] = {"valid_score_before": score, "valid_score": score, "rounds_kept": 0.0}
    settings, helped = _at_full_cost(config), True
    for round_ in range(rounds):
        if not helped:
            break
        shared, helped = mean_trunk(list(models.values())), False
        for name in BUCKETS:
            rng = _start(config, f"consolidate {round_}", name)
            candidate = copy.deepcopy(models[name])
            blend_trunk(candidate, shared, config.consolidate.alpha)
            label = f"{name}: consolidation {round_ + 1}, "
            folder = checkpoints and checkpoints / f"{name}-{round_ + 1}"
            with fields.context(bucket=name):
                calibrated = _teach(candidate, tasks[name], settings, amounts, rng, folder, label, curves[name])
                found = standing(candidate, tasks[name], missed[name], share)
                gained = _gained(best[name], found, config, label)
            if gained:
                helped = True
                models[name], best[name], judged[name] = candidate, found, validate(candidate, tasks[name])
                kept = {"valid_score": judged[name].score, "rounds_kept": results[name]["rounds_kept"] + 1}
                results[name] |= {**kept, **calibrated}
    for place, name in enumerate(BUCKETS, start=1):
        log.info("%s, %d of %d: measuring how much each feature matters", name, place, len(BUCKETS))
        save_model(models[name], out / name)
        write_importance(out / name, models[name], tasks[name], data.feature_names, config.seed)
        write(out / name, results[name], judged[name], curves[name])
    return results


def _at_full_cost(config: Config) -> Config:
    return config.model_copy(update={"ppo": at_full_cost(config.ppo)})


def _to_convergence(
    model: ActorCritic,
    task: Task,
    config: Config,
    rng: np.random.Generator,
    checkpoints: Path | None,
    bucket_name: str,
    curves: Curves,
    kickstart: Kickstart | None,
    goes_on: bool,
) -> tuple[ActorCritic, dict[str, float]]:
    """Rounds of prediction and PPO until one gains nothing on the validation span, or there were enough.

    The first one is kept whatever it does, unless the network `goes_on` from a warm start. Returns the network after
    the last round that gained, and how much was trained (`converged`: 1 where a round gained nothing, 0 where the last
    one still did, nan where that was not asked) beside the calibration's figures.
    """
    budget = config.budget
    amounts, share = (budget.pretrain_updates, budget.ppo_updates), config.ppo.surprise_control
    if goes_on:
        done, figures = 0, calibrate(model, task)
    else:
        folder = checkpoints and checkpoints / "round-1"
        done, figures = 1, _teach(model, task, config, amounts, rng, folder, f"{bucket_name}: ", curves, kickstart)
    converged = float("nan")
    if budget.rounds > done:
        converged, missed = 0.0, surprises(model, task)
        best = standing(model, task, missed, share)
    while done < budget.rounds and not converged:
        done += 1
        candidate, label = copy.deepcopy(model), f"{bucket_name}: round {done}, "
        folder = checkpoints and checkpoints / f"round-{done}"
        calibrated = _teach(candidate, task, _at_full_cost(config), amounts, rng, folder, label, curves)
        found = standing(candidate, task, missed, share)
        if _gained(best, found, config, label):
            model, best, figures = candidate, found, calibrated
        else:
            converged = 1.0
    updates = {"rounds": done, "pretrain_updates": done * amounts[0], "ppo_updates": done * amounts[1]}
    trained = _amounts(config, task, updates["pretrain_updates"], updates["ppo_updates"])
    return model, {**updates, "converged": converged, **trained, **figures}


def _loss(model: ActorCritic, task: Task) -> float:
    """Of prediction, on the validation span."""
    with shards() as workers:
        return forecast_error(model, task, workers)


def _gained(before: Standing, after: Standing, config: Config, label: str) -> bool:
    """Whether training was worth its while, said in the log."""
    found = gain(before, after)
    kept = found.is_significant(config.convergence.level)
    forecast = _moved(-found.forecast, found.forecast, found.forecast_p)
    score = _moved(found.score, found.score, found.score_p)
    log.info("%sforecast loss %s, score %s: %s", label, forecast, score, "kept" if kept else "not kept")
    return kept


def _moved(by: float, better: float, p: float) -> str:
    """A difference with its sign and what that means; p as in convergence.Gain, where it can tell."""
    meaning = "unchanged" if better == 0 else "better" if better > 0 else "worse"
    return f"{by + 0.0:+.2g} ({meaning}, p {'-' if np.isnan(p) else format(p, '.2g')})"


def _teach(
    model: ActorCritic,
    task: Task,
    config: Config,
    updates: tuple[int, int],
    rng: np.random.Generator,
    checkpoints: Path | None,
    label: str,
    curves: Curves,
    kickstart: Kickstart | None = None,
) -> dict[str, float]:
    """Prediction and PPO, so many updates of each, with rows added to `curves`; returns the calibration's figures."""
    with model.encoder_on(config.device), kickstart.teacher.encoder_on(config.device) if kickstart else nullcontext():
        stored = _checkpoints(checkpoints, "prediction", config, task, [model])
        rows = pretrain(model, task, config.pretrain, updates[0], rng, stored)
        record(curves, rows, f"{label}prediction", updates[0])
        calibrate(model, task)  # lots are sized from the forecast, so that PPO meets the sizes that will be traded
        read = [model, kickstart.teacher] if kickstart else [model]
        stored = _checkpoints(checkpoints, "ppo", config, task, read)
        rows = train_ppo(model, task, config.ppo, updates[1], rng, stored, kickstart)
        record(curves, rows, f"{label}PPO", updates[1])
        return calibrate(model, task)


def make_task(data: MarketData, splits: Splits, bucket_name: str, config: Config) -> Task:
    """The bucket's view of the market at the configured cost severity; a float32 memory map of features stays one."""
    bucket = config.buckets[bucket_name]
    return Task(
        features=np.ascontiguousarray(data.features, dtype=np.float32),
        bars=bar_arrays(data),
        rules=make_rules(bucket, config.market, config.risk),
        bucket=bucket,
        train=splits.train,
        valid=splits.valid,
        sizes=partial(_sizes, bucket, config),
        equity_usdt=config.market.equity_usdt,
    )


def set_scaler(model: ActorCritic, scaler: Scaler) -> None:
    """Put the scaler fitted on the training span into the stem."""
    with torch.no_grad():
        model.stem.feature_mean.copy_(torch.from_numpy(scaler.mean))
        model.stem.feature_std.copy_(torch.from_numpy(scaler.std))


def _sizes(
    bucket: BucketConfig,
    config: Config,
    mean: FloatArray,
    std: FloatArray,
    sigma: FloatArray,
    unfamiliarity: FloatArray,
) -> tuple[FloatArray, BoolArray]:
    return lot_sizes(mean, std, sigma, unfamiliarity, bucket.horizons_bars[0], bucket.max_lots, config.sizing)


def _start(config: Config, part: str, bucket_name: str) -> np.random.Generator:
    """Torch and seeds of one part of training; parts do not share random numbers."""
    set_up_torch(config)
    key = [config.seed, BUCKETS.index(bucket_name), *part.encode()]
    weights, sampling = np.random.SeedSequence(key).spawn(2)
    torch.manual_seed(int(weights.generate_state(1)[0]))
    return np.random.default_rng(sampling)


def _checkpoints(
    folder: Path | None, phase: str, config: Config, task: Task, models: list[ActorCritic]
) -> Checkpoints | None:
    """Of a phase about to start: of this very run only, to the weights that it reads and the code it runs."""
    if folder is None:
        return None
    read = hashlib.sha256()
    weights = [weight.cpu() for model in models for weight in model.state_dict().values()]
    for array in (task.features, *task.bars, *weights):
        read.update(np.ascontiguousarray(array).data)
    key = run_key(
        settings=config.model_dump(mode="json"),
        spans=[asdict(task.train), asdict(task.valid)],
        read=read.hexdigest(),
        code=code_sha256(["."]),
        torch=torch.__version__,
        numpy=np.__version__,
        numba=numba.__version__,
        gpu=torch.cuda.get_device_name() if config.device == "cuda" else None,
    )
    return Checkpoints(folder=folder / phase, key=key)


def _amounts(config: Config, task: Task, pretrain_updates: int, ppo_updates: int) -> dict[str, float]:
    """How much was trained: distinct decision times met, and env steps (one account over one bar)."""
    ppo = config.ppo
    return {
        "decision_times": pretrain_updates * config.pretrain.stretches * config.pretrain.decisions
        + ppo_updates * ppo.stretches * ppo.decisions,
        "env_steps": ppo_updates * ppo.stretches * ppo.agents * (ppo.decisions - 1) * task.patch_bars,
    }
