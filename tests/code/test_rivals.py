"""What rivals got wrong, each defect as a test: here, or where it is guarded already.

| Rival's defect | guarded by |
|---|---|
| FinRL executes at the close it decided on | test_orders::test_order_fills_at_the_next_open_and_not_at_the_close_it_was_decided_on |
| ... omits the fee of a purchase: negative cash | test_cash_of_a_spot_account_is_never_negative (here) |
| ... shorts without margin | test_shorts: exposure cap, maintenance and liquidation |
| ... hard-coded split index, scale of one coin's price | test_no_date_and_no_bar_index_is_written_into_what_learns (here) |
| ... floors to whole coins | test_orders::test_less_than_one_coin_can_be_bought, ..._floored_to_the_lot_step |
| ... annualises by 4**0.5 | test_metrics::test_sharpe_of_alternating_returns_by_hand, test_a_year_has_105_120_bars (here) |
| FinRL-Meta tunes on the test span | test_leakage::test_training_never_reads_or_earns_outside_its_span, test_what_trains_... (here) |
| TensorTrade never wires its slippage model | test_settings::test_every_setting_changes_the_result |
| ... turns TLS verification off for the process | test_tls_verification_is_turned_off_nowhere (here) |
| Gym-Trading-Env sets interest instead of adding it | test_funding_of_many_periods_is_their_sum (here) |
| ... charges nothing by default | test_every_severity_charges_a_fee_and_a_spread, ..._cost_has_no_default (here) |
| ... ignores the seed | test_env::test_same_seed_gives_the_same_bits_and_another_seed_others, test_vector_env::test_global_random_... |
| ... turns warnings into errors on import | test_importing_changes_no_warning_filter (here) |
| FreqAI has another observation in backtests | test_holdings::test_deciding_from_a_file_is_the_backtest, test_one_kernel_... (here) |
| ... drops options in silence | test_an_unknown_option_is_refused_by_its_name (here) |
| ... pays for entering | test_entering_and_leaving_at_one_price_earns_nothing (here) |
| Freqtrade prints a Sharpe of 183 | test_metrics::test_ratios_are_nan_without_variance_or_with_fewer_than_twenty_days, test_judge::test_too_few_days_... |
| Qlib trains on one simulator and backtests on another | test_backtest::test_backtest_equals_a_loop_of_the_markets_own_decision_steps, test_one_kernel_... (here) |
"""  # noqa: E501 (a table)

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from market_wild import wild_market, wild_rules
from market_world import FREE, Trader, make_market
from pydantic import ValidationError

from btcai.config import CostConfig
from btcai.errors import ConfigError
from btcai.market.account import CASH, FUNDING_PAID
from btcai.market.rules import Rules
from btcai.params import load_config
from btcai.schema import BARS_PER_YEAR, Action

