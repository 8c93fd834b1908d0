"""Scans of sequences that are split over the ranks of a process group.

Whatever the tokens of a piece are, the piece acts on the state before it as an affine map:

    S_out = P S_in + S

S is what the piece leaves in an empty memory, and P what it makes of the identity when it writes
nothing; both are states of one scan. Every rank scans its piece once for its map, the maps of all
ranks are gathered, and those before its own give the state in which its second scan begins. What
is sent is K (K + V) numbers per head and 2 K V backward, whatever the length of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from assocmem import ops
from assocmem.arguments import check_bool
from assocmem.distributed.piece import check_group, gather, lengths
from assocmem.ops import inputs
from assocmem.ops.autocast import cast, without_autocast


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    normalize: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """`ops.linear_attention` of a sequence whose pieces lie on the ranks of a group, in order.

    Args:
        q: queries of this rank's piece `[B, T_r, H, K]`; the lengths T_r may differ.
        k: keys `[B, T_r, H, K]`.
        v: values `[B, T_r, H, V]`.
        g: natural log of the decay, `[B, T_r, H]`, `[B, T_r, H, K]` or None, on all ranks alike.
        group: the ranks that share the sequence, such as `mesh.get_group("sequence")` of a
            `DeviceMesh`; all of them when None.
        scale: factor on the output, K ** -0.5 when None.
        initial_state: S before the first token of all, `[N, H, K, V]`; that of rank 0 counts.
        output_final_state: hand back S after the last token of all, on every rank. The gradients
            that the ranks send into it are added.
        cu_seqlens: borders of N sequences in the whole sequence, int32 or int64 `[N + 1]` from 0 to
            Σ T_r, the same on all ranks; a sequence may cross ranks.
        normalize: as in `ops.linear_attention`; states are then `[N, H, K, V + 1]`.
        backend: as in `ops.linear_attention`.

    Returns:
        o `[B, T_r, H, V]` of this rank's piece in v's dtype, and the final state or None.

    Raises:
        TypeError, ValueError, RuntimeError: as `ops.linear_attention`, and when the process group
            is not initialised, this rank is not in it, or gradients are differentiated again.

    Example:
        >>> import tempfile, torch
        >>> from assocmem import distributed, ops
        >>> store = f"file://{tempfile.mkdtemp()}/store"
        >>> torch.distributed.init_process_group("gloo", store, rank=0, world_size=1)
        >>> q, k, v = torch.randn(3, 1, 10, 2, 4)
        >>> o, S = distributed.linear_attention(q, k, v, output_final_state=True)
        >>> torch.allclose(o, ops.linear_attention(q, k, v)[0])  # one rank has the whole sequence
        True
        >>> torch.distributed.destroy_process_group()
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    check_bool("normalize", normalize)
    check_bool("output_final_state", output_final_state)
    check_group(group)
    borders = own_borders(cu_seqlens, q, group)
    scan = partial(
        ops.linear_attention, q, k, g=g, scale=scale, output_final_state=True, cu_seqlens=borders,
        backend=backend,
    )  # fmt: skip
    written = torch.cat((v, torch.ones_like(v[..., :1])), -1) if normalize else v
    before, last = states(scan, q, written, initial_state, borders, group)
    o, _ = scan(v, initial_state=before, normalize=normalize)
    return o, last if output_final_state else None


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """`ops.delta_rule` of a sequence whose pieces lie on the ranks of a group, in order.

    Args:
        q: queries of this rank's piece `[B, T_r, H, K]`; the lengths T_r may differ.
        k: keys `[B, T_r, H, K]`.
        v: values `[B, T_r, H, V]`.
        beta: step sizes β `[B, T_r, H]`.
        g: natural log of the decay, `[B, T_r, H]`, `[B, T_r, H, K]` or None, on all ranks alike.
        group: the ranks that share the sequence, such as `mesh.get_group("sequence")` of a
            `DeviceMesh`; all of them when None.
        scale: factor on the output, K ** -0.5 when None.
        initial_state: S before the first token of all, `[N, H, K, V]`; that of rank 0 counts.
        output_final_state: hand back S after the last token of all, on every rank. The gradients
            that the ranks send into it are added.
        cu_seqlens: borders of N sequences in the whole sequence, int32 or int64 `[N + 1]` from 0 to
            Σ T_r, the same on all ranks; a sequence may cross ranks.
        backend: as in `ops.delta_rule`.

    Returns:
        o `[B, T_r, H, V]` of this rank's piece in v's dtype, and the final state or None.

    Raises:
        TypeError, ValueError, RuntimeError: as `ops.delta_rule`, and when the process group is not
            initialised, this rank is not in it, or gradients are differentiated again.

    Example:
        >>> import tempfile, torch
        >>> from assocmem import distributed, ops
        >>> store = f"file://{tempfile.mkdtemp()}/store"
        >>> torch.distributed.init_process_group("gloo", store, rank=0, world_size=1)
        >>> q, k, v = torch.nn.functional.normalize(torch.randn(3, 1, 10, 2, 4), dim=-1)
        >>> beta = torch.rand(1, 10, 2)
        >>> o, S = distributed.delta_rule(q, k, v, beta, output_final_state=True)
        >>> torch.allclose(o, ops.delta_rule(q, k, v, beta)[0])  # one rank has the whole sequence
        True
        >>> torch.distributed.destroy_process_group()
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    check_bool("output_final_state", output_final_state)
    check_group(group)
    borders = own_borders(cu_seqlens, q, group)
    scan = partial(
        ops.delta_rule, q, k, beta=beta, g=g, scale=scale, output_final_state=True,
        cu_seqlens=borders, backend=backend,
    )  # fmt: skip
    before, last = states(scan, q, v, initial_state, borders, group)
    o, _ = scan(v, initial_state=before)
    return o, last if output_final_state else None


def states(
    scan: Callable,
    q: Tensor,
    v: Tensor,
    initial_state: Tensor | None,
    borders: Tensor | None,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor]:
    """The states before this rank's piece, and after the last piece, of a scan that writes v."""
    inputs.check_initial_state(initial_state, q, v.shape[-1], borders)
    empty = inputs.empty_state(q, v.shape[-1], borders)
    start = empty if initial_state is None else initial_state
    P, S = transfer(scan, v, empty)
    with without_autocast(q):  # states stay in float32
        return StateBefore.apply(P, S, start, group)


