"""The dihedral groups: two layers of the delta rule, each with one reflection per token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assocmem import ops
from assocmem.arguments import check_count
from assocmem.constructions.arguments import check_integers
from assocmem.constructions.parity import parity


def dihedral(tokens: Tensor, m: int, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """The product so far in the dihedral group of 2 m elements, r^a s^b with s r = r⁻¹ s.

    Token 0 is the rotation r, token 1 the reflection s. b is the parity of the reflections, and a
    changes by d_t = ±1 at a rotation, with the sign (−1)^b, and by 0 at a reflection.

    A first layer keeps two parities: that of the reflections, and that of the position t. A second
    layer holds a point in the plane, and each of its writes mirrors the point in a line at the
    angle φ_t, with the value 0 under the line's normal and β = 2. A mirrored angle is
    θ_t = 2 φ_t − θ_{t-1}. With φ_t = (−1)^t π d_t / m the point stands at θ_t = (−1)^t 2π a_t / m:
    two reflections make a rotation, and the parity of t tells which of the two is due.

    Args:
        tokens: 0 and 1 `[B, T]`, int64.
        m: corners of the polygon, at least 2.
        backend: as in `ops.delta_rule`.

    Returns:
        a `[B, T]` in 0 … m − 1, and b `[B, T]`, int64.

    Raises:
        TypeError: tokens is not an int64 tensor, or m not an integer.
        ValueError: tokens has the wrong shape or another entry, or m is below 2.

    Example:
        >>> import torch
        >>> from assocmem import constructions
        >>> tokens = torch.tensor([[0, 0, 1, 0]])  # after the reflection a turn goes back
        >>> constructions.dihedral(tokens, m=5)
        (tensor([[1, 2, 2, 1]]), tensor([[0, 0, 1, 1]]))
    """
    check_count("m", m, at_least=2)
    check_integers("tokens", tokens, 2, "[B, T]", below=2)
    b = parity(tokens, backend)
    side = 1 - 2 * parity(torch.ones_like(tokens), backend).double()  # (−1)^t
    step = (1 - tokens) * (1 - 2 * b)  # at a rotation b is what it was before
    φ = side * math.pi * step / m
    normal = torch.stack((-φ.sin(), φ.cos()), -1)[:, :, None]  # [B, T, 1, 2]
    q = torch.eye(2, dtype=torch.float64, device=φ.device).expand(*tokens.shape, 2, 2)
    start = q.new_tensor([1.0, 0.0])[:, None].expand(len(tokens), 2, 2, 1)
    beta = torch.full_like(q[..., 0], 2.0)
    o, _ = ops.delta_rule(
        q,
        normal.expand_as(q),
        torch.zeros_like(q[..., :1]),
        beta,
        scale=1.0,
        initial_state=start,
        backend=backend,
    )
    x, y = o[..., 0].unbind(-1)  # the two heads read the two coordinates
    θ = side * torch.atan2(y, x)
    return (θ * m / (2 * math.pi)).round().long() % m, b
