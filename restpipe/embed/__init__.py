"""Nodes within a program of one's own: in asyncio, mounted in an ASGI application, and for scripts that block.

    remote    the other side of a pipe, to be called; bodies that are sent and received piece by piece
    nodes     a server or a client node, with the life of an asynchronous context manager
    mounting  the REST surface of a node, as an ASGI application to be mounted in another
    blocking  a client node for programs that block; loop_thread: the thread that it lives in

Nothing of this touches what belongs to the program: its signals, its logging, its event loop policy.
"""
