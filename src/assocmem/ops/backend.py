"""Which form of an operator runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

BACKENDS = ("auto", "recurrent", "chunk", "triton")


def backend_for(q: Tensor) -> str:
    """The form that `backend="auto"` of the operators with kernels takes: "triton" or "chunk".

    Triton on a CUDA or ROCm device of compute capability 8.0 or more, if it is installed and its
    kernels hold these queries (K ≤ 128, not float64); the chunk form elsewhere. A T4 (7.5) takes
    the chunk form: Triton's `tl.dot` has no tensor cores there.

    Args:
        q: queries `[B, T, H, K]`.

    Raises:
        TypeError: when q is not a tensor.

    Example:
        >>> import torch
        >>> from assocmem import ops
        >>> ops.backend_for(torch.zeros(1, 8, 2, 16))  # on a CPU
        'chunk'
    """
    if not isinstance(q, Tensor):
        raise TypeError(f"q must be a torch.Tensor, got {type(q).__name__}")
    # Where there is no GPU, what can run is the interpreter, which is for tests.
    if _cannot_run(q) or not q.is_cuda or torch.cuda.get_device_capability(q.device) < (8, 0):
        return "chunk"
    return "triton"


def choose(backend: str, q: Tensor) -> str:
    """The form to run for an explicit or automatic backend.

    Raises:
        ValueError: when the backend is unknown.
        RuntimeError: when "triton" is asked for and cannot run, with the reason.
    """
    check_known(backend)
    if backend == "auto":
        return backend_for(q)
    # A slow device is a reason for "auto" to look elsewhere, not for refusing an explicit request.
    if backend == "triton" and (reason := _cannot_run(q)):
        raise RuntimeError(f"backend='triton' cannot run here: {reason}")
    return backend


def check_known(backend: str) -> None:
    """Raise unless a backend is one of `BACKENDS`."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {list(BACKENDS)}, got {backend!r}")


def _cannot_run(q: Tensor) -> str | None:
    if not _installed():
        return "the package triton is not installed"
    if q.dtype == torch.float64:
        return "the kernels compute in float32 at most, and q is float64"
    if q.shape[-1] > 128:
        return f"the kernels hold K <= 128, and q has K = {q.shape[-1]}"
    if not q.is_cuda and not _interpreted():
        return f"q is on {q.device}, and Triton's interpreter is off (TRITON_INTERPRET=1)"
    if not q.is_cuda and q.dtype == torch.bfloat16:
        return "Triton's interpreter does not compute in bfloat16"
    return None


def constant(fact: Callable[[], bool]) -> Callable[[], bool]:
    """A fact about the process, which a graph that is being traced may take as given.

    This is all that torch.compiler.assume_constant_result does, but for importing the compiler,
    which takes as long as half of torch.
    """
    fact._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return fact


@constant
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@constant
def _interpreted() -> bool:
    from triton import knobs

    return knobs.runtime.interpret