ROOT = Path(__file__).resolve().parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
LEARNS = ("agent", "envs", "evaluation", "features", "market", "models", "training")
SHORTS = FREE._replace(perpetual=True, allow_short=True)


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """(path, syntax tree) of the package's modules below these folders."""
    for folder in folders:
        for path in sorted((ROOT / "btcai" / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), syntax_tree(path)


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@settings(max_examples=100)
@given(rules=wild_rules, seed=st.integers(0, 2**31))
def test_cash_of_a_spot_account_is_never_negative(rules: Rules, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spot = rules._replace(perpetual=False, allow_short=False, patch_bars=1)
    trader = Trader(wild_market(rng), spot, seed=seed)
    for action in rng.choice(4, 79, p=[0.2, 0.6, 0.15, 0.05]):
        trader.decide(int(action), float(rng.uniform(0.1, 2.0)))
        assert trader[CASH] >= 0.0


def test_entering_and_leaving_at_one_price_earns_nothing() -> None:
    trader = Trader(make_market([100] * 6), SHORTS)
    rewards = [trader.decide(action)[0] for action in (Action.BUY, Action.SELL, Action.SELL, Action.BUY)]
    assert rewards == [0.0] * 4


def constants(tree: ast.Module) -> Iterator[object]:
    """Literals of a module, docstrings left out."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield node.value


def is_place_in_time(value: object) -> bool:
    """A date, or a number that is no unit and could be the index of a bar."""
    if isinstance(value, str):
        return re.search(r"\b(19|20)\d\d-[01]\d", value) is not None
    return type(value) is int and 10_000 <= value < 10_000_000 and value % 100 != 0


def test_no_date_and_no_bar_index_is_written_into_what_learns() -> None:
    assert is_place_in_time(172197)
    assert is_place_in_time("2024-03-01")
    found = [(path, value) for path, tree in sources(*LEARNS) for value in constants(tree) if is_place_in_time(value)]
    assert found == []


def test_what_trains_names_neither_the_tested_nor_the_sealed_span() -> None:
    forbidden = {"test", "folds", "sealed"}
    reached = [
        (path, node.attr)
        for path, tree in sources("agent", "training", "models")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in forbidden
    ]
    assert reached == []


def test_a_year_has_105_120_bars() -> None:
    assert BARS_PER_YEAR == 365 * 24 * 12 == 105_120
    trading_days = [(path, value) for path, tree in sources("") for value in constants(tree) if value in (250, 252)]
    assert trading_days == []


INSECURE = re.compile(
    r"_create_unverified_context|CERT_NONE|check_hostname\s*=\s*False|verify(_ssl)?\s*=\s*False|\bssl\s*=\s*False"
    r"|disable_warnings|PYTHONHTTPSVERIFY|GIT_SSL_NO_VERIFY|trusted-host|--insecure|--no-check-certificate|curl -k"
)


def test_tls_verification_is_turned_off_nowhere() -> None:
    assert INSECURE.search("requests.get(url, verify=False)")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kinds = {".py", ".yaml", ".yml", ".toml", ".cfg", ".sh", ".json", ".md", ".txt", ""}
    files = [ROOT / name for name in listed.stdout.split("\0") if name and Path(name).suffix in kinds]
    read = [path for path in files if path.is_file() and path != Path(__file__).resolve()]
    assert len(read) > 100
    assert [path for path in read if INSECURE.search(path.read_text(encoding="utf-8", errors="ignore"))] == []


@pytest.mark.parametrize(("action", "sign"), [(Action.BUY, 1), (Action.SELL, -1)])
def test_funding_of_many_periods_is_their_sum(action: Action, sign: int) -> None:
    rates = {2: 0.001, 3: 0.002, 5: -0.0005, 7: 0.004}
    trader = Trader(make_market([100] * 10, funding=rates), SHORTS).walk(action, *[Action.HOLD] * 7)
    assert trader[FUNDING_PAID] == pytest.approx(sign * 1000 * sum(rates.values()))


@pytest.mark.parametrize("severity", ["optimistic", "base", "pessimistic"])
def test_every_severity_charges_a_fee_and_a_spread(severity: str) -> None:
    costs = load_config(ROOT / "params.yaml").market.severities[severity]  # type: ignore[index]
    assert min(costs.taker_fee_bps, costs.maker_fee_bps, costs.half_spread_bps) > 0


@pytest.mark.parametrize("name", CostConfig.model_fields)
def test_a_cost_has_no_default(name: str) -> None:
    given = dict(PARAMS["market"]["severities"]["pessimistic"])
    CostConfig.model_validate(given)
    del given[name]
    with pytest.raises(ValidationError, match=name):
        CostConfig.model_validate(given)


def test_the_severity_in_use_is_the_harshest() -> None:
    market = load_config(ROOT / "params.yaml").market
    for name in set(CostConfig.model_fields) - {"max_volume_share"}:
        assert getattr(market.costs, name) == max(getattr(costs, name) for costs in market.severities.values())
    assert market.costs.max_volume_share == min(costs.max_volume_share for costs in market.severities.values())


WATCH_FILTERS = """
import importlib, pkgutil, warnings
before = list(warnings.filters)
import btcai
for name in "schema config errors compiled market envs features calibration evaluation yardstick".split():
    module = importlib.import_module(f"btcai.{name}")
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"btcai.{name}."):
        importlib.import_module(found.name)
added = [entry for entry in warnings.filters if entry not in before and "btcai" in str(entry)]
assert not added, added
assert not [entry for entry in warnings.filters if entry[0] == "error"], warnings.filters
"""


@pytest.mark.slow
def test_importing_changes_no_warning_filter() -> None:
    done = subprocess.run([sys.executable, "-c", WATCH_FILTERS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_module_sets_a_warning_filter_for_the_process() -> None:
    calls = [
        (path, node.lineno)
        for path, tree in sources("")
        for node in tree.body
        if re.search(r"\b(filterwarnings|simplefilter)\b", ast.unparse(node))
        and not isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert calls == []


def sections(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where params.yaml has a mapping of options."""
    if isinstance(node, dict):
        yield path
        for key, value in node.items():
            yield from sections(value, (*path, key))


@pytest.mark.parametrize("path", list(sections(PARAMS)), ids=lambda path: ".".join(map(str, path)) or "top")
def test_an_unknown_option_is_refused_by_its_name(tmp_path: Path, path: tuple[str | int, ...]) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    section = params
    for key in path:
        section = section[key]
    section["slippage_model"] = {"kind": "none"}
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigError, match="slippage_model"):
        load_config(file)


KERNEL_ONLY = {"fill_pending", "fill_stops", "fill_targets", "liquidate", "open_lot", "reduce_lot", "pay_funding"}
"""What changes an account; everything outside the market goes through the kernel."""


def test_one_kernel_fills_the_orders_of_training_backtest_and_environment() -> None:
    imported = [
        (path, alias.name)
        for path, tree in sources("")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not path.startswith("btcai/market/")
        for alias in node.names
        if alias.name in KERNEL_ONLY
    ]
    assert imported == []
    steps = re.compile(r"\b(decision_step|step_bar|step_accounts)\(")
    packages = {Path(path).parts[1] for path, tree in sources("") if steps.search(ast.unparse(tree))}
    assert packages == {"agent", "envs", "evaluation", "market"}
