"""Server and client nodes: pipes that come and go, and the way to the peer that a request is for."""
