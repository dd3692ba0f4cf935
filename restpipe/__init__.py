"""RestPipe."""
