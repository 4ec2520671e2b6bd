from __future__ import annotations

import pytest

from cxr_reason.agreement import kappa


def test_kappa_of_a_table_worked_by_hand() -> None:
    # 20 + 15 of 50 agree: 0.7. Chance: 25/50 * 30/50 + 25/50 * 20/50 = 0.5. So (0.7 - 0.5) / (1 - 0.5) = 0.4.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert kappa(pairs) == pytest.approx(0.4)


def test_kappa_at_its_ends() -> None:
    assert kappa([("y", "y"), ("n", "n")]) == 1
    assert kappa([("y", "n"), ("n", "y")]) == -1
    assert kappa([("y", "y"), ("y", "n"), ("n", "y"), ("n", "n")]) == 0
    assert kappa([]) is None
    assert kappa([("y", "y")] * 3) is None


def test_kappa_of_three_verdicts_as_scikit_learn_has_it() -> None:
    # 21 of 26 agree, chance is (12 * 11 + 8 * 8 + 6 * 7) / 26².
    three = {("s", "s"): 10, ("s", "c"): 2, ("c", "c"): 6, ("c", "u"): 2, ("u", "u"): 5, ("u", "s"): 1}
    assert kappa(three) == pytest.approx(308 / 438)


def test_kappa_of_counted_pairs() -> None:
    assert kappa({("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15}) == pytest.approx(0.4)
