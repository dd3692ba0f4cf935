"""A rule means the names that it says, and no others."""

import pytest

from restpipe.identity.names import EVERYONE, NamePatterns


@pytest.mark.parametrize(
    ("patterns", "meant", "others"),
    [
        (["alpha"], ["alpha"], ["Alpha", "alpha1", "xalpha", "alph", "alpha\n", ""]),
        (["shop-*", "till?"], ["shop-", "shop-1.example", "till1"], ["shop", "till", "till12", "a-shop-1"]),
        (["[a-c]1", "[!a]2"], ["a1", "b2"], ["d1", "a2", "A1"]),
        (["a.b", "(x|y)"], ["a.b", "(x|y)"], ["axb", "x", "y"]),
    ],
)
def test_a_rule_means_whole_names(patterns: list[str], meant: list[str], others: list[str]) -> None:
    names = NamePatterns(patterns)
    assert [name for name in meant + others if names.include(name)] == meant


def test_everyone_is_everyone() -> None:
    assert EVERYONE.include("anyone.at-all_1")
