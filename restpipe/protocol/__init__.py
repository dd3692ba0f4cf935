"""The protocol core: pure, no input or output, no clock.

`Connection` is one side of a pipe. Frames that arrived go into `Connection.receive`, what they mean comes out as
`events`; what this side wants goes into methods such as `open` and `respond`, the frames to write come out of
`next_frame`. Time is an argument. The rules themselves stand in `protos/restpipe_pb/v1/pipe.proto`.

    connection      one side of a pipe, as a state machine
    events          what it reports
    exchange        one request and its response; exchange_table: all that are under way
    windows         credit arithmetic, and how windows grow
    outbox          what waits to be written, and in which order it leaves
    heads           what a request or a response may be, and what it carries of its body
    holds           what the requests in flight keep of the frames that brought them
    heartbeat       when to ping, and when a silent peer is dead
    nuisance        what costs more than it is worth
    limits          the bounds of a pipe
    encoding        envelopes to bytes; decoding: bytes to envelopes; describe: both in words, for logs
    failures        how an `EventError` crosses the pipe
"""
