"""How long a message takes from one core of this machine to another.

    python -m benchmarks.cores

Two processes take turns to write one byte and wait for the other's, so it is the time that a cache
line takes, and Python's own for a byte besides: compare only with other results of this command.
Threads that share small products wait for such messages at the start and the end of each, and on a
virtual machine two cores may be near now and far later.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import MutableSequence

ROUNDS, MESSAGES = 20, 2000


def reply(line: MutableSequence[int], times: int) -> None:
    """Clear the byte whenever it is set."""
    for _ in range(times):
        while not line[0]:
            pass
        line[0] = 0


def message_time() -> float:
    """Seconds for a message one way, in the fastest of several rounds."""
    context = multiprocessing.get_context("spawn")
    line = context.RawArray("b", 1)
    other = context.Process(target=reply, args=(line, 1 + ROUNDS * MESSAGES), daemon=True)
    other.start()
    line[0] = 1
    while line[0]:  # until it has started
        if not other.is_alive():
            raise RuntimeError("the other process ended before it replied")
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(MESSAGES):
            line[0] = 1
            while line[0]:
                pass
        times.append((time.perf_counter() - start) / (2 * MESSAGES))
    other.join()
    return min(times)


if __name__ == "__main__":
    print(f"{1e9 * message_time():.0f} ns")
