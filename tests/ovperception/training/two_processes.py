"""Two processes of a world, for the tests of this folder."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

from ovperception.training.distributed import World, joined_world


def in_two(work: Callable[[World, Path], None], folder: Path) -> list[int | None]:
    """Exit codes of two processes that do the work together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def child(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with joined_world("cpu") as world:
            work(world, folder)

    # The children fork without exec: importing torch anew would take longer than the tests.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=child, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]
