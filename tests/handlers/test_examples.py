"""The handlers that a node has at first answer as those of RestPipe 0.2 did."""

import time

import pytest
from joined import joined

from restpipe.exceptions import BadArgumentsError
from restpipe.handlers.base import ClientEventHandler, ServerEventHandler
from restpipe.handlers.examples import ClientExamples, ServerExamples

SIDES = pytest.mark.parametrize(("handler", "side"), [(ServerExamples, "server"), (ClientExamples, "client")])


@SIDES
async def test_the_time_is_told(handler: type, side: str) -> None:
    before = time.time()
    async with joined(handler()) as nodes:
        answer = await nodes.get("time")
    assert before <= answer.data.pop(f"time_from_{side}") <= time.time()
    assert (answer.status, answer.code, answer.mime_type) == (200, 0, "application/json")


@SIDES
async def test_two_texts_are_joined(handler: type, side: str) -> None:
    async with joined(handler()) as nodes:
        answer = await nodes.get("cat", "hello ", "world")
        assert answer.body == f'{{"result_from_{side}": "hello world"}}'.encode()
        assert (await nodes.get("cat", query=[("y", "2"), ("x", "1")])).data == {f"result_from_{side}": "12"}
        with pytest.raises(BadArgumentsError, match="'y'"):
            await nodes.get("cat", "hello ")


def test_they_are_what_a_users_handler_is() -> None:
    assert issubclass(ServerExamples, ServerEventHandler)
    assert issubclass(ClientExamples, ClientEventHandler)
