"""Carriers of frames: gRPC over mutual TLS, and a pair in memory.

    carrier          the seam: what a pipe wants of whatever carries its frames
    grpc_client      the side that dials; grpc_server: the side that accepts
    channel_options  of both, each with the reason for it
    calls            how many calls clients may have open, and how often they may call
    health           whether the server takes new clients, for whoever asks by gRPC
    handshake        what gRPC does not tell of a TLS handshake
    diagnosis        why a connection failed, in one line that names the way out
    memory           two carriers that are joined, for tests

Only this package imports grpc.
"""
