"""The pipe: drives a protocol connection over a carrier, with asyncio."""

from restpipe.pipe.body import Body
from restpipe.pipe.exchanges import Answer, Incoming, PipeDepartsError
from restpipe.pipe.live import Serve
from restpipe.pipe.pipe import Pipe, PipeEnd

__all__ = ["Answer", "Body", "Incoming", "Pipe", "PipeDepartsError", "PipeEnd", "Serve"]
