"""The command line: quick to answer, one line per error, and every change of a setting is printed."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from rich.console import Console
from typer.testing import CliRunner

from btcai import acquisition, cli, console, datasets, paths, summary, usage
from btcai.commands import decide, fetch, operate
from btcai.cross_validation import combinatorial_folds
from btcai.data.sources import read_bars
from btcai.data.store import changed
from btcai.errors import DataError
from btcai.operation import services
from btcai.params import load_config, set_param
from btcai.records.champions import Standing
from btcai.schema import BUCKETS, Action, Decision, Forecast, Span

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "mlflow",
    "prefect",
    "dvc",
    "numba",
    "onnxruntime",
    "great_expectations",
    "pydantic",
)

DECISION = Decision(
    bucket="scalping",
    close_ts_ns=1_700_000_100_000_000_000,  # 2023-11-14 22:15 UTC
    action=Action.BUY,
    size_frac=0.0125,
    probabilities=(0.25, 0.5, 0.125, 0.125),
    value=0.5,
    forecasts=(
        Forecast(horizon_bars=36, mean=0.001, std=0.01, quantiles=(-0.02, -0.01, -0.005, 0, 0.005, 0.01, 0.02)),
    ),
    unfamiliarity=0.75,
    model_version="abcdef012345",
    data_version="0123456789abcdef",
)


def standing(edge: str) -> Standing:
    fields = {
        "bucket": "scalping",
        "version": 3,
        "data_version": "d",
        "code_version": "c",
        "judged_on": "t",
        "score": 0.5,
        "run_id": "r",
    }
    return Standing(**fields, edge=edge)  # type: ignore[arg-type]


def run_python(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=cwd, text=True, capture_output=True, check=False)


def call(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """btcai in a process of its own, as a user runs it."""
    return run_python(
        f"import sys; from btcai.cli import main; sys.argv = ['btcai', *{list(arguments)!r}]; main()", cwd
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / paths.PARAMS, tmp_path / paths.PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was asked of DVC, which is not asked."""
    calls: list[tuple[str, ...]] = []

    def asked(root: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        calls.append(arguments)
        return 0

    monkeypatch.setattr(datasets, "_dvc", asked)
    return calls


def write_bars(path: Path, n: int = 600) -> None:
    opens = pd.date_range("2023-01-01", periods=n, freq="5min", tz="UTC", unit="ms")
    price = 20_000 + np.arange(n, dtype=np.float64)
    columns = {"open": price, "high": price + 2, "low": price - 2, "close": price + 1, "volume": 1.0}
    pd.DataFrame({"open_time": opens, **columns}).to_csv(path, index=False)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from btcai.cli import main; sys.argv = ['btcai', '--help']\n"
        f"try: main()\nfinally: sys.stderr.write(repr([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = run_python(script, tmp_path)
    assert "decide" in done.stdout
    assert done.stderr == "[]"
    assert "130 interrupted" in done.stdout


def test_outside_a_project_the_error_is_one_line(tmp_path: Path) -> None:
    done = call(tmp_path, "data", "status")
    elsewhere = f"no params.yaml in {tmp_path}: this is no btcai project; go to the project's folder"
    assert (done.returncode, done.stderr) == (1, f"error: {elsewhere}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        *("simulate market", "decide --bucket short --bars x.csv", "registry list", "registry history", "sealed list"),
        *("explain 1", "report", "serve --port 0", "status", "run", "registry verify", "registry gc --dry-run"),
        *("simulate facts one", "simulate compare one two", "simulate fit one", "data status", "drift"),
    ],
)
def test_outside_a_project_every_command_says_so_and_writes_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = CliRunner().invoke(cli.app, command.split()).exception
    assert str(failed) == f"no params.yaml in {tmp_path}: this is no btcai project; go to the project's folder"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "dvc.yaml").touch()
    failed = CliRunner().invoke(cli.app, command.split()).exception
    assert str(failed) == f"no params.yaml in {tmp_path}; restore it with: git checkout params.yaml"


