"""What enters an operator: every check, once, before any work is done."""

from __future__ import annotations

from math import inf
from numbers import Real

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from assocmem.arguments import DTYPES, check_device
from assocmem.ops.readable import readable

# The version and the T with which borders that are still in use were right.
looks = WeakTensorKeyDictionary()


def state_dtype(q: Tensor) -> torch.dtype:
    """Float64 for float64 inputs, float32 for all others."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def sequences(x: Tensor, cu_seqlens: Tensor | None) -> int:
    """N: how many sequences the tokens x `[B, T, ...]` belong to."""
    return x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1


def empty_state(q: Tensor, columns: int, cu_seqlens: Tensor | None) -> Tensor:
    """A state of zeros `[N, H, K, columns]`."""
    N = sequences(q, cu_seqlens)
    return q.new_zeros(N, q.shape[2], q.shape[3], columns, dtype=state_dtype(q))


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Check q, k `[B, T, H, K]` and v `[B, T, H, V]`: type, dtype, device and shape."""
    _check_vectors("q", q, q, "K")
    check_like_q("k", k, q)
    _check_vectors("v", v, q, "V")
    if v.shape[:3] != q.shape[:3]:
        raise ValueError(
            f"v must have shape [B, T, H, V] = [{', '.join(map(str, q.shape[:3]))}, V] like q, "
            f"got {list(v.shape)}"
        )
    if q.shape[3] == 0 or v.shape[3] == 0:
        raise ValueError(f"K and V must be at least 1, got K = {q.shape[3]}, V = {v.shape[3]}")


def check_like_q(name: str, x: Tensor, q: Tensor) -> None:
    """Check an argument `[B, T, H, K]` that has to be like q: type, dtype, device and shape."""
    _check_vectors(name, x, q, "K")
    if x.shape != q.shape:
        raise ValueError(
            f"{name} must have shape [B, T, H, K] = {list(q.shape)} like q, got {list(x.shape)}"
        )


def check_gate(g: Tensor | None, q: Tensor) -> None:
    """Check the log decay g: None, `[B, T, H]` or `[B, T, H, K]`."""
    if g is None:
        return
    check_floating("g", g, q)
    if g.shape != q.shape[:3] and g.shape != q.shape:
        raise ValueError(
            f"g must have shape [B, T, H] = {list(q.shape[:3])} or "
            f"[B, T, H, K] = {list(q.shape)} like q, got {list(g.shape)}"
        )


def check_head_gate(g: Tensor | None, q: Tensor) -> None:
    """Check the log decay g of an operator that takes one per head: None or `[B, T, H]`."""
    if g is not None:
        check_per_head("g", g, q)


def check_beta(beta: Tensor, q: Tensor) -> None:
    """Check the step sizes beta `[B, T, H]`."""
    check_per_head("beta", beta, q)


def check_scale(scale: float | None) -> None:
    """Check that scale is None or a finite number."""
    if scale is None:
        return
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"scale must be a number or None, got {type(scale).__name__}")
    if not -inf < scale < inf:  # a graph that `torch.compile` traces has no isfinite of numbers
        raise ValueError(f"scale must be finite, got {scale}")


def factor(scale: float | None, q: Tensor) -> float:
    """The factor on outputs or scores: scale, K ** -0.5 when None."""
    return q.shape[-1] ** -0.5 if scale is None else float(scale)


def check_cu_seqlens(cu_seqlens: Tensor | None, x: Tensor, name: str = "q") -> None:
    """Check the borders of packed sequences: int32 or int64 `[N + 1]`, from 0 to T, B = 1."""
    check_packed(cu_seqlens, x, name)
    if cu_seqlens is None or not readable(cu_seqlens):
        return
    look = (cu_seqlens._version, x.shape[1]) if looked_at_once(cu_seqlens) else None
    if look is None or looks.get(cu_seqlens) != look:
        check_borders(cu_seqlens.tolist(), x.shape[1])
        if look is not None:
            looks[cu_seqlens] = look


def looked_at_once(x: Tensor) -> bool:
    """Whether x is on a GPU, where a look waits for all that was started before, and every layer
    gets the same borders. Without a version it could not be told that x has changed.
    """
    return x.is_cuda and not x.is_inference()


def check_packed(cu_seqlens: Tensor | None, x: Tensor, name: str) -> None:
    """Check all but the contents of cu_seqlens, for tokens x `[B, T, ...]`."""
    if cu_seqlens is None:
        return
    check_border_tensor("cu_seqlens", cu_seqlens, x, name)
    if x.shape[0] != 1:
        raise ValueError(f"{name} must have batch size 1 with cu_seqlens, got {x.shape[0]}")


def check_border_tensor(name: str, borders: Tensor, x: Tensor, like: str) -> None:
    """Check borders `[N + 1]`: type, dtype, device and shape."""
    check_tensor(name, borders)
    if borders.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must be int32 or int64, got {borders.dtype}")
    check_device(name, borders, x, like)
    if borders.ndim != 1 or borders.shape[0] < 2:
        raise ValueError(f"{name} must have shape [N + 1] with N >= 1, got {list(borders.shape)}")


def check_borders(borders: list[int], T: int, name: str = "cu_seqlens") -> None:
    """Check the numbers in borders."""
    if borders[0] != 0 or borders[-1] != T or borders != sorted(borders):
        raise ValueError(f"{name} must rise from 0 to T = {T} without falling, got {borders}")


def check_initial_state(
    initial_state: Tensor | None,
    q: Tensor,
    columns: int,
    cu_seqlens: Tensor | None,
    label: str = "V",
    name: str = "initial_state",
) -> None:
    """Check a state `[N, H, K, columns]` in float32 (float64 for float64 inputs)."""
    if initial_state is None:
        return
    check_tensor(name, initial_state)
    if initial_state.dtype != state_dtype(q):
        raise TypeError(
            f"{name} must be {state_dtype(q)} for {q.dtype} inputs, got {initial_state.dtype}"
        )
    check_device(name, initial_state, q, "q")
    expected = [sequences(q, cu_seqlens), q.shape[2], q.shape[3], columns]
    if list(initial_state.shape) != expected:
        raise ValueError(
            f"{name} must have shape [N, H, K, {label}] = {expected}, "
            f"got {list(initial_state.shape)}"
        )


def check_per_head(name: str, x: Tensor, q: Tensor) -> None:
    """Check an argument with one number per head and token, `[B, T, H]`."""
    check_floating(name, x, q)
    if x.shape != q.shape[:3]:
        raise ValueError(
            f"{name} must have shape [B, T, H] = {list(q.shape[:3])} like q, got {list(x.shape)}"
        )


def _check_vectors(name: str, x: Tensor, q: Tensor, size: str) -> None:
    check_tensor(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name} must have shape [B, T, H, {size}], got {list(x.shape)}")
    if x.dtype not in DTYPES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.dtype != q.dtype:
        raise TypeError(f"{name} must be {q.dtype}, the same as q is, got {x.dtype}")
    check_device(name, x, q, "q")


def check_floating(name: str, x: Tensor, q: Tensor) -> None:
    """Check an argument of floats: type, dtype and device."""
    check_tensor(name, x)
    if not x.dtype.is_floating_point:
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")
    check_device(name, x, q, "q")


def check_tensor(name: str, x: Tensor) -> None:
    """Check that an argument is a tensor, and not a sparse or nested one."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if x.is_nested:
        raise TypeError(f"{name} must be a dense tensor, with cu_seqlens for several lengths, "
                        "got a nested one")  # fmt: skip
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {x.layout}")