def transfer(scan: Callable, v: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
    """P `[N, H, K, K]` and S `[N, H, K, V]` of this piece, S_out = P S_in + S, by one scan.

    Zeros are written beside the piece's values, into columns that start as the identity.
    """
    K, V = empty.shape[2:]
    identity = torch.eye(K, dtype=empty.dtype, device=empty.device).expand(*empty.shape[:2], K, K)
    wider = torch.cat((v, v.new_zeros(*v.shape[:3], K)), -1)
    _, end = scan(wider, initial_state=torch.cat((empty, identity), -1))
    S, P = end.split([V, K], -1)
    return P, S


class StateBefore(torch.autograd.Function):
    """The state before this rank's piece, and that after the last piece, from the maps of all.

    Maps combine as (P₂, S₂) after (P₁, S₁) = (P₂ P₁, P₂ S₁ + S₂). Backward the same chain is walked
    from the end: with D_r the gradient of the state after piece r, D_{r-1} = P_rᵀ D_r plus that of
    the state before piece r, and dS_r = D_r, dP_r = D_r S_{r-1}ᵀ. Each way takes one gathering in
    which every rank takes part, whatever it needs itself.
    """

    @staticmethod
    def forward(ctx, P: Tensor, S: Tensor, start: Tensor, group) -> tuple[Tensor, Tensor]:
        """S before this piece, and after the last one."""
        rank = dist.get_rank(group)
        if rank == 0:  # its map of the start is known
            S = P @ start + S
        every = gather(torch.cat((P, S), -1), group)
        maps = [x.split([P.shape[-1], S.shape[-1]], -1) for x in every]
        states = [maps[0][1]]
        for P_r, S_r in maps[1:]:
            states.append(P_r @ states[-1] + S_r)
        before = start.clone() if rank == 0 else states[rank - 1].clone()
        ctx.save_for_backward(before, *(P_r for P_r, _ in maps[rank:]))
        ctx.group = group
        return before, states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of P, S and start from those of both states."""
        d_before, d_last = grad_outputs
        before, P, *later = ctx.saved_tensors
        rank = dist.get_rank(ctx.group)
        every = gather(torch.cat((d_before, d_last), -1), ctx.group)
        both = [x.chunk(2, -1) for x in every]
        D = torch.stack([of_last for _, of_last in both]).sum(0)
        for P_r, (of_before, _) in reversed(list(zip(later, both[rank + 1 :], strict=True))):
            D = P_r.mT @ D + of_before
        # Zeros rather than None: whatever made the start has to go backward on every rank.
        d_start = P.mT @ D + d_before if rank == 0 else torch.zeros_like(D)
        return D @ before.mT, D, d_start, None


def own_borders(
    cu_seqlens: Tensor | None, q: Tensor, group: dist.ProcessGroup | None
) -> Tensor | None:
    """The borders of all N sequences within this rank's piece; those elsewhere have length 0."""
    if cu_seqlens is None:
        return None
    sizes = lengths(q, group)
    whole = q.new_empty(1).expand(q.shape[0], sum(sizes), *q.shape[2:])  # takes no memory
    inputs.check_cu_seqlens(cu_seqlens, whole)
    start = sum(sizes[: dist.get_rank(group)])
    return cu_seqlens.clamp(start, start + q.shape[1]) - start
