"""Carriers of frames: gRPC over mutual TLS, and a pair in memory. Only this package imports grpc."""
