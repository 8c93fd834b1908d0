"""Linear attention as a layer, which takes a sequence whole or in pieces."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor

from assocmem import distributed, ops
from assocmem.arguments import check_bool
from assocmem.nn.mixer import Mixer, scan_on
from assocmem.ops.inputs import check_initial_state
from assocmem.similarity import Similarity, elu_plus_one


class LinearAttention(Mixer):
    """Multi-head linear attention with a feature map (Katharopoulos et al., arXiv:2006.16236).

    y_t = W_o o_t, with o the heads' outputs of `ops.linear_attention` on φ(W_q x), φ(W_k x), W_v x.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        d_key: size K of a head's keys, d_model / n_heads when None.
        d_value: size V of a head's values, d_model / n_heads when None.
        feature_map: φ, applied to queries and keys; keeps their shape or changes the last size.
        normalize: divide the read-out by that of the constant value 1 (Eq. 5 there); needs a
            positive φ.
        backend: passed to `ops.linear_attention`.

    Weights: `Mixer`'s projections.

    Raises:
        TypeError, ValueError: as `Mixer`, and when feature_map is not a function of one tensor (as
            a `Similarity`, of two), or normalize not a bool.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.LinearAttention(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 4, 8, 9]))
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_key: int | None = None,
        d_value: int | None = None,
        feature_map: Callable[[Tensor], Tensor] = elu_plus_one,
        normalize: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, n_heads, d_key=d_key, d_value=d_value, backend=backend)
        check_bool("normalize", normalize)
        if isinstance(feature_map, Similarity):
            raise TypeError(
                "feature_map must be a function of one tensor, such as the feature_map of a "
                f"{type(feature_map).__name__}, got the kernel function itself"
            )
        if not callable(feature_map):
            raise TypeError(f"feature_map must be a function of one tensor, got {feature_map!r}")
        self.feature_map = feature_map
        self.normalize = normalize

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Read and write the memory at every token.

        Args:
            x: tokens `[B, T, d_model]`.
            state: what an earlier piece handed back, `[N, H, m, V]` with m the size of φ (V + 1
                with normalize); None for an empty memory.
            group: the ranks on which the pieces x of a sequence lie, as `Streaming` says.
            cu_seqlens: borders of N packed sequences `[N + 1]`, as `Streaming` says.

        Returns:
            y `[B, T, d_model]`, and the state after the last token, for the next piece.

        Raises:
            TypeError, ValueError: when x is not `[B, T, d_model]`, or the state or cu_seqlens do
                not fit it.
        """
        q, k, v = map(self.heads, self.project(x, cu_seqlens))
        q, k = self.feature_map(q), self.feature_map(k)
        label, columns = ("V + 1", self.d_value + 1) if self.normalize else ("V", self.d_value)
        check_initial_state(state, q, columns, cu_seqlens, label, "state")
        scan = scan_on(group, ops.linear_attention, distributed.linear_attention)
        o, after = scan(
            q,
            k,
            v,
            initial_state=state,
            output_final_state=True,
            cu_seqlens=cu_seqlens,
            normalize=self.normalize,
            backend=self.backend,
        )
        return self.o_proj(o.flatten(-2)), after