def test_an_unknown_stage_names_those_there_are(project: Path) -> None:
    done = call(project, "stage", "tain@short")
    assert done.returncode == 1
    assert "must be one of validate, features, train@scalping" in done.stderr
    assert done.stderr.count("\n") == 1


def test_decide_without_a_champion_says_how_to_make_one(project: Path) -> None:
    done = call(project, "decide", "--bucket", "scalping", "--bars", "bars.csv")
    assert (done.returncode, done.stderr) == (1, "error: no champion for scalping; make one with: btcai run\n")


def test_decide_for_an_unknown_bucket_names_the_four(project: Path) -> None:
    done = call(project, "decide", "--bucket", "scalp", "--bars", "bars.csv")
    assert done.returncode == 1
    assert "scalping, short, medium, long" in done.stderr


@pytest.mark.slow
def test_deciding_needs_no_torch_mlflow_or_prefect(project: Path) -> None:
    (project / paths.CHAMPION / "short").mkdir(parents=True)
    script = (
        "import sys; from btcai.cli import main\n"
        "sys.argv = ['btcai', 'decide', '--bucket', 'short', '--bars', 'bars.csv']\n"
        "try: main()\n"
        "finally: sys.stdout.write(repr([m for m in ('torch', 'mlflow', 'prefect') if m in sys.modules]))"
    )
    done = run_python(script, project)
    assert "manifest.json is missing" in done.stderr
    assert done.stdout == "[]"


def test_ctrl_c_ends_with_130(project: Path) -> None:
    script = (
        "import sys; from btcai import cli, stages\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "stages.run_stage = interrupted; sys.argv = ['btcai', 'stage', 'validate']; cli.main()"
    )
    done = run_python(script, project)
    assert done.returncode == 130
    assert done.stderr == "interrupted: what was finished is kept; the same command goes on from there\n"


def test_version_is_printed(tmp_path: Path) -> None:
    assert call(tmp_path, "--version").stdout.startswith("btcai 0.")


def test_an_account_file_must_be_a_json_object(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match=r"one JSON object, .* holds a list"):
        decide.read_account(path)
    path.write_text('{"cash_usdt": 5}', encoding="utf-8")
    assert decide.read_account(path) == {"cash_usdt": 5}
    assert decide.read_account(None) is None


def test_the_servers_are_started_by_the_command_that_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console.show(summary.places_view(project, services.pages(project)))
    named = set(re.findall(r"btcai ([a-z-]+), then http", capsys.readouterr().out))
    assert named == {"up"}
    assert named <= {command.name or command.callback.__name__ for command in cli.app.registered_commands}


def test_an_unknown_profile_changes_nothing(project: Path) -> None:
    done = call(project, "run", "--profile", "huge")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert load_config(project / paths.PARAMS).profile == "quick"


