"""The protocol core: pure, no input or output, no clock.

`Connection` is one side of a pipe. Frames that arrived go into `Connection.receive`, what they mean comes out as
`events`; what this side wants goes into methods such as `open` and `respond`, the frames to write come out of
`next_frame`. Time is an argument. The rules themselves stand in `protos/restpipe_pb/v1/pipe.proto`.
"""
