"""The time of a call on the GPU beside its floor, its memory at the peak, and its error."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from triton import testing

from benchmarks.gpu_cases import forward_backward, relative_error

SLOW = 200  # milliseconds from which on one call is all that is timed
CALLS = 5  # at least, below that


def samples(call: Callable[[], object]) -> list[float]:
    """Milliseconds of each timed call."""
    call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    once = start.elapsed_time(end)
    if once > SLOW:
        return [once]
    milliseconds = max(60, CALLS * once)
    return testing.do_bench(call, warmup=10, rep=milliseconds, return_mode="all")  # pyright: ignore


def replayed(call: Callable[[], object]) -> float:
    """Milliseconds of a call within a CUDA graph, where nothing waits for Python."""
    return testing.do_bench_cudagraph(call, return_mode="median")  # pyright: ignore


def peak_bytes(call: Callable[[], object]) -> int:
    """GPU memory that a call takes at its peak, beyond what its inputs hold."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@torch.no_grad()
def forward(form: Callable[..., Tensor], x: dict[str, Tensor]) -> Tensor:
    """The output alone, nothing kept for gradients."""
    return form(**x)


def measure(
    form: Callable[..., Tensor],
    x: dict[str, Tensor],
    do: Tensor,
    expected: dict[str, Tensor] | None,
    floor: dict[str, float | None],
) -> dict[str, Any]:
    """Time and memory of both passes, errors, and what a second call gives in other bits.

    Where the backward pass fails, as fla's do that some versions of Triton compile wrongly, the
    forward pass still counts. PyTorch's attention sums some of its gradients in no fixed order,
    DeltaFormer's reading too.
    """
    alone = partial(forward, form, x)
    both: Callable[[], dict[str, Tensor]] = partial(forward_backward, form, x, do)
    row: dict[str, Any] = {"forward": timed(alone, floor["forward"])}
    try:
        row["forward+backward"] = timed(both, floor["forward+backward"])
    except Exception as error:
        row["backward_failed"] = says(error)

        def both() -> dict[str, Tensor]:
            return {"o": alone()}

    got, again = both(), both()
    row["errors"] = expected and {n: relative_error(y, expected[n]) for n, y in got.items()}
    row["other_bits"] = [n for n, y in got.items() if not torch.equal(y, again[n])]
    return row


def timed(call: Callable[[], object], floor: float | None) -> dict[str, Any]:
    """Time and memory of a call, beside the least time that it could take."""
    times = samples(call)
    middle = statistics.median(times)
    return {
        "ms": middle,
        "floor_ms": floor,
        "over_floor": floor and middle / floor,
        "peak_bytes": peak_bytes(call),
        "samples": [float(f"{t:.4g}") for t in times],
    }


def says(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
