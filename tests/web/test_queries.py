"""Numbers in the queries of a node's own pages are numbers, within their bounds."""

import pytest

from restpipe.exceptions import BadArgumentsError
from restpipe.web.queries import number


@pytest.mark.parametrize(("query", "expected"), [({}, 50), ({"n": ""}, 50), ({"n": "0"}, 0), ({"n": "900"}, 200)])
def test_a_number_that_is_not_given_is_the_usual_one_and_none_is_above_its_bound(
    query: dict[str, str], expected: int
) -> None:
    assert number(query, "n", 50, 200) == expected


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "٣", "1" * 19])
def test_what_is_no_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadArgumentsError, match="n should be a number"):
        number({"n": text}, "n", 50, 200)
