"""Where every stage's files are, relative to the project's folder. Names only: nothing here touches a disk."""

from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")  # DATA / MARKET / YYYY-MM.parquet
VALIDATION = Path("reports/validation")  # report.json, metrics.json, index.html, data_docs/
DRIFT = Path("reports/drift")  # metrics.json, table.csv, forecasts.csv, drift.png
SIMULATION = Path("reports/simulation")  # metrics.json, facts.csv, giveaways.csv, comparison.png; no stage's output
ABLATION = Path("reports/ablation")  # SUBJECT / trials.jsonl, scores.csv, steps.csv, ablation.png; teachers
TUNING = Path("reports/tuning")  # SUBJECT / studies.log, trials.csv, tuning.png, population.*
FOLDS = Path("reports/folds")  # SCHEME.csv, SCHEME.png; trained / FOLD / BUCKET, judged.json
REJECTED = Path("reports/rejected")  # the same, of bars that broke a rule
FEATURES = Path("artifacts/features")  # features.npy, bars.npy, close_ts_ns.npy, scaler.json, meta.json
TRAIN = Path("artifacts/train")  # TRAIN / BUCKET / model.safetensors, metrics.json, curves, importance, system.csv
CONSOLIDATE = Path("artifacts/consolidate")  # the same, the models that are judged
CHECKPOINTS = Path("artifacts/.checkpoints")  # of training that has not ended, no outputs: CHECKPOINTS / STAGE / PHASE
EVALUATION = Path("reports/evaluation")  # metrics.json, summary/STRATEGY.json, *.csv, index.html, *.png
STARTS = Path("models/starts")  # NAME / BUCKET / model.safetensors, start.json: what trainings may go on from
CANDIDATE = Path("models/candidate")  # CANDIDATE / BUCKET / encoder.onnx, head.onnx, policy.onnx, manifest.json
CHAMPION = Path("models/champion")  # the same, and reflection/; what decide and serve read
REFLECTION = Path("artifacts/reflection")  # REFLECTION / BUCKET / memory.npz, adjustment.json; weights.csv
LEARNED = REFLECTION.name  # what a version learned, in its run and in its champion's folder
REGISTER = Path("reports/register.json")
REGISTERED = Path("models/champion/registered.json")  # which inputs are on record
TRIALS = Path("journal/trials.jsonl")  # every configuration ever tried
OPENINGS = Path("journal/openings.jsonl")  # every time that a sealed span was looked at
SEALED = Path("reports/sealed")  # what was found there
PROMOTIONS = Path("journal/promotions.jsonl")  # every change of champion, before it happened and after
RUN_LOCK = Path(
    ".prefect/run.lock"
)  # held while the files above are written; run.work, .json, .pause beside it: operation/run_lock.py
WEIGHTS = "model.safetensors"  # of a bucket's network, in TRAIN, CONSOLIDATE and STARTS
MLFLOW_DB = Path("mlflow/mlflow.db")  # the project's own record of runs and versions
SERVICES = Path(".prefect/services")  # SERVICE.json, SERVICE.log of what btcai up started
