"""What is done with a state: its size, the same without gradients, or of some sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import _register_namedtuple

from assocmem.arguments import check_device
from assocmem.nn.cache import check_cache, described, in_a_batch, in_one_row, trimmed
from assocmem.ops.inputs import check_tensor
from assocmem.ops.readable import known

Kind = TypeVar("Kind")


def saveable(kind: type[Kind]) -> type[Kind]:
    """A NamedTuple of tensors as a state that can be saved, and loaded by `torch.load` as it is.

    So can exported programs that have it.
    """
    torch.serialization.add_safe_globals([kind])
    _register_namedtuple(kind, serialized_type_name=f"assocmem.nn.{kind.__name__}")
    return kind


def check_state(state: Any) -> None:
    """Raise unless a state that is not a tensor is a tuple or a list of states, or None."""
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
        The same numbers, in tensors that share the memory of those given, unless these come from
        `torch.inference_mode`, where they are copied: training may continue from them.

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
        # Autograd takes no tensor of `torch.inference_mode`, not even as a constant.
        return state.clone() if state.is_inference() else state.detach()
    check_state(state)
    return like(state, map(detached, state))


def select(state: Any, index: Tensor) -> Any:
    """The state of some sequences: without those that have ended, or with a beam several times.

    Args:
        state: what a `Streaming` module handed back of N sequences: a tensor, or a tuple of states;
            or None.
        index: which sequences to keep, in which order: numbers int32 or int64 `[M]` from 0 to
            N - 1, or whether to keep each, bool `[N]`.

    Returns:
        A state of M sequences, a copy. Packed sequences in a cache lie in a batch then, the shorter
        ones behind zeros.

    Raises:
        TypeError: when the state is anything else, or index not a tensor of these dtypes.
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
        check_index(index, state)
        return state[index]
    check_state(state)
    if not hasattr(state, "cu_seqlens"):
        return like(state, (select(part, index) for part in state))
    check_cache(state)
    *parts, borders = in_a_batch(state)
    check_index(index, parts[0])
    if borders is not None:  # cut first: a copy of what is cut does not keep the rest
        *parts, borders = trimmed(parts, borders.diff()[index])
    return like(state, (*(select(part, index) for part in parts), borders))


def join(states: Sequence[Any]) -> Any:
    """One state of all sequences of several: of new ones beside those that run already.

    Args:
        states: what one `Streaming` module handed back, of N₁, N₂, … sequences: tensors, or tuples
            of states; None stays None.

    Returns:
        A state of N₁ + N₂ + … sequences, in this order. The tokens in a cache lie in one row then,
        as those of packed sequences do.

    Raises:
        TypeError: when a state is anything else.
        ValueError: when there are none, or they are not of one module.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.SoftmaxAttention(32, 4)
        >>> _, running = layer(torch.randn(2, 10, 32))
        >>> _, new = layer(torch.randn(1, 3, 32))
        >>> y, state = layer.step(torch.randn(3, 32), nn.join([running, new]))
        >>> y.shape, state.cu_seqlens
        (torch.Size([3, 32]), tensor([ 0, 11, 22, 26]))
    """
    if not isinstance(states, (list, tuple)) or hasattr(states, "_fields"):
        raise TypeError(f"states must be a list of states, got {type(states).__name__}")
    if not states:
        raise ValueError("states must hold at least one state, got none")
    first = states[0]
    if any(type(state) is not type(first) for state in states):
        kinds = ", ".join(type(state).__name__ for state in states)
        raise ValueError(f"states must be of one kind, got {kinds}")
    if first is None:
        return None
    if isinstance(first, Tensor):
        kinds = [described(x, "N", 0) for x in states]
        if len(set(kinds)) > 1:
            raise ValueError(f"states must differ in N alone, got {', '.join(kinds)}")
        return torch.cat(tuple(states))
    check_state(first)
    if any(len(state) != len(first) for state in states):
        raise ValueError(f"states must have as many parts, got {[len(state) for state in states]}")
    if hasattr(first, "cu_seqlens"):
        return like(first, in_one_row(states))
    return like(first, map(join, zip(*states, strict=True)))


def check_index(index: Tensor, state: Tensor) -> None:
    """Check an index of the sequences of a state `[N, ...]`."""
    N = state.shape[0]
    if index.device.type != "cpu":  # whose numbers go anywhere
        check_device("index", index, state, "the state")
    if index.dtype == torch.bool:
        if index.shape[0] != N:
            raise ValueError(f"index must have shape [N] = [{N}], got {list(index.shape)}")
    elif known(lambda: bool(((index < 0) | (index >= N)).any()), index):
        raise ValueError(f"index must be from 0 to N - 1 = {N - 1}, got {index.tolist()}")


def like(state: Any, parts: Iterable[Any]) -> Any:
    """Parts, as a state of the same kind as this one."""
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
