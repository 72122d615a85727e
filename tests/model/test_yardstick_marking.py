"""Marks are given on paths that nobody trained on."""

from btcai.yardstick.paths import MARKING, TRAINING, path_seed


def test_no_seed_to_mark_with_is_one_to_train_with() -> None:
    trained, marked = ({path_seed(seed, use) for seed in range(100)} for use in (TRAINING, MARKING))
    assert len(trained) == len(marked) == 100
    assert not trained & marked


def test_same_seed_and_use_give_the_same_path() -> None:
    assert path_seed(3, MARKING) == path_seed(3, MARKING)
