"""DeltaNet as a layer: a memory that corrects itself, behind short convolutions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from assocmem import distributed, ops
from assocmem.arguments import check_bool
from assocmem.nn.mixer import HeadNorm, Mixer, check_parts, scan_on
from assocmem.nn.short_convolution import ShortConvolution
from assocmem.nn.state import saveable
from assocmem.ops.autocast import cast
from assocmem.ops.inputs import check_initial_state, state_dtype


@saveable
class DeltaState(NamedTuple):
    """What a layer of the delta rule family remembers: a size that does not grow with T.

    Args:
        S: the memory of every head, `[N, H, K, V]`, as `ops.delta_rule` hands it back; N = B
            unless sequences are packed.
        recent: the short convolution's last inputs, `[N, conv_width - 1, H·(2K + V)]`; of
            `DeltaProduct` with n corrections `[N, conv_width - 1, H·(K + n·(K + V))]`.
    """

    S: Tensor
    recent: Tensor


def l2_normalize(x: Tensor) -> Tensor:
    """x / √(‖x‖² + 10⁻⁶) along the last dimension: length 1, and finite gradients at 0."""
    exact = x.to(state_dtype(x))  # in float16 the square of a length from 256 on is infinite
    return (exact * (exact.square().sum(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)


def parts_of(state: Any) -> tuple[Tensor | None, Tensor | None]:
    """S and the recent tokens of a `DeltaState`, each None at the start.

    Raises:
        TypeError, ValueError: when it is another kind of state.
    """
    if state is None:
        return None, None
    check_parts(state, DeltaState._fields)
    return state


def stable(beta: Tensor, k: Tensor) -> Tensor:
    """The step sizes β `[B, T, H]`, or 2/‖k‖² where that is less, for keys k `[B, T, H, K]`.

    Rounding to bfloat16 makes a key of length 1 longer by up to 0.4 %. Where β may reach 2, the
    transition I − β k kᵀ would then make the memory larger, at every token.
    """
    exact = cast(k)[0].detach().to(state_dtype(k))  # as the operator will round it
    return torch.minimum(beta.to(exact), 2 / exact.square().sum(-1))


class DeltaNet(Mixer):
    """Multi-head delta rule (Yang et al., arXiv:2406.06484).

    q, k = L2-normalised conv(W_q x), conv(W_k x), v = conv(W_v x), β = σ(W_β x), with conv the
    `ShortConvolution` with SiLU; y = W_o RMSNorm(o), with o the heads' outputs of `ops.delta_rule`
    with scale 1: keys and queries have length 1, so what was stored comes back as long as it was.
    (L2-normalised: x / √(‖x‖² + 10⁻⁶), which is shorter for x as short as 10⁻³. Where rounding has
    made a key longer than 1, β is at most 2/‖k‖², so that the memory cannot grow by itself.)

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        d_key: size K of a head's keys, d_model / n_heads when None.
        d_value: size V of a head's values, d_model / n_heads when None.
        allow_negative_eigenvalues: β = 2σ(W_β x), in (0, 2): the transition I − β k kᵀ then has an
            eigenvalue in (−1, 1) instead of (0, 1) (Grazzi et al., arXiv:2411.12537).
        conv_width: how many tokens the short convolutions see.
        backend: passed to `ops.delta_rule`.

    Weights: `Mixer`'s projections; beta_proj `[H, d_model]`, `nn.Linear`'s initialisation, no
    bias; conv, one `ShortConvolution` over the channels of q, k and v; o_norm, an `nn.RMSNorm` of
    size V with ε = 10⁻⁵ that all heads share, initially 1.

    Raises:
        TypeError, ValueError: as `Mixer`, or when conv_width is not an integer >= 1, or
            allow_negative_eigenvalues not a bool.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.DeltaNet(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.S.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_key: int | None = None,
        d_value: int | None = None,
        allow_negative_eigenvalues: bool = False,
        conv_width: int = 4,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, n_heads, d_key=d_key, d_value=d_value, backend=backend)
        check_bool("allow_negative_eigenvalues", allow_negative_eigenvalues)
        self.allow_negative_eigenvalues = allow_negative_eigenvalues
        self.beta_proj = nn.Linear(d_model, n_heads, bias=False)
        self.conv = ShortConvolution(n_heads * (2 * self.d_key + self.d_value), conv_width)
        self.o_norm = HeadNorm(self.d_value)

    def beta(self, x: Tensor) -> Tensor:
        """The step sizes β `[B, T, H]` of tokens `[B, T, d_model]`."""
        beta = self.beta_proj(x).sigmoid()
        return 2 * beta if self.allow_negative_eigenvalues else beta

    def log_decay(self, x: Tensor) -> Tensor | None:
        """The log decays g of tokens `[B, T, d_model]`; None, as this memory forgets nothing."""
        return None

    def read(self, o: Tensor, x: Tensor) -> Tensor:
        """What W_o gets, `[B, T, H, V]`, of read-outs o `[B, T, H, V]` and tokens x."""
        return self.o_norm(o)

    def convolved(
        self, x: Tensor, recent: Tensor | None, group: dist.ProcessGroup | None,
        cu_seqlens: Tensor | None,
    ) -> tuple[tuple[Tensor, ...], Tensor]:  # fmt: skip
        """q, k and v `[B, T, ·]` of tokens x after the short convolution, and its last inputs."""
        qkv = self.project(x, cu_seqlens)
        # One filter per channel: a convolution of all channels is one of q, one of k and one of v.
        filtered, last = self.conv(torch.cat(qkv, -1), recent, group=group, cu_seqlens=cu_seqlens)
        return filtered.split([y.shape[-1] for y in qkv], -1), last

    def scan(
        self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, S: Tensor | None,
        group: dist.ProcessGroup | None, cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """o `[B, T, H, V]` of queries and keys of any length, and the memory after them."""
        q, k = l2_normalize(q), l2_normalize(k)
        check_initial_state(S, q, self.d_value, cu_seqlens, name="state.S")
        scan = scan_on(group, ops.delta_rule, distributed.delta_rule)
        beta = stable(beta, k) if self.allow_negative_eigenvalues else beta
        return scan(
            q, k, v, beta, g, scale=1.0, initial_state=S, output_final_state=True,
            cu_seqlens=cu_seqlens, backend=self.backend,
        )  # fmt: skip

    def corrected(
        self, qkv: tuple[Tensor, ...], x: Tensor, S: Tensor | None,
        group: dist.ProcessGroup | None, cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """What is read at every token, `[B, T, H, V]`, from a memory that all tokens correct."""
        q, k, v = map(self.heads, qkv)
        return self.scan(q, k, v, self.beta(x), self.log_decay(x), S, group, cu_seqlens)

    def forward(
        self,
        x: Tensor,
        state: DeltaState | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, DeltaState]:
        """Read and write the memory at every token.

        Args:
            x: tokens `[B, T, d_model]`.
            state: what an earlier piece handed back; None for an empty memory.
            group: the ranks on which the pieces x of a sequence lie, as `Streaming` says.
            cu_seqlens: borders of N packed sequences `[N + 1]`, as `Streaming` says.

        Returns:
            y `[B, T, d_model]`, and the state after the last token, for the next piece.

        Raises:
            TypeError, ValueError: when x is not `[B, T, d_model]`, or the state or cu_seqlens do
                not fit it.
            NotImplementedError: when sequences are packed, and a group is given.
        """
        S, recent = parts_of(state)
        qkv, recent = self.convolved(x, recent, group, cu_seqlens)
        o, S = self.corrected(qkv, x, S, group, cu_seqlens)
        return self.o_proj(self.read(o, x).flatten(-2)), DeltaState(S, recent)
