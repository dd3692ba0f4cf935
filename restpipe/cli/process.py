"""What a node sets for its whole process, which has nothing else to do."""

import ctypes
import gc
import os
import resource
import sys

# In glibc's malloc.h.
_M_ARENA_MAX = -8


def set_up_process() -> None:
    """Set what holds from the start, before there are threads."""
    raise_file_limit()
    _share_heaps()
    _hand_over_quickly()


def raise_file_limit() -> None:
    """Allow as many connections as the system does: the usual soft limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def spare_the_garbage_collector() -> None:
    """Keep what lives as long as the process out of every collection, and collect less often.

    Requests leave little for the collector: most of what it would do is to look at modules, again and again, for tens
    of milliseconds at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _share_heaps() -> None:
    """Have all threads allocate from two heaps, unless the environment names another number.

    glibc gives each thread a heap of its own, and what is freed there serves no other thread: after some thousand
    streamed bodies a node held ten MiB of that (mallopt(3), M_ARENA_MAX).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, 2)


def _hand_over_quickly() -> None:
    """Have a handler's thread that computes let go of the interpreter after a millisecond, instead of five.

    A request waits for that several times on its way through a node.
    """
    sys.setswitchinterval(0.001)
