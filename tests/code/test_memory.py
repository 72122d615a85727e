"""Memory of situations: what is recalled, what is not yet known, what is forgotten, and the file it lives in."""

import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btcai.errors import ArtifactError
from btcai.reasoning.memory import (
    NEIGHBOURS,
    PRIOR_OUTCOMES,
    Memory,
    Recollection,
    Situations,
    adjusted_chance,
    new_memory,
    placed,
    recall,
    told,
)
from btcai.reasoning.memory_file import FORMAT, load_memory, save_memory
from btcai.reasoning.remembering import FORGET_FRAC, key_situations, recall_in_order, remember
from btcai.schema import BAR_NS, Float32Array, FloatArray, IntArray

MODEL = "model-1"
HORIZON = 4
LATEST = np.iinfo(np.int64).max


def times(bars: list[int] | IntArray) -> IntArray:
    return np.asarray(bars, np.int64) * BAR_NS


def made(bars: list[int] | IntArray, embedding: Float32Array, outcome: list[float] | FloatArray) -> Situations:
    """Situations decided at the close of these bars, their outcome known HORIZON bars later."""
    closes = times(bars)
    return Situations(
        close_ts_ns=closes,
        known_ts_ns=closes + HORIZON * BAR_NS,
        embedding=np.asarray(embedding, np.float32).reshape(len(closes), -1),
        outcome=np.asarray(outcome, np.float64),
    )


