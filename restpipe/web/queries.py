"""What the queries of a node's own pages say."""

from collections.abc import Mapping

from restpipe.exceptions import BadArgumentsError


def number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a number of a query: `default` where it is not given, `most` where it is larger.

    Raises:
        BadArgumentsError: it is none.
    """
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadArgumentsError(f"{name} should be a number, and not {text[:20]!a}")
    return min(int(text), most)
