"""Server and client nodes: pipes that come and go, and the way to the peer that a request is for.

    node         what both have in common
    client       dials the server, for ever
    server       accepts pipes; registry: which clients are connected; resolver: by which addresses
    exchanges    one request to the answer of the peer: waiting for the pipe, repeating what is safe
    held_bodies  what is held of a body, so that it can be repeated
    relay        one client's requests to another
    handlers     the objects that serve a node's events
    watch        what a running node does about certificates
    metering     what a node counts and remembers; traffic: the plain figures
    tracing      spans for OpenTelemetry

Programs use the nodes of `restpipe.embed`, which are around these.
"""