def test_import_writes_the_market_pins_it_and_uses_it(
    project: Path, called: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_bars(project / "bars.csv")
    cli.data_import([project / "bars.csv"], market="btcusdt", timeframe="5m")
    assert "data.market: simulated -> btcusdt\n" in capsys.readouterr().out
    assert load_config(project / paths.PARAMS).data.market == "btcusdt"
    assert called == [("add", "data")]
    assert datasets.markets(project) == ["btcusdt"]
    with pytest.raises(DataError, match=r"must be one of 5m .* was 1h"):
        cli.data_import([project / "bars.csv"], market="btcusdt", timeframe="1h")
    with pytest.raises(DataError, match="no bars in data/other, markets here: btcusdt"):
        cli.data_use("other")


def test_status_of_a_clone_without_bars_says_where_they_come_from(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "data.dvc").touch()
    cli.data_status()
    assert capsys.readouterr().out.splitlines()[-1] == (
        "no bars are here; get them with: btcai simulate market, or dvc pull"
    )


def test_status_names_the_market_in_use(
    project: Path, called: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_bars(project / "bars.csv")
    cli.data_import([project / "bars.csv"], market="btcusdt", timeframe="5m")
    capsys.readouterr()
    cli.data_status()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("* ")
    assert "btcusdt" in shown[0]
    assert "data.dvc does not name these bars" in shown[-1]  # there is no data.dvc here


def test_a_missing_market_that_is_not_simulated_says_where_to_get_it(project: Path) -> None:
    set_param(project / paths.PARAMS, "data.market", "btcusdt")
    with pytest.raises(DataError, match="dvc pull"):
        datasets.ensure(project, load_config(project / paths.PARAMS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # DVC warns of its own deprecations
def test_pinning_with_dvc_itself(project: Path) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    write_bars(project / "bars.csv")
    assert not datasets.is_pinned(project)
    acquisition.import_files(project, [project / "bars.csv"], "btcusdt", "5m")
    assert datasets.is_pinned(project)
    pinned = yaml.safe_load((project / "data.dvc").read_text(encoding="utf-8"))
    assert pinned["outs"][0]["path"] == "data"
    next((project / "data" / "btcusdt").glob("*.parquet")).unlink()
    assert not datasets.is_pinned(project)


def test_decision_as_json_is_strict_and_names_the_action() -> None:
    found = json.loads(summary.decision_json(DECISION, standing("proven")))
    assert found["action"] == "BUY"
    assert found["edge"] == "proven"
    assert found["forecasts"][0]["quantiles"][0] == -0.02
    assert json.loads(summary.decision_json(DECISION, None))["edge"] == "none"


def test_decision_is_shown_with_all_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(summary.decision_view(DECISION, standing("none"), "flat (no --account given)"))
    shown = capsys.readouterr().out
    for part in ("2023-11-14 22:15 UTC", "buy, a lot of 1.25% of equity", "hold 25.0%, buy 50.0%", "close all 12.5%",
                 "flat (no --account given)", "scalping abcdef012345, version 3",
                 "familiar (0.75; 1 is exceeded one time in a hundred)", "3 h", "90% interval",
                 "trained on     bars 0123456789ab", "stays on paper"):  # fmt: skip
        assert part in shown
    # exp(.001 + .01^2 / 2) - 1; that times sqrt(exp(.01^2) - 1); exp(-.02) - 1 and exp(.02) - 1
    for part in ("+0.105%", "1.00%", "-1.98% .. +2.02%"):
        assert part in shown
    console.show(summary.decision_view(DECISION, standing("none"), "flat", market="btcusdt"))
    assert "trained on     btcusdt, bars 0123456789ab" in capsys.readouterr().out


def test_a_proven_edge_may_leave_paper(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(summary.decision_view(DECISION, standing("proven"), "a.json"))
    shown = capsys.readouterr().out
    assert "may leave paper" in shown
    assert "stays on paper" not in shown


def test_a_status_has_a_column_of_notes_where_there_is_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(note: str) -> list[services.Status]:
        return [services.Status(name="prefect", health="up", pid=7, url="http://here", note=note)]

    for note, columns in (("", 4), ("answers late", 5)):
        monkeypatch.setattr(services, "statuses", lambda root, note=note: found(note))
        operate.status(as_json=False)
        head = capsys.readouterr().out.splitlines()[1]
        assert len(head.strip("┃").split("┃")) == columns
        assert ("note" in head) == bool(note)


def test_what_each_bucket_trained(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.trained_view(project) is None
    folder = project / paths.TRAIN / "short"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(
        '{"ppo_updates": 24, "decision_times": 196608, "parameters": null, "rounds": 2, "converged": 1.0, '
        '"valid_forecast_loss_fresh": 1.75, "valid_forecast_loss_handed_over": 1.7, "valid_forecast_loss": 1.66251}',
        encoding="utf-8",
    )
    (folder / "system.csv").write_text(f"{','.join(usage.COLUMNS)}\n7,61.5,1,1,1,1,1\n", encoding="utf-8")
    table = summary.trained_view(project)
    assert table is not None
    console.show(table)
    shown = capsys.readouterr().out
    for part in ("197 k", "62 s", "yes", "1.7500", "1.7000", "1.6625"):
        assert part in shown
    (folder / "metrics.json").write_text('{"converged": null}', encoding="utf-8")
    table = summary.trained_view(project)
    assert table is not None
    console.show(table)
    assert not re.search("yes|no", capsys.readouterr().out.partition("short")[2])


def test_what_each_bucket_trained_is_whole_at_80_columns(project: Path) -> None:
    long_ago = {"rounds": 8, "decision_times": 123_456_789, "env_steps": 987_654_321, "converged": 1.0}
    losses = dict.fromkeys(("valid_forecast_loss_fresh", "valid_forecast_loss_handed_over", "valid_forecast_loss"), 1.5)
    for bucket in BUCKETS:
        folder = project / paths.TRAIN / bucket
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(long_ago | losses), encoding="utf-8")
        (folder / "system.csv").write_text(f"{','.join(usage.COLUMNS)}\n7,4321,1,1,1,1,1\n", encoding="utf-8")
    terminal = Console(width=80, record=True, file=StringIO())
    table = summary.trained_view(project)
    assert table is not None
    terminal.print(table)
    text = terminal.export_text()
    assert "…" not in text
    for part in ("scalping", "123.5 M", "987.7 M", "4,321 s", "yes", "scratch", "1.5000"):
        assert part in text


def test_no_paragraph_of_a_help_breaks_within_its_sentences_at_80_columns() -> None:
    """Typer keeps the line ends of every paragraph but the first, and wraps at 78 columns: lines must be shorter."""

    def broken(app: typer.Typer) -> list[str]:
        found = [
            name for group in app.registered_groups if group.typer_instance for name in broken(group.typer_instance)
        ]
        for command in app.registered_commands:
            for paragraph in (inspect.getdoc(command.callback) or "").split("\n\n")[1:]:
                lines = paragraph.split("\n")
                if len(lines) > 1 and max(map(len, lines)) > 78:
                    found.append(f"{command.name or command.callback}: {paragraph}")
        return found

    assert broken(cli.app) == []


def test_folds_of_two_groups_say_which_option_is_missing(project: Path) -> None:
    with pytest.raises(DataError, match="fewer than all 2 groups are tested at a time, was 2; add --test-groups 1"):
        combinatorial_folds(Span(0, 1_000), 2, 2, 0, 0)


def test_an_exchange_that_is_none_is_said_before_its_first_day_is_missed(project: Path) -> None:
    with pytest.raises(DataError, match=r"binnance is none of the \d+ exchanges that ccxt knows, like it: binance"):
        fetch.fetch(exchange="binnance")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # DVC warns of its own deprecations
def test_bars_that_nothing_has_on_record_are_pointed_out_before_a_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "check_enough", lambda root, config: None)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    write_bars(project / "bars.csv")
    acquisition.import_files(project, [project / "bars.csv"], "btcusdt", "5m")
    config = load_config(project / paths.PARAMS)
    assert datasets.ready(project, config) == [
        "data.dvc has changed since the last commit. Keep it with: git commit data.dvc params.yaml"
    ]
    for arguments in (["add", "data.dvc", "params.yaml"], ["commit", "-qm", "bars"]):
        subprocess.run([*git, *arguments], cwd=project, check=True, capture_output=True)
    assert datasets.ready(project, config) == []
    write_bars(project / "more.csv", 700)
    with changed(project / paths.DATA, "btcusdt", read_bars(project / "more.csv")):
        pass
    (note,) = datasets.ready(project, config)
    assert note.startswith("data/ is not what data.dvc names")
