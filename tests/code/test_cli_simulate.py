"""`btcai simulate`: markets that things happen to, made again under the same name, fitted, and held beside another."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from btcai import cli, datasets, paths
from btcai.data.funding import read_funding
from btcai.data.store import content_sha256, read_market, write_market
from btcai.errors import DataError
from btcai.params import load_config
from btcai.simulator.bars import DEFAULT_BARS, DEFAULT_SEED, simulate_bars
from btcai.simulator.facts import BANDS
from btcai.simulator.parameters import MarketParameters

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DVC does nothing here."""
    shutil.copy(ROOT / paths.PARAMS, tmp_path)
    monkeypatch.setattr(datasets, "_dvc", lambda *arguments, **options: 0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_scenario_makes_a_market_of_its_own_in_use_and_the_next_replaces_it(project: Path) -> None:
    said = call("simulate", "market", "--scenario", "flash_crash", "--scenario", "outages", "--days", "90")
    market = "simulated_flash_crash_outages"
    assert f"{market}: " in said
    assert " events, " in said
    assert load_config(project / paths.PARAMS).data.market == market
    first = content_sha256(read_market(project / paths.DATA, market))
    call("simulate", "market", "--scenario", "flash_crash", "--scenario", "outages", "--days", "90", "--seed", "8")
    assert content_sha256(read_market(project / paths.DATA, market)) != first
    call("simulate", "market", "--scenario", "flash_crash", "--scenario", "outages", "--days", "90")
    assert content_sha256(read_market(project / paths.DATA, market)) == first


def test_the_default_market_takes_the_place_of_an_older_default(project: Path) -> None:
    write_market(project / paths.DATA, "simulated", simulate_bars(500, 3))
    assert "341,280 bars added, now 341,280" in call("simulate", "market")
    bars = read_market(project / paths.DATA, "simulated")
    assert content_sha256(bars) == content_sha256(simulate_bars(DEFAULT_BARS, DEFAULT_SEED))


def test_a_swap_has_funding_rates_and_parameters_of_a_file_are_used(project: Path) -> None:
    Path("mine.json").write_text(json.dumps({"first_price_usdt": 100.0}))
    said = call("simulate", "market", "--parameters", "mine.json", "--days", "3", "--swap")
    assert "note: nothing can be trained yet: 864 bars are too few" in said
    bars = read_market(project / paths.DATA, "simulated_own_swap")
    assert abs(bars["open"].iloc[0] - 100.0) < 0.02
    funding = read_funding(project / paths.DATA / "simulated_own_swap")
    assert funding is not None
    assert len(funding[0]) == 9


def test_bars_that_cannot_be_made_again_are_not_replaced(project: Path) -> None:
    write_market(project / paths.DATA, "btcusdt", simulate_bars(10, 1))
    with pytest.raises(DataError, match="a simulated market's name must begin with simulated_, was btcusdt"):
        call("simulate", "market", "--days", "3", "--market", "btcusdt")
    assert len(read_market(project / paths.DATA, "btcusdt")) == 10


def test_facts_of_two_markets_stand_side_by_side(project: Path) -> None:
    write_market(project / paths.DATA, "one", simulate_bars(21_000, 1))
    write_market(project / paths.DATA, "two", simulate_bars(21_000, 2))
    lines = call("simulate", "facts", "one", "two").splitlines()
    head = next(line for line in lines if "band" in line)
    assert head.index("one") < head.index("two") < head.index("band")
    row = next(line for line in lines if "variance ratio 288" in line)
    assert len([cell for cell in row.split() if cell.replace(".", "").isdigit()]) >= 4


def test_a_market_is_not_compared_with_itself(project: Path) -> None:
    with pytest.raises(DataError, match="a market is compared with another one, was one twice"):
        call("simulate", "compare", "one", "one")


def test_a_fitted_market_is_more_like_the_history_than_the_default(project: Path) -> None:
    wild = MarketParameters(annual_volatility=0.9, mean_volume_btc=900.0)
    write_market(project / paths.DATA, "history", simulate_bars(21_000, 5, wild))
    said = call("simulate", "fit", "history", "--seeds", "1", "--rounds", "1", "--out", "like.json")
    before, after = map(float, re.findall(r"distance ([\d.]+) -> ([\d.]+) half widths", said)[0])
    assert after < before
    found = MarketParameters.from_file(Path("like.json"))
    assert found.annual_volatility > 0.6
    made = simulate_bars(21_000, 0, found)
    assert made["volume"].mean() == pytest.approx(
        read_market(project / paths.DATA, "history")["volume"].mean(), rel=1e-3
    )
    assert "volatility" in said


@pytest.mark.slow
def test_a_comparison_names_what_tells_two_markets_apart_and_leaves_its_figures(project: Path) -> None:
    write_market(project / paths.DATA, "one", simulate_bars(21_000, 1))
    write_market(project / paths.DATA, "two", simulate_bars(21_000, 2, MarketParameters(follow_mean=0.9)))
    said = call("simulate", "compare", "one", "two", "--giveaways", "1")
    folder = project / paths.SIMULATION
    found = json.loads((folder / "metrics.json").read_text())
    assert found["markets"] == ["one", "two"]
    assert found["auc"] > 0.9  # a bar's steps follow each other: bodies without wicks
    assert found["giveaways"][0] in {"body", "upper_wick", "bar_range", "parkinson_std_72", "corwin_schultz_288"}
    assert found["giveaways"][0] in said
    facts = (folder / "facts.csv").read_text().splitlines()
    assert facts[0] == "fact,one,two,least,most"
    assert len(facts) == 1 + len(BANDS)
    assert (folder / "giveaways.csv").read_text().startswith("feature,auc,mean_one,mean_two,spread_one,")
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_parameters_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "market.json"
    mine = MarketParameters(annual_volatility=0.7, regime_days=(1.0, 2.0, 3.0))
    path.write_text(mine.to_json())
    assert MarketParameters.from_file(path) == mine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON of a market's parameters"),
        ("[1]", "parameters of a simulated market alone, was list"),
        ('{"volatility": 1}', "parameters of a simulated market alone, was volatility"),
        ('{"annual_volatility": "high"}', "must hold numbers"),
        ('{"annual_volatility": -1}', r"annual_volatility of a simulated market must be above 0, was -1"),
        (
            '{"slow_weight": 0.5}',
            "slow_weight of a simulated market must be at least 0, both weights at most 1, was 0.5",
        ),
        ('{"regime_scale": [0.5, 1.0]}', r"regime_scale of a simulated market must be 3 numbers, was \(0.5, 1.0\)"),
        ('{"drift_per_year": [0, NaN, 0]}', "drift_per_year of a simulated market must be finite"),
        ('{"mean_volume_btc": Infinity}', "mean_volume_btc of a simulated market must be finite"),
        ('{"tide_scale": [0, 1, 2]}', r"tide_scale of a simulated market must be above 0, was \(0, 1, 2\)"),
        ('{"volume_noise": 1.5}', "volume_noise of a simulated market must be in 0 .. 1, was 1.5"),
        ('{"shock_cap": -1}', "shock_cap of a simulated market must be at least 0"),
        ('{"hour_scale": [1]}', r"hour_scale of a simulated market must be 24 numbers above 0, was \(1,\)"),
    ],
)
def test_broken_parameters_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "market.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        MarketParameters.from_file(path)


def test_volatility_is_what_the_parameters_say() -> None:
    """Twice the volatility, twice the moves: to first order, as jumps and shocks scale with it."""
    one = simulate_bars(5000, 3)
    two = simulate_bars(5000, 3, MarketParameters(annual_volatility=2 * MarketParameters().annual_volatility))
    ratio = np.diff(np.log(two["close"])).std() / np.diff(np.log(one["close"])).std()
    assert ratio == pytest.approx(2.0, rel=0.02)