def drawn(n: int, seed: int, z: int = 6, every: int = 1) -> Situations:
    """Latents that wander, a decision every so many bars; the outcome rises with the first of their numbers."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, z))
    for t in range(1, n):
        latent[t] = 0.9 * latent[t - 1] + 0.43 * latent[t]
    return made(every * np.arange(1, n + 1), latent.astype(np.float32), 0.5 * latent[:, 0] + rng.normal(size=n))


def empty(usual: Situations, capacity: int = 1_000) -> Memory:
    return new_memory(usual.embedding, usual.close_ts_ns, model_version=MODEL, horizon_bars=HORIZON, capacity=capacity)


def plain(near: float = 1.0, z: int = 1, capacity: int = 100) -> Memory:
    """An empty memory that measures latents as they are."""
    memory = empty(drawn(50, 0, z), capacity)
    return replace(memory, centre=np.zeros(z, np.float32), whitening=np.eye(z, dtype=np.float32), near=near)


def asked(memory: Memory, latent: list[float], bar: int, k: int = NEIGHBOURS) -> Recollection:
    return recall(memory, np.array([latent], np.float32), times([bar]), model_version=MODEL, k=k)


def same(one: object, other: object) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name), equal_nan=field.name != "model_version")
        for field in fields(one)  # type: ignore[arg-type]
    )


def test_what_is_near_is_recalled_by_hand() -> None:
    memory = remember(plain(near=1.0), made([10, 20, 30, 40], [[0.0], [0.5], [-0.9], [3.0]], [1, -1, 2, -9]), LATEST)
    found = asked(memory, [0.1], 100)
    assert memory.close_ts_ns[found.rows[0, :3]].tolist() == times([10, 20, 30]).tolist()  # .1, .4 and 1.0 away
    assert found.rows[0, 3:].tolist() == [-1] * (NEIGHBOURS - 3)
    assert found.distance[0, :3] == pytest.approx([0.1, 0.4, 1.0], rel=1e-5)
    assert found.mean_outcome[0] == pytest.approx(2 / 3)
    assert found.rise_frac[0] == pytest.approx(2 / 3)
    assert found.outcomes[0] == 3
    assert found.lean[0] == pytest.approx((2 - 1) / (3 + PRIOR_OUTCOMES))
    assert found.confidence[0] == pytest.approx(1 / 35)


def test_nothing_near_says_nothing() -> None:
    for memory in (plain(), remember(plain(), made([10], [[0.0]], [1.0]), LATEST)):
        found = asked(memory, [5.0], 100)
        assert np.isnan(found.mean_outcome[0])
        assert np.isnan(found.rise_frac[0])
        assert (found.outcomes[0], found.lean[0], found.confidence[0]) == (0.0, 0.0, 0.0)
        assert np.all(found.rows == -1)


def test_of_neighbours_that_share_their_outcome_only_the_nearest_speaks() -> None:
    memory = remember(plain(), made([10, 12, 13, 16], [[0.0], [0.1], [0.2], [0.3]], [1, 1, 1, -1]), LATEST)
    found = asked(memory, [0.12], 100)
    assert memory.close_ts_ns[found.rows[0, :2]].tolist() == times([12, 16]).tolist()
    assert found.outcomes[0] == 2
    assert found.lean[0] == 0.0


def test_an_outcome_counts_from_the_moment_it_is_known() -> None:
    memory = remember(plain(), made([10], [[0.0]], [1.0]), LATEST)
    assert asked(memory, [0.0], 13).outcomes[0] == 0
    assert asked(memory, [0.0], 14).outcomes[0] == 1


def test_exact_neighbours_are_those_of_another_implementation() -> None:
    from sklearn.neighbors import NearestNeighbors

    past, queries = drawn(700, 1, every=HORIZON), drawn(90, 2)
    memory = replace(remember(empty(past), past, LATEST), near=np.inf)
    found = recall(memory, queries.embedding, np.full(90, LATEST), model_version=MODEL, k=9)
    oracle = NearestNeighbors(n_neighbors=9, algorithm="kd_tree").fit(memory.place.astype(np.float64))
    distance, rows = oracle.kneighbors(placed(memory, queries.embedding).astype(np.float64))
    assert np.array_equal(found.rows, rows)
    assert found.distance == pytest.approx(distance, rel=1e-3)


def test_latents_are_whitened_but_for_the_shrinkage() -> None:
    past = drawn(4_000, 3)
    tilted = past.embedding @ np.diag([1, 2, 3, 4, 5, 6]).astype(np.float32)
    memory = empty(made(np.arange(4_000), tilted, past.outcome))
    spread = np.cov(placed(memory, tilted).T)
    size = np.sort(np.linalg.eigvalsh(np.cov(tilted.T)))
    shrunk = 0.9 * size + 0.1 * size.mean()
    assert np.sort(np.linalg.eigvalsh(spread)) == pytest.approx(size / shrunk, rel=1e-3)


def test_the_threshold_holds_what_the_training_span_found_near() -> None:
    past = drawn(1_500, 4, every=HORIZON)
    memory = replace(remember(empty(past, 2_000), past, LATEST))
    found = recall(memory, past.embedding, np.full(1_500, LATEST), model_version=MODEL, k=NEIGHBOURS + 1)
    full = found.rows[:, NEIGHBOURS] >= 0  # itself and NEIGHBOURS others
    assert full.mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_overwriting_what_is_not_known_yet_changes_no_recollection(seed: int) -> None:
    past, other, queries = drawn(400, seed), drawn(400, seed + 50), drawn(400, seed)
    for cut in (40, 123, 200, 317, 399):
        now = past.close_ts_ns[cut]
        future = past.known_ts_ns > now
        poisoned = replace(
            past,
            embedding=np.where(future[:, None], -3 * other.embedding, past.embedding),
            outcome=np.where(future, 1e6 * other.outcome, past.outcome),
        )
        asked_for = queries.embedding[: cut + 1 : 13], np.minimum(queries.close_ts_ns[: cut + 1 : 13], now)
        base = empty(past[:100])
        honest, changed = (
            recall(remember(base, each, LATEST), *asked_for, model_version=MODEL) for each in (past, poisoned)
        )
        assert honest.outcomes.max() > 1
        assert same(honest, changed)


@pytest.mark.parametrize("cut", [150, 299, 300, 512, 777])
def test_overwriting_the_future_changes_nothing_in_order_of_time_though_it_forgets(cut: int) -> None:
    walk, other, base = drawn(900, 5), drawn(900, 6), empty(drawn(300, 7), capacity=120)
    future = np.arange(900) > cut
    poisoned = replace(
        walk,
        embedding=np.where(future[:, None], 2 * other.embedding, walk.embedding),
        outcome=np.where(walk.known_ts_ns > walk.close_ts_ns[cut], 50 * other.outcome, walk.outcome),
    )
    everyone = np.ones(900, np.bool_)
    honest, changed = (
        recall_in_order(base, each, everyone, until_ts_ns=LATEST, model_version=MODEL, block=50)[0]
        for each in (walk, poisoned)
    )
    for name in ("rows", "mean_outcome", "rise_frac", "outcomes", "lean"):
        assert np.array_equal(getattr(honest, name)[: cut + 1], getattr(changed, name)[: cut + 1], equal_nan=True)
    assert not np.array_equal(honest.lean, changed.lean)


def test_latents_that_are_all_the_same_are_near_each_other() -> None:
    past = made(HORIZON * np.arange(40), np.ones((40, 2)), np.ones(40))
    memory = remember(empty(past, 20), past, LATEST)
    found = recall(memory, past.embedding[:1], np.full(1, LATEST), model_version=MODEL)
    assert (found.outcomes[0], found.rise_frac[0], memory.weight.sum()) == (40, 1.0, 40)


def test_a_batch_recalls_what_each_query_recalls_alone() -> None:
    past, queries = drawn(500, 8), drawn(60, 9)
    memory = remember(empty(past), past, LATEST)
    now = times(np.linspace(5, 600, 60).astype(np.int64))
    together = recall(memory, queries.embedding, now, model_version=MODEL)
    for d in range(60):
        alone = recall(memory, queries.embedding[d : d + 1], now[d : d + 1], model_version=MODEL)
        assert np.array_equal(alone.rows[0], together.rows[d])
        assert alone.lean[0] == together.lean[d]


def test_recall_before_it_forgot_is_refused_because_it_would_look_ahead() -> None:
    past = drawn(300, 10)
    memory = remember(empty(past, capacity=100), past, int(past.known_ts_ns[-1]))
    with pytest.raises(ValueError, match="would look ahead; recall in order of time"):
        asked(memory, [0.0] * 6, 200)
    assert asked(memory, [0.0] * 6, 400).outcomes[0] > 0


def test_another_models_latents_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"here of model-1, and was asked about those of model-2; .*btcai run"):
        recall(plain(), np.zeros((1, 1), np.float32), times([1]), model_version="model-2")
    with pytest.raises(ValueError, match="latents must have 1 numbers"):
        asked(plain(), [0.0, 1.0], 5)


def test_what_cannot_be_remembered_is_refused() -> None:
    with pytest.raises(ValueError, match="wait for it"):
        remember(plain(), made([10], [[0.0]], [1.0]), int(times([13])[0]))
    with pytest.raises(ValueError, match="must be finite"):
        remember(plain(), made([10], [[0.0]], [np.nan]), LATEST)
    with pytest.raises(ValueError, match="at least 2 finite latents"):
        empty(drawn(1, 0))
    with pytest.raises(ValueError, match="at least 10 situations, was 3"):
        empty(drawn(50, 0), capacity=3)


@settings(max_examples=30)
@given(n=st.integers(1, 250), capacity=st.integers(10, 60), seed=st.integers(0, 99), at_once=st.integers(1, 250))
def test_a_memory_stays_within_its_capacity_and_keeps_its_means(n: int, capacity: int, seed: int, at_once: int) -> None:
    past, memory = drawn(n, seed, every=HORIZON), empty(drawn(60, 1), capacity)
    for first in range(0, n, at_once):
        memory = remember(memory, past[first : first + at_once], LATEST)
        assert len(memory) <= capacity
    assert n <= capacity or len(memory) >= int((1 - FORGET_FRAC) * capacity)
    assert memory.weight.sum() == pytest.approx(n)  # all apart in time
    assert (memory.weight * memory.outcome).sum() == pytest.approx(past.outcome.sum())
    assert (memory.weight * memory.rise).sum() == pytest.approx((past.outcome > 0).sum())
    assert np.all(np.diff(memory.known_ts_ns) >= 0)


def test_it_forgets_what_others_say_and_keeps_what_is_alone_or_ended_otherwise() -> None:
    rng = np.random.default_rng(11)
    alike = rng.normal(0, 0.05, (98, 1))
    embedding, outcome = np.vstack([alike, [[0.0]], [[9.0]]]), np.concatenate([rng.normal(0.2, 0.1, 98), [-6.0, 0.2]])
    past = made(HORIZON * np.arange(1, 101), embedding, outcome)
    memory = remember(plain(near=0.3, capacity=20), past, LATEST)
    assert len(memory) <= 20
    assert -6.0 in memory.outcome  # like the others, and ended otherwise
    assert 9.0 in memory.place  # like none
    again = remember(plain(near=0.3, capacity=20), past, LATEST)
    assert same(memory, again)


def test_what_was_forgotten_still_counts_and_chance_leans_as_far_as_chance_does() -> None:
    past, queries = drawn(6_000, 16, every=HORIZON), drawn(400, 17)
    past = replace(past, outcome=np.random.default_rng(1).normal(size=6_000))
    memory = remember(empty(past, 500), past, LATEST)
    found = recall(memory, queries.embedding, np.full(400, LATEST), model_version=MODEL)
    assert found.outcomes.mean() > 5 * NEIGHBOURS
    errors = (2 * found.rise_frac - 1) * np.sqrt(found.outcomes)  # standard normal, were all tosses of a coin
    assert 0.7 < np.nanstd(errors) < 1.3


def test_merged_situations_that_share_an_outcome_weigh_as_one() -> None:
    apart = remember(plain(capacity=10), made(HORIZON * np.arange(11), np.zeros((11, 1)), np.ones(11)), LATEST)
    shared = remember(plain(capacity=10), made(np.arange(11) // 2, np.zeros((11, 1)), np.ones(11)), LATEST)
    assert (len(apart), apart.weight.sum()) == (9, 11)
    assert (len(shared), shared.weight.sum()) == (9, 9)
    assert np.array_equal(apart.outcome, np.ones(9))
    assert apart.known_ts_ns.min() >= times([2 * HORIZON])[0]  # the first is known with what it now speaks for as well


def test_key_situations_are_acted_on_unusual_or_the_first_of_a_horizon() -> None:
    memory = replace(plain(), unusual=2.0)
    latent = np.array([[0.0], [3.0], [0.0], [0.0], [-2.5], [0.0]], np.float32)
    bars = times([8, 9, 10, 11, 12, 13])
    acted = np.array([False, False, True, False, False, False])
    assert key_situations(memory, latent, bars, acted, 1).tolist() == [True, True, True, False, True, False]
    assert key_situations(memory, latent, bars, acted, 2).tolist() == [True, True, True, False, True, True]


def test_situations_without_an_outcome_are_recalled_for_and_not_remembered() -> None:
    walk = drawn(200, 12)
    walk = replace(walk, outcome=np.where(np.arange(200) % 3 == 0, np.nan, walk.outcome))
    found, memory = recall_in_order(
        empty(drawn(100, 1)), walk, np.ones(200, np.bool_), until_ts_ns=LATEST, model_version=MODEL, block=10
    )
    assert len(found.lean) == 200
    assert len(memory) == np.isfinite(walk.outcome).sum()


def test_what_becomes_known_in_the_last_block_is_remembered_up_to_the_end_and_not_beyond() -> None:
    """Decisions at bars 1 .. 230, known 4 bars on; the third block begins at bar 201, the span ends with bar 230."""
    found, memory = recall_in_order(
        empty(drawn(100, 1)),
        drawn(230, 12),
        np.ones(230, np.bool_),
        until_ts_ns=230 * BAR_NS,
        model_version=MODEL,
        block=100,
    )
    assert (memory.close_ts_ns // BAR_NS).tolist() == list(range(1, 227))
    assert memory.known_ts_ns.max() == 230 * BAR_NS
    assert len(found.lean) == 230


def test_a_memory_learns_which_way_prices_went_and_says_little_where_they_went_either_way() -> None:
    past, queries = drawn(4_000, 13, every=HORIZON), drawn(500, 14)
    shuffled = replace(past, outcome=np.random.default_rng(0).permutation(past.outcome))
    told_by, told_nothing = (
        recall(remember(empty(past, 5_000), each, LATEST), queries.embedding, np.full(500, LATEST), model_version=MODEL)
        for each in (past, shuffled)
    )
    clear = np.abs(queries.embedding[:, 0]) > 1
    right = np.sign(told_by.lean[clear]) == np.sign(queries.embedding[clear, 0])
    assert right.mean() > 0.9
    assert told_by.confidence[clear].mean() > 2 * told_nothing.confidence.mean()
    assert told_nothing.confidence.mean() < 0.09  # a coin's tosses: .8 * .5 / sqrt(32) = .07


def test_the_chance_to_rise_is_adjusted_by_what_happened_then() -> None:
    assert adjusted_chance(0.6, 0.5) == pytest.approx(0.6 + 0.5 * 0.4)
    assert adjusted_chance(0.6, -0.5) == pytest.approx(0.3)
    assert adjusted_chance(0.6, 0.0) == 0.6


@given(chance=st.floats(0, 1), lean=st.floats(-1, 1))
def test_an_adjusted_chance_is_a_chance_and_falls_are_treated_as_rises(chance: float, lean: float) -> None:
    adjusted = adjusted_chance(chance, lean)
    assert 0.0 <= adjusted <= 1.0
    assert (adjusted - chance) * lean >= -1e-12
    assert 1.0 - adjusted == pytest.approx(adjusted_chance(1.0 - chance, -lean), abs=1e-12)


def test_a_record_of_the_chain_is_in_log_returns_of_today() -> None:
    memory = remember(plain(), made([10, 20], [[0.0], [0.5]], [1.0, -3.0]), LATEST)
    record = told(memory, asked(memory, [0.1], 100), 0, sigma=0.01)
    assert record.n == 2
    assert record.mean_outcome == pytest.approx(-1.0 * 0.01 * 2)  # sqrt of a horizon of 4 bars
    assert record.hit_rate == 0.5
    assert [when for when, _, _ in record.nearest] == times([10, 20]).tolist()
    assert record.nearest[1][2] == pytest.approx(-0.06)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Memory, Path]:
    past = drawn(80, 15)
    memory = remember(empty(past, capacity=60), past, int(past.known_ts_ns[-1]))
    path = tmp_path_factory.mktemp("kept") / "memory.npz"
    save_memory(memory, path)
    return memory, path


def test_a_saved_memory_comes_back_bit_for_bit(saved: tuple[Memory, Path], tmp_path: Path) -> None:
    memory, path = saved
    found = load_memory(path)
    assert same(memory, found)
    assert {name: type(getattr(found, name)) for name in ("model_version", "near", "capacity")} == {
        "model_version": str,
        "near": float,
        "capacity": int,
    }
    save_memory(found, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_a_damaged_file_is_refused_or_still_the_same_memory(saved: tuple[Memory, Path], tmp_path: Path) -> None:
    memory, path = saved
    whole, refused = path.read_bytes(), 0
    for position in np.random.default_rng(0).integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            found = load_memory(tmp_path / "damaged.npz")
        except ArtifactError:
            refused += 1
        else:
            assert same(found, memory)
    assert refused > 75


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(saved: tuple[Memory, Path], tmp_path: Path, share: float) -> None:
    whole = saved[1].read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ArtifactError, match="btcai run"):
        load_memory(tmp_path / "short.npz")


def test_what_is_no_memory_is_refused_and_no_pickle_is_opened(saved: tuple[Memory, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not found; make it again"):
        load_memory(tmp_path / "nowhere.npz")
    arrays = {field.name: np.asarray(getattr(saved[0], field.name)) for field in fields(Memory)}
    arrays["format"] = np.asarray(FORMAT)
    for change, message in (
        ({"format": np.asarray(2)}, "a memory of format 1, was of 2"),
        ({"format": np.asarray([1, 1, 3])}, "a memory of format 1, was of "),
        ({"outcome": arrays["outcome"][1:]}, "outcome is of shape"),
        ({"outcome": np.full(len(arrays["outcome"]), np.nan)}, "outcome is not finite"),
        ({"weight": arrays["weight"].astype(np.int64)}, "weight is of type int64"),
        ({"known_ts_ns": arrays["known_ts_ns"][::-1]}, "not in order of time"),
        ({"surprise": np.zeros(3)}, "missing or too many: surprise"),
        ({"outcome": np.array([{"a": 1}], object)}, "damaged"),
    ):
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=True, **(arrays | change))
        (tmp_path / "odd.npz").write_bytes(buffer.getvalue())
        with pytest.raises(ArtifactError, match=message):
            load_memory(tmp_path / "odd.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ArtifactError, match="btcai run"):
        load_memory(tmp_path / "one.npy")
