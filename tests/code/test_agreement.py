"""Whether measures of importance agree, and what is said where they do not."""

import numpy as np
import pandas as pd
import pytest
from report_fakes import measures_of

from btcai.report.agreement import agreement, shares, shown_first, top


def test_measures_that_rank_alike_agree() -> None:
    found = agreement(measures_of())
    assert list(found.ranks.values()) == pytest.approx([1.0, 1.0, 1.0], abs=0.02)
    assert found.text.startswith("They agree (rank correlation: gates and permutation ")
    assert found.costly[0] == "feature_0"


def test_ranks_are_spearmans() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(4)
    table = measures_of(40).assign(gates=rng.permutation(40.0 + np.arange(40)), permutation=rng.standard_normal(40))
    ranks = agreement(table).ranks
    for one, other in ranks:
        assert ranks[one, other] == pytest.approx(spearmanr(table[one], table[other]).statistic)


def test_where_shuffling_costs_nothing_nothing_is_explained_by_twins() -> None:
    found = agreement(measures_of(error=1.0))
    assert found.costly == ()
    assert found.text.startswith("Permutation ranks nothing: ")
    assert "twin" not in found.text


def test_a_feature_that_is_read_but_free_has_a_twin_that_tells_the_same() -> None:
    """feature_0 moves the forecast most and costs nothing when shuffled, for feature_1 is nearly the same; the other
    costs are in the opposite order of what the gradients say."""
    table = measures_of(10)
    table["permutation"] = table["permutation"].to_numpy()[::-1].copy()
    table.loc[0, "permutation"] = 0.0
    table.loc[0, ["twin", "twin_correlation"]] = ["feature_1", -0.95]
    found = agreement(table)
    assert found.ranks["gates", "permutation"] < -0.9
    assert found.text.startswith("They do not all agree")
    assert "1 of these have a twin that still tells the same (feature_0)" in found.text
    assert "the gates name 8 of the same 8, since" in found.text


def test_a_measure_that_ranks_nothing_has_no_correlation() -> None:
    found = agreement(measures_of().assign(integrated_gradients=0.0))
    assert np.isnan(found.ranks["gates", "integrated_gradients"])
    assert found.text.startswith("They do not all agree")


def test_first_is_who_has_the_largest_mean_share_and_ties_go_by_name() -> None:
    """b has 1/2, 1/3, 1/2; a 1/3, 2/3, 1/2: a is first by 1/6. A cost below zero is no part of the sum."""
    table = pd.DataFrame(
        {
            "feature": ["b", "a", "c"],
            "gates": [0.5, 1 / 3, 1 / 6],
            "permutation": [1.0, 2.0, -1.0],
            "integrated_gradients": [1.0, 1.0, 0.0],
        }
    )
    assert shares(table)["permutation"].tolist() == pytest.approx([1 / 3, 2 / 3, -1 / 3])
    assert shown_first(table, 2)["feature"].tolist() == ["a", "b"]
    assert top(table, "integrated_gradients", 2) == ["a", "b"]
