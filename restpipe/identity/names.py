"""Whom a rule means, by the names of certificates."""

import re
from collections.abc import Iterable
from fnmatch import translate

# What makes a pattern of a name.
_WILD = re.compile(r"[*?[]")


class NamePatterns:
    """Names, and shell patterns of names: `*`, `?`, `[a-c]`, `[!a-c]`. Upper and lower case differ.

    Args:
        patterns: a name that one of them matches is meant.

    Raises:
        ValueError: there is none, or one is empty or no text.

    Attributes:
        patterns: as given.
    """

    __slots__ = ("_match", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        if not self.patterns or not all(isinstance(pattern, str) and pattern for pattern in self.patterns):
            raise ValueError("should be one or more names or patterns, such as 'shop-*'; '*' is everyone")
        self._match = re.compile("|".join(map(translate, self.patterns))).match

    @property
    def names(self) -> frozenset[str]:
        """The names among the patterns: those that mean nobody else."""
        return frozenset(pattern for pattern in self.patterns if not _WILD.search(pattern))

    def include(self, name: str) -> bool:
        """Whether a name is meant."""
        return self._match(name) is not None


class RelayRules:
    """Which clients may reach which others through the server.

    Args:
        rules: each `FROM>TO`, a name or a pattern on both sides: whom FROM means may call whom TO means, and not the
            other way round.

    Raises:
        ValueError: one is no such rule.

    Attributes:
        rules: as given.
    """

    __slots__ = ("_parsed", "rules")

    def __init__(self, rules: Iterable[str]) -> None:
        self.rules = tuple(rules)
        self._parsed = [_parse_rule(rule) for rule in self.rules]

    @property
    def names(self) -> frozenset[str]:
        """The names among the rules: those that mean nobody else."""
        return frozenset().union(*(by.names | of.names for by, of in self._parsed))

    def permit(self, caller: str, called: str) -> bool:
        """Whether one client may reach another."""
        return any(by.include(caller) and of.include(called) for by, of in self._parsed)

    def permit_any(self, caller: str) -> bool:
        """Whether a client may reach any other."""
        return any(by.include(caller) for by, _ in self._parsed)


def _parse_rule(rule: str) -> tuple[NamePatterns, NamePatterns]:
    by, sign, of = (part.strip() for part in rule.partition(">"))
    if not (by and sign and of):
        raise ValueError(
            "should be rules such as 'shop-*>printer-*', who may call whom, in quotes: a shell takes > for itself"
        )
    return NamePatterns((by,)), NamePatterns((of,))


EVERYONE = NamePatterns(("*",))
