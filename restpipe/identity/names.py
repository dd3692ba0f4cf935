"""Whom a rule means, by the names of certificates."""

import re
from collections.abc import Iterable
from fnmatch import translate


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

    def include(self, name: str) -> bool:
        """Whether a name is meant."""
        return self._match(name) is not None


EVERYONE = NamePatterns(("*",))
