"""DeltaFormer as a layer: softmax attention that corrects what it writes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from assocmem.arguments import check_bool
from assocmem.nn.cache import checked_cache, has_borders
from assocmem.nn.delta_net import l2_normalize, stable
from assocmem.nn.mixer import Mixer
from assocmem.nn.place import Packed, following
from assocmem.nn.rotary import check_rotary, rotate
from assocmem.nn.state import saveable
from assocmem.ops.deltaformer import write_and_read, write_and_read_packed
from assocmem.ops.erase import check_erase
from assocmem.ops.inputs import state_dtype


@saveable
class KUCache(NamedTuple):
    """What DeltaFormer remembers of S tokens: as much as softmax attention does.

    Args:
        k: keys `[B, S, H, K]`, turned by their positions with rotary.
        u: corrections `[B, S, H, V]`, float32 (float64 for float64 inputs).
        cu_seqlens: borders `[N + 1]` of N packed sequences. After packed tokens they lie in one
            row, B = 1; after steps in N rows, the shorter ones behind zeros. None for B sequences
            of S.
    """

    k: Tensor
    u: Tensor
    cu_seqlens: Tensor | None = None


class DeltaFormer(Mixer):
    """Multi-head DeltaFormer (Zhong et al., arXiv:2505.19488).

    y = W_o o, with o the heads' outputs of `ops.deltaformer` on W_q x, W_k x and W_v x, with
    β = σ(W_β x). With the kernel functions "linear" and "relu", which have no scale of their own,
    keys and erase keys are L2-normalised, x / √(‖x‖² + 10⁻⁶), the scale of the reading is 1, and β
    at most 2/‖k‖², where rounding has made a key longer than 1.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        d_key: size K of a head's keys, d_model / n_heads when None.
        d_value: size V of a head's values, d_model / n_heads when None.
        erase: κ₁, as for `ops.deltaformer`: "softmax", "linear" or "relu".
        own_erase_keys: erase with w = W_w x instead of w = k.
        allow_negative_eigenvalues: β = 2σ(W_β x), in (0, 2), for the kernel function "linear", with
            which the memory is DeltaNet's (Grazzi et al., arXiv:2411.12537).
        rotary: turn queries, keys and erase keys by their positions, as `SoftmaxAttention` does;
            needs an even K.
        backend: as for `ops.deltaformer`.

    Weights: `Mixer`'s projections; beta_proj `[H, d_model]` and, with own_erase_keys, w_proj
    `[H·K, d_model]`, both without bias and with `nn.Linear`'s initialisation.

    Raises:
        TypeError, ValueError: as `Mixer`, or when erase is unknown, K is odd with rotary, or an
            option that is on or off not a bool.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.DeltaFormer(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.u.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 10, 4, 8]))
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_key: int | None = None,
        d_value: int | None = None,
        erase: str = "softmax",
        own_erase_keys: bool = False,
        allow_negative_eigenvalues: bool = False,
        rotary: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, n_heads, d_key=d_key, d_value=d_value, backend=backend)
        check_erase(erase)
        check_bool("own_erase_keys", own_erase_keys)
        check_bool("allow_negative_eigenvalues", allow_negative_eigenvalues)
        check_bool("rotary", rotary)
        if rotary:
            check_rotary(self.d_key)
        self.erase = erase
        self.rotary = rotary
        self.allow_negative_eigenvalues = allow_negative_eigenvalues
        self.beta_proj = nn.Linear(d_model, n_heads, bias=False)
        self.w_proj = (
            nn.Linear(d_model, n_heads * self.d_key, bias=False) if own_erase_keys else None
        )

    def extra_repr(self) -> str:
        """Heads, their sizes, κ₁ and positions."""
        return f"{super().extra_repr()}, erase={self.erase!r}, rotary={self.rotary}"

    def forward(
        self,
        x: Tensor,
        state: KUCache | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, KUCache]:
        """Correct, write and read at every token.

        One token after others reads what they left once, for its erase key and its query.

        Args:
            x: tokens `[B, T, d_model]`.
            state: what an earlier piece handed back, with S tokens; None at the start.
            group: None; a sequence cannot be split over ranks here.
            cu_seqlens: borders of N packed sequences `[N + 1]`, as `Streaming` says.

        Returns:
            y `[B, T, d_model]`, and the state with S + T tokens, for the next piece.

        Raises:
            TypeError, ValueError: when x is not `[B, T, d_model]`, or the state or cu_seqlens do
                not fit it.
            NotImplementedError: when a group is given.
        """
        if group is not None:
            raise NotImplementedError(
                "DeltaFormer takes no group: each of its corrections needs all corrections before "
                "it, so that ranks would have to wait for each other. All other mixers take one"
            )
        q, k, v = map(self.heads, self.project(x, cu_seqlens))
        w = k if self.w_proj is None else self.heads(self.w_proj(x))
        beta = self.beta_proj(x).sigmoid()
        beta = 2 * beta if self.allow_negative_eigenvalues else beta
        scale = self.d_key**-0.5
        if self.erase != "softmax":
            w, k, scale = l2_normalize(w), l2_normalize(k), 1.0
        one_token = x.shape[1] == 1 and self.backend != "recurrent"
        if cu_seqlens is None and has_borders(state) and not one_token:
            # More tokens have a system to solve, which knows no padding.
            cu_seqlens = x.shape[1] * torch.arange(x.shape[0] + 1, device=x.device)
            q, w, k, v, beta = (y.flatten(0, 1)[None] for y in (q, w, k, v, beta))
        if state is not None:
            state = checked_cache(state, KUCache(k, v.to(state_dtype(v)), cu_seqlens))
        place = following(state, q, cu_seqlens)
        if self.rotary:
            positions = place.positions()
            q, w, k = rotate(q, positions), rotate(w, positions), rotate(k, positions)
        if self.allow_negative_eigenvalues and self.erase != "softmax":
            beta = stable(beta, k)
        if state is not None:
            k = place.append(state.k, k)
        past = v[:, :0].to(state_dtype(v)) if state is None else state.u
        tokens = (q, w, k, v, beta, past, self.erase, scale, self.backend)
        if isinstance(place, Packed):
            o, u = write_and_read_packed(*tokens, place.past, place.new)
        else:
            o, u = write_and_read(*tokens, place.hidden)
        o = o.reshape(*x.shape[:2], self.n_heads * self.d_value)
        return self.o_proj(o), KUCache(k, u, place.borders)
