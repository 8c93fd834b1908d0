"""What is done with a state: its size, the same without gradients, or of some sequences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from assocmem.nn.cache import has_borders, in_a_batch, trimmed
from assocmem.ops.inputs import check_tensor, known


def check_state(state: Any) -> None:
    """Raise unless what is no tensor is a tuple or a list of states, or None."""
    if state is not None and not isinstance(state, (tuple, list)):
        raise TypeError(
            f"state must be a tensor, a tuple of states or None, got {type(state).__name__}"
        )


def state_bytes(state: Any) -> int:
    """Memory that a state takes: the bytes of all numbers in it.

    Args:
        state: what a `Streaming` module handed back: a tensor, or a tuple of states; None holds
            nothing.

    Raises:
        TypeError: when it is anything else.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> x = torch.randn(1, 100, 32)
        >>> [nn.state_bytes(layer(32, 4)(x)[1]) for layer in (nn.Retention, nn.SoftmaxAttention)]
        [1024, 25600]
    """
    if isinstance(state, Tensor):
        return state.nbytes
    check_state(state)
    return 0 if state is None else sum(map(state_bytes, state))


def detached(state: Any) -> Any:
    """A state through which no gradients flow: the next piece does not train what came before.

    Args:
        state: what a `Streaming` module handed back: a tensor, or a tuple of states, or None.

    Returns:
        The same numbers, in tensors that share the memory of those given.

    Raises:
        TypeError: when it is anything else.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> _, state = nn.DeltaNet(32, 4)(torch.randn(1, 10, 32))
        >>> state.S.requires_grad, nn.detached(state).S.requires_grad
        (True, False)
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.detach()
    check_state(state)
    return like(state, map(detached, state))


def select(state: Any, index: Tensor) -> Any:
    """The state of some of its sequences: without those that have ended, or a beam several times.

    Args:
        state: what a `Streaming` module handed back of N sequences: a tensor, or a tuple of states;
            or None.
        index: which sequences to keep, in which order: numbers int32 or int64 `[M]` from 0 to
            N - 1, or whether to keep each, bool `[N]`.

    Returns:
        A state of M sequences, a copy. Packed sequences in a cache lie in a batch then, the shorter
        ones behind zeros.

    Raises:
        TypeError: when the state is anything else, or index no tensor of these dtypes.
        ValueError: when index has another shape, or a number that no sequence has.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer, x = nn.SoftmaxAttention(32, 4), torch.randn(3, 10, 32)
        >>> _, state = layer(x)
        >>> ended = torch.tensor([False, True, False])
        >>> y, state = layer.step(x[~ended, 0], nn.select(state, ~ended))
        >>> state.k.shape
        torch.Size([2, 11, 4, 8])
    """
    check_tensor("index", index)
    if index.dtype not in (torch.int32, torch.int64, torch.bool):
        raise TypeError(f"index must be int32, int64 or bool, got {index.dtype}")
    if index.ndim != 1:
        raise ValueError(f"index must have shape [M], got {list(index.shape)}")
    if state is None:
        return None
    if isinstance(state, Tensor):
        check_index(index, state.shape[0])
        return state[index]
    check_state(state)
    if not has_borders(state):
        return like(state, (select(part, index) for part in state))
    *parts, borders = in_a_batch(state)
    if borders is None:
        return like(state, (*(select(part, index) for part in parts), None))
    return like(state, trimmed([select(part, index) for part in parts], borders.diff()[index]))


def check_index(index: Tensor, N: int) -> None:
    """Check an index of N sequences."""
    if index.dtype == torch.bool:
        if index.shape[0] != N:
            raise ValueError(f"index must have shape [N] = [{N}], got {list(index.shape)}")
    elif known(lambda: bool(((index < 0) | (index >= N)).any()), index):
        raise ValueError(f"index must be from 0 to N - 1 = {N - 1}, got {index.tolist()}")


def like(state: Any, parts: Iterable[Any]) -> Any:
    """Parts as the kind of state that this one is."""
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
