"""The web server of a node: event routes ahead of FastAPI, which serves the rest.

The way of a request:

    server          uvicorn, as a part of the node's event loop; serving: with the node that it belongs to
    http            its connections; upgrades: those that become web sockets
    app             all of the application
    gateway         the event routes
    door            who may come in; admission: how many at once
    requests        from HTTP to the request that the pipe carries; relayed: for another client; forwarded: who asks
    request_bodies  bodies on their way to the pipe
    callers         who hangs up before the answer is there
    sockets         web sockets
    problems        failures as answers

The pages of a node:

    health          is it alive, and of use?
    status          how it does; metrics: the same for Prometheus
    docs            what the other side serves; documents, openapi: as OpenAPI has it
    queries         what their queries say
"""
