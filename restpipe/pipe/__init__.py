"""The pipe: drives a protocol connection over a carrier, with asyncio.

    pipe         one task reads, one writes, a timer beats
    live         the exchanges that are under way
    exchanges    the two ends of one: a call and its answer, and what came in
    body         a body as it arrives
    sender       the task that writes, and the bodies that wait for it
    turns        whether several ask of the node at the same time
    clocks       the deadlines of all exchanges, on one timer
    request_ids  what ties together the traces that one request leaves on several nodes

A pipe ends with its carrier: what connects again is `restpipe.nodes.client`.
"""

from restpipe.pipe.body import Body
from restpipe.pipe.exchanges import Answer, Incoming, PipeDepartsError
from restpipe.pipe.live import Serve
from restpipe.pipe.pipe import Pipe, PipeEnd
from restpipe.pipe.turns import Turns

__all__ = ["Answer", "Body", "Incoming", "Pipe", "PipeDepartsError", "PipeEnd", "Serve", "Turns"]
