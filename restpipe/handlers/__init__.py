"""Event handlers: from verb and noun to a method, from arguments and results to what travels.

What users see:

    base               what their event handlers derive from, and may return
    context            what a handler is told of its event and of the peer
    connection_events  what a node tells its operator's code about its connections
    examples           what a node serves until it is given a handler

From a request to a method and back:

    dispatch           all of the way
    events             which methods there are; described: what their annotations say of the answer
    arguments          text of a URL to what a method takes; paths: the URL before that
    payload            bodies that are whole; uploads, streams: those that come and go piece by piece
    threads            for methods that are not asynchronous; workload: who waits for one, and who is refused;
                       fair_queue: whose turn it is
    blocked            who blocks the event loop
    once               requests with an Idempotency-Key; answers: what was answered to them
    problems           failures as documents
    calls              the other way: what a program asks of a peer

What serves in place of a method:

    files              a directory; beneath: no path leads out of it; leftovers: uploads that were never completed
    file_answers       a file as an answer; conditional: or a part of it, or nothing that the caller has already
    upstream           an HTTP service, upstream_connections and upstream_heads: by which, and what is said
    asgi               an application, asgi_lifespan, asgi_exchange and asgi_sockets: its life, requests and web sockets
    socket_messages    messages of web sockets, from the frames that the pipe carries
"""
