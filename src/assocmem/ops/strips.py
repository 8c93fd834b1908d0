"""DeltaFormer's corrections strip by strip, as one operator with its own backward pass.

A strip is C rows of the weights P_ts = κ₁(w_t, k_s): a part left of the diagonal, which weighs what
earlier strips have solved, and a triangle on it. One strip at a time is all that is held of P.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.ops.autocast import without_autocast
from assocmem.ops.chunks import CHUNK
from assocmem.ops.erase import score_gradient, strip
from assocmem.ops.poison import known_to_be_finite, without_poison
from assocmem.ops.transforms import refuse
from assocmem.ops.triangular import solve, solve_transposed, wide


def strips(T: int, before: int) -> list[tuple[slice, slice]]:
    """The strips of T tokens that follow others: their rows among the T, and among all."""
    return [
        (slice(start, start + CHUNK), slice(before + start, before + start + CHUNK))
        for start in range(0, T, CHUNK)
    ]


@torch.library.custom_op("assocmem::deltaformer_chunk", mutates_args=())
def solve_strips(
    w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor, erase: str
) -> tuple[Tensor, Tensor]:
    """U and what each token recalls, Y = P U, from tensors with all heads in the first dimension.

    One operator to PyTorch: a compiled graph holds one node instead of a loop, and the backward
    pass computes each strip of P again instead of keeping all of them.

    Args:
        w: erase keys of the last T of S tokens, `[N, T, K]`.
        k: keys `[N, S, K]`.
        v: values `[N, T, V]`.
        beta: step sizes `[N, T]`.
        past: u of the first S − T tokens, `[N, S - T, V]`.
        erase: κ₁.
    """
    before, clean = past.shape[1], known_to_be_finite(w, k, v, beta, past)
    u, y = torch.cat((past, v), 1), torch.empty_like(v)
    for rows, own in strips(v.shape[1], before):
        P, β = strip(w[:, rows], k[:, : own.stop], erase), beta[:, rows, None]
        left, triangle = P[..., : own.start], P[..., own.start :]
        recalled = left @ u[:, : own.start]
        L, D = β * triangle, torch.addcmul(v[:, rows], β, recalled, value=-1)
        if clean:
            u[:, own] = solve(wide(L), D)
        else:  # a NaN or infinity is taken out, and put back into every row from its own on
            L, lost_of_L = without_poison(L)
            D, lost = without_poison(D)
            u[:, own] = solve(wide(L), D) + lost + lost_of_L.sum(-1, keepdim=True)
        y[:, rows] = torch.baddbmm(recalled, triangle, u[:, own])
    return u[:, before:].clone(), y


@solve_strips.register_fake
def _(w, k, v, beta, past, erase):
    return v.new_empty(v.shape), v.new_empty(v.shape)


@torch.library.custom_op("assocmem::deltaformer_chunk_backward", mutates_args=())
def solve_strips_backward(
    w: Tensor,
    k: Tensor,
    beta: Tensor,
    past: Tensor,
    u: Tensor,
    y: Tensor,
    du: Tensor,
    erase: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, k, v, beta and past from that of U, strip by strip from the last.

    G_c = (I + Diag(β_c) P_cc)⁻ᵀ (dU_c − Σ_{c'>c} P_{c'c}ᵀ (β ⊙ G)_{c'}) is the gradient of V_c, and
    that of P is −(β ⊙ G) Uᵀ. Two sums over the earlier tokens are known without P: dβ = −⟨G, y⟩,
    and for the softmax the inner product of a row of P with its gradient, −⟨β ⊙ G, y⟩.
    """
    before = past.shape[1]
    u, G = torch.cat((past, u), 1), torch.cat((torch.zeros_like(past), du), 1)
    dw, dk = torch.empty_like(w), torch.zeros_like(k)
    for rows, own in reversed(strips(w.shape[1], before)):
        W, seen = w[:, rows], slice(0, own.stop)
        P, β = strip(W, k[:, seen], erase), beta[:, rows, None]
        left, triangle = P[..., : own.start], P[..., own.start :]
        # Not in float64, as U is: gradients would hardly be more exact.
        G[:, own] = solve_transposed(β * triangle, G[:, own])
        B = β * G[:, own]
        G[:, : own.start].baddbmm_(left.mT, B, alpha=-1)
        dP = torch.bmm(B, u[:, seen].mT).neg_()
        dS = score_gradient(P, dP, -(B * y[:, rows]).sum(-1), erase)
        dw[:, rows] = dS @ k[:, seen]
        dk[:, seen].baddbmm_(dS.mT, W)
    dpast, dv = G.split([before, w.shape[1]], 1)
    return dw, dk, dv.clone(), -(dv * y).sum(-1), dpast.clone()


@solve_strips_backward.register_fake
def _(w, k, beta, past, u, y, du, erase):
    return tuple(x.new_empty(x.shape) for x in (w, k, u, beta, past))


def _setup_context(ctx, inputs, output):
    w, k, _v, beta, past, ctx.erase = inputs
    ctx.save_for_backward(w, k, beta, past, *output)


def _backward(ctx, du, _dy):
    with without_autocast(du):
        gradients = solve_strips_backward(*ctx.saved_tensors, du, ctx.erase)
    return *gradients, None


solve_strips.register_autograd(_backward, setup_context=_setup_context)
solve_strips_backward.register_autograd(refuse)


def _over_a_batch(operator):
    """The operator's rule for `vmap`: one more batch dimension is more heads."""

    def rule(info, in_dims, *arguments):
        n = info.batch_size
        folded = []
        for x, dim in zip(arguments, in_dims, strict=True):
            if isinstance(x, Tensor):
                x = x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0)
                x = x.flatten(0, 1).contiguous()
            folded.append(x)
        outputs = operator(*folded)
        return tuple(x.unflatten(0, (n, -1)) for x in outputs), (0,) * len(outputs)

    return rule


solve_strips.register_vmap(_over_a_batch(solve_strips))
solve_strips_backward.register_vmap(_over_a_batch(solve_strips_backward))
