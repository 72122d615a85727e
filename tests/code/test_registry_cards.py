"""What MLflow's pages say in words: numbers as the report prints them, undefined ones as a dash."""

from pathlib import Path

from registry_fakes import PARAMS, history, project

from btcai import paths
from btcai.inference.bundle import file_sha256
from btcai.params import load_config
from btcai.registry import cards
from btcai.registry.submission import Judged, Submission
from btcai.schema import BUCKETS

FIGURES = {
    **{"is_bucket": True, "net_return": -0.073, "cagr": None, "sharpe": -0.357, "sharpe_low": -3.754},
    **{"sharpe_high": 2.0, "sortino": None, "calmar": None, "max_drawdown_frac": 0.3021, "drawdown_bars": 9},
    **{"win_rate": 0.5, "profit_factor": None, "trades": 1300, "exposure_frac": 0.25, "turnover_per_year": 80.0},
    **{"cost_frac": 0.04, "costs_usdt": 4000.0, "fold_returns": [0.1, -0.1], "fold_sharpes": [1.0, None]},
    **{"cagr_low": None, "cagr_high": None, "max_drawdown_low": None, "max_drawdown_high": None},
    **{"expectancy_frac": None, "gross_return": 0.01, "break_even_bps": 2.0, "captured_frac": None},
    **{
        "needed_days": None,
        "underwater_bars": 9.0,
        "holding_bars": None,
        "walk_forward_score": 0.5,
        "did_not_trade": False,
        "note": "",
    },
}
VERDICT = {
    **{"edge": "none", "text": "no edge shown: it lost", "sharpe_differences": {}, "checks": [], "n_trials": 4},
    **{"smallest_edge": {"sharpe": None, "against": ""}},
    **{"over_champion": None, "random_twins": None, "loss_probability": None},
}


def test_the_results_are_a_verdict_a_bucket_and_a_row_a_strategy() -> None:
    strategies = {name: {"base": FIGURES, "optimistic": FIGURES} for name in (*BUCKETS, "cash")}
    strategies["long"]["base"] = FIGURES | {"did_not_trade": True, "sharpe": None}
    found = {
        **{"market": "btcusdt", "first_day": "2024-06-13", "last_day": "2024-11-08", "judged_severity": "base"},
        **{"strategies": strategies, "verdicts": dict.fromkeys(BUCKETS, VERDICT), "sealed_span": {"looks": 0}},
    }
    span, verdicts, table, _ = cards.results(found).split("\n\n")
    assert span == "btcusdt, 2024-06-13 to 2024-11-08, base costs; the sealed span is unread."
    assert verdicts.splitlines()[3] == "- **long**: no edge shown: it lost"
    head, _, scalping, *_, long, cash = table.splitlines()
    assert head.startswith("| strategy | net return | Sharpe | 95 % interval | max drawdown | win rate | trades |")
    rest = "-3.75 .. 2.00 | 30.2 % | 50 % | 1,300 | 25 % | 80.0 x | 4.0 % | 1 of 2 | 0.50 |"
    assert scalping == f"| scalping | -7.3 % | -0.36 | {rest}"
    assert long == f"| long (did not trade) | -7.3 % | - | {rest}"
    assert cash.startswith("| cash |")


def test_a_models_card_says_how_many_bars_it_takes_and_how_to_load_it() -> None:
    card = cards.model_card("long", load_config(PARAMS).buckets["long"], "btcai-long")
    assert "the newest 6,048 bars at least (lookback 4,032, warm-up 2,016)" in card
    assert "over 2016, 4032, 8064 bars" in card
    assert 'mlflow.pyfunc.load_model("models:/btcai-long@champion")' in card
    assert 'params={"account": JSON}' in card
    assert "The graphs take raw features, which they scale themselves, and put out calibrated log returns" in card
    assert "`io` in manifest.json says of each input and output what, its shape, unit and order" in card


def test_a_versions_card_says_the_verdict_and_the_bars() -> None:
    judged = Judged(
        score=0.51239,
        edge="none",
        metrics={"net_return": 0.05, "sharpe": float("nan"), "trades": 12.0},
        verdict="no edge shown: one fold of four was up",
    )
    submission = Submission(
        root=Path(),
        config=load_config(PARAMS),
        judged={"short": judged},
        history=history(),
        results="",
        code_version="c",
        judged_on="t",
        input_hash="i",
        lineage={},
    )
    verdict, figures, origin = cards.version_card(submission, "short").split("\n\n")
    assert verdict == "no edge shown: one fold of four was up"
    assert figures == (
        "Walk-forward score 0.5124; on the test span net return 5.0 %, Sharpe -, max drawdown -, 12 trades, "
        "after all costs."
    )
    assert "8,000 bars, 2022-01-01T00:00:00Z to 2022-01-28T18:35:00Z" in origin


def test_a_full_card_says_what_a_user_must_know_before_using_it(tmp_path: Path) -> None:
    config = project(tmp_path)
    metrics = {"sharpe": 0.5, "sharpe_low": -1.25, "sharpe_high": 2.25, "net_return": 0.071, "trades": 1300.0}
    judged = Judged(score=0.5, edge="none", metrics=metrics, verdict="no edge shown: two folds of four were up")
    submission = Submission(
        root=tmp_path,
        config=config,
        judged={"short": judged},
        history=history(),
        results="",
        code_version="c1",
        judged_on="t",
        input_hash="i",
        lineage={"git_commit": "1234567", "git_dirty": "true", "libraries": "numpy 2", "platform": "Linux"},
    )
    card = cards.full_card(submission, "short", "btcai-short")
    assert [line for line in card.splitlines() if line.startswith("#")] == [
        "# btcai-short",
        "## Verdict",
        "## Intended use",
        "## Figures",
        "## Limits",
        "## Data",
        "## How it was made",
        "## Files",
        "## How to use it",
    ]
    assert "no edge shown: two folds of four were up" in card
    assert "It stays on paper" in card
    assert "fewer than 2,304 of them" in card
    assert "| Sharpe ratio | 0.50 | -1.25 .. 2.25 |" in card
    assert "| net return | 7.1 % |  |" in card
    assert "| break-even cost a side, bp | - |  |" in card
    assert "Simulated fills at pessimistic costs (taker fee 10 bp" in card
    assert "8,000 five-minute bars, 2022-01-01T00:00:00Z to 2022-01-28T18:35:00Z" in card
    assert "- trained: 2023-11-14 22:13 to 22:13 UTC, 5 s" in card
    assert f"- by: `btcai run --profile {config.profile}`, seed {config.seed}" in card
    assert "- git commit: `1234567`, with changes of its own" in card
    assert f"| manifest.json | `{file_sha256(tmp_path / paths.CANDIDATE / 'short' / 'manifest.json')}` |" in card
    assert 'load_model("models:/btcai-short@champion")' in card
    assert len(card) < 5000  # what MLflow's databases hold of a description
