"""A rule means the names that it says, and no others."""

import pytest

from restpipe.identity.names import EVERYONE, NamePatterns, RelayRules


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


def test_what_has_no_wildcard_is_a_name() -> None:
    assert NamePatterns(["alpha", "shop-*", "till?", "[a-c]1", "a.b"]).names == {"alpha", "a.b"}
    assert RelayRules(["shop-*>printer", "office > *"]).names == {"printer", "office"}
    assert RelayRules([]).names == frozenset()


def test_everyone_is_everyone() -> None:
    assert EVERYONE.include("anyone.at-all_1")


def test_a_rule_lets_those_on_its_left_reach_those_on_its_right() -> None:
    rules = RelayRules(["shop-*>printer-?", "office > *"])
    assert rules.permit("shop-1", "printer-a")
    assert rules.permit("office", "anyone")
    for caller, called in (
        ("printer-a", "shop-1"),
        ("shop-1", "printer-ab"),
        ("shop-1", "shop-2"),
        ("till", "printer-a"),
    ):
        assert not rules.permit(caller, called)
    assert [name for name in ("shop-1", "office", "printer-a") if rules.permit_any(name)] == ["shop-1", "office"]


def test_without_rules_nobody_reaches_anyone() -> None:
    assert not RelayRules([]).permit("a", "b")
    assert not RelayRules([]).permit_any("a")


@pytest.mark.parametrize("rule", ["shop-*", "", ">", "a>", ">b", "a-b"])
def test_what_is_no_rule_is_refused_with_one_that_is(rule: str) -> None:
    with pytest.raises(ValueError, match=r"such as 'shop-\*>printer-\*'"):
        RelayRules([rule])
