"""An associative memory to write to, read from and forget with, for any kernel function.

    write:  S ← γ S + β φ(k) vᵀ,    read:  φ(q)ᵀ S = Σ_i κ(q, k_i) v_i

The operators in `ops` run many such memories over whole sequences. This one is held in the hand:
pairs go in when you say so. Where the kernel function κ has a finite feature map φ, the sum is one
matrix; otherwise the memory has to keep its pairs, as softmax attention keeps its cache.
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from assocmem import similarity as kernel_functions
from assocmem.arguments import check_bool, check_counts, check_device, check_floating_dtype
from assocmem.ops.autocast import without_autocast
from assocmem.ops.readable import known
from assocmem.similarity import Similarity

RULES = ("hebbian", "delta")


class AssociativeMemory:
    """A memory that answers a query q with Σ_i κ(q, k_i) v_i (arXiv:2505.19488, Eq. 1 and 9).

    Args:
        d_k: size of a key and of a query.
        d_v: size of a value.
        similarity: kernel function κ, by its name in `similarity.SIMILARITIES` ("linear",
            "polynomial", "exponential", "relu", …) or as a `Similarity`.
        rule: what a write adds under k. "hebbian": β v. "delta": β (v − read(k)), the part of v
            that the memory does not answer yet; with β = 1/κ(k, k) it overwrites.
        dtype: dtype of what is stored and read, also under `torch.autocast`; float inputs are cast
            to it.
        normalize: divide every reading by Σ_i κ(q, k_i). The divisor is the memory of the constant
            value 1, a last column beside the values; with the exponential kernel function and the
            Hebbian rule the reading is then softmax attention. Kernel functions are summed as they
            are, without the shift that softmax takes: exp(qᵀk/τ) must be finite in dtype, with
            qᵀk/τ < 88 in float32 and < 709 in float64.
        device: where the memory lives.

    Raises:
        TypeError: a size is not an integer, dtype not a floating dtype, similarity neither a name
            nor a `Similarity`, or normalize not a bool.
        ValueError: a size is below 1, or the rule or the name of the kernel function is unknown.

    Example:
        >>> import torch
        >>> from assocmem import AssociativeMemory
        >>> memory = AssociativeMemory(d_k=2, d_v=1, rule="delta")
        >>> k = torch.tensor([0.6, 0.8])
        >>> memory.write(k, torch.tensor([3.0]))
        >>> memory.write(k, torch.tensor([5.0]))
        >>> round(memory.read(k).item(), 3)
        5.0
        >>> memory.forget(k)
        >>> round(memory.read(k).item(), 3)
        0.0
    """

    def __init__(
        self,
        d_k: int,
        d_v: int,
        similarity: str | Similarity = "linear",
        rule: str = "hebbian",
        dtype: torch.dtype = torch.float32,
        *,
        normalize: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        check_counts(d_k=d_k, d_v=d_v)
        if rule not in RULES:
            raise ValueError(f"rule must be one of {list(RULES)}, got {rule!r}")
        check_floating_dtype(dtype)
        check_bool("normalize", normalize)
        self.d_k, self.d_v, self.rule, self.normalize = d_k, d_v, rule, normalize
        self.similarity = kernel_functions.get(similarity)
        self._phi = self.similarity.feature_map
        self._empty = torch.zeros(0, d_k, dtype=dtype, device=device)
        self._keys = self._empty  # stays empty where φ is finite
        rows = 0 if self._phi is None else self._phi(self._empty).shape[-1]
        self._values = self._empty.new_zeros(rows, d_v + normalize)

    def __repr__(self) -> str:
        """As it was made, without what is stored."""
        return (
            f"AssociativeMemory({self.d_k}, {self.d_v}, {self.similarity}, {self.rule!r}, "
            f"normalize={self.normalize})"
        )

    @property
    def state(self) -> Tensor | tuple[Tensor, Tensor]:
        """S `[m, d_v]` where φ is finite, else keys `[N, d_k]` and values `[N, d_v]`.

        With `normalize`, a last column holds the memory of the value 1. It is what the memory
        reads, without a copy: a change of it in place changes the memory, while a write makes a new
        one.
        """
        return (self._keys, self._values) if self._phi is None else self._values

    def write(
        self, k: Tensor, v: Tensor, beta: float | Tensor = 1.0, decay: float | Tensor = 1.0
    ) -> None:
        """Store v under k: S ← decay · S + β φ(k) xᵀ, with x = v, or v − read(k) (delta rule).

        The delta rule reads after the decay. A batch is written in order, one pair after another.

        Args:
            k: key `[d_k]` or keys `[N, d_k]`.
            v: value `[d_v]` or values `[N, d_v]`.
            beta: writing strength, a number or `[N]`.
            decay: factor on all that was stored before, a number or `[N]`.

        Raises:
            TypeError: an argument is not a tensor of floats (or, for beta and decay, not real).
            ValueError: a shape or a device is wrong.
        """
        k, v = self._rows("k", k, self.d_k), self._rows("v", v, self.d_v)
        if len(k) != len(v):
            raise ValueError(f"v must hold as many rows as k, {len(k)}, got {len(v)}")
        beta, decay = self._each("beta", beta, len(k)), self._each("decay", decay, len(k))
        x = torch.cat((v, torch.ones_like(v[:, :1])), -1) if self.normalize else v
        if self.rule == "hebbian":
            # Pair i fades with every later write: β_i Π_{j>i} decay_j.
            later = torch.cat((decay[1:], decay.new_ones(1))).flip(0).cumprod(0).flip(0)[: len(k)]
            self._store(k, (beta * later)[:, None] * x, decay.prod())
            return
        for k_i, x_i, β, γ in zip(k[:, None], x[:, None], beta, decay, strict=True):
            self._store(k_i, β * (x_i - γ * self._recall(k_i)), γ)

    def read(self, q: Tensor) -> Tensor:
        """Σ_i κ(q, k_i) v_i, with `normalize` divided by Σ_i κ(q, k_i).

        Args:
            q: query `[d_k]` or queries `[T, d_k]`.

        Returns:
            `[d_v]` or `[T, d_v]`; NaN or infinite where the divisor is 0, as it is before the first
            write, or beyond the range of the dtype.

        Raises:
            TypeError: q is not a tensor of floats.
            ValueError: q has the wrong shape or device.
        """
        o = self._recall(self._rows("q", q, self.d_k))
        if self.normalize:
            o = o[:, :-1] / o[:, -1:]
        return o[0] if q.ndim == 1 else o

    def forget(self, k: Tensor) -> None:
        """Make read(k) zero, by the smallest change of S: S ← S − φ(k) read(k)ᵀ/κ(k, k).

        A write of u under k adds κ(k, k) u to read(k), so u = −read(k)/κ(k, k) cancels it. This is
        the delta rule's write of 0 with β = 1/κ(k, k), and S is projected off φ(k): a reading
        elsewhere changes by −κ(q, k)/κ(k, k) · read(k). What is stored under keys with κ(q, k) = 0
        stays; a similar key loses its share. Writing −v instead would take out one pair and leave
        the crosstalk of all others at k. With `normalize` the reading is the one before it is
        divided; the divisor is not touched.

        Args:
            k: key `[d_k]`.

        Raises:
            TypeError: k is not a tensor of floats.
            ValueError: k has the wrong shape or device, or κ(k, k) is 0 or not finite (not checked
                under vmap, in a graph that is traced, or on meta).
        """
        rows = self._rows("k", k, self.d_k)
        if k.ndim != 1:
            raise ValueError(f"k must have shape [d_k] = [{self.d_k}], got {list(k.shape)}")
        with without_autocast(rows):
            norm = self.similarity(rows, rows)
        if known(lambda: not norm.any(), norm):
            raise ValueError("k must have κ(k, k) ≠ 0, got 0: nothing can be stored under it")
        if known(lambda: not norm.isfinite().all(), norm):
            raise ValueError(
                f"k must have κ(k, k) that is finite in {norm.dtype}, got {norm.item()}"
            )
        u = -self._recall(rows) / norm
        if self.normalize:
            u = torch.cat((u[:, :-1], torch.zeros_like(u[:, -1:])), -1)
        self._store(rows, u, u.new_ones(()))

    def _recall(self, q: Tensor) -> Tensor:
        """The reading before any division, `[T, d_k]` → `[T, columns]`."""
        with without_autocast(q):
            if self._phi is None:
                return self.similarity(q, self._keys) @ self._values
            return self._phi(q) @ self._values

    def _store(self, k: Tensor, u: Tensor, decay: Tensor) -> None:
        """Scale all that is stored by decay, and add u under k."""
        if self._phi is None:
            self._keys = torch.cat((self._keys, k))
            self._values = torch.cat((decay * self._values, u))
            return
        with without_autocast(k):
            self._values = decay * self._values + self._phi(k).mT @ u

    def _rows(self, name: str, x: Tensor, size: int) -> Tensor:
        """x `[size]` or `[N, size]` as rows in the memory's dtype."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a tensor of floats, got {kind}")
        if x.ndim not in (1, 2) or x.shape[-1] != size:
            raise ValueError(f"{name} must have shape [{size}] or [N, {size}], got {list(x.shape)}")
        check_device(name, x, self._empty, "the memory")
        return x.to(self._empty.dtype).reshape(-1, size)

    def _each(self, name: str, x: float | Tensor, n: int) -> Tensor:
        """A number for all n pairs, or one each, as `[n]`."""
        if isinstance(x, bool) or not isinstance(x, (Tensor, Real)):
            raise TypeError(f"{name} must be a number or a tensor, got {type(x).__name__}")
        if isinstance(x, Tensor) and (x.is_complex() or x.dtype == torch.bool):
            raise TypeError(f"{name} must be a tensor of real numbers, got {x.dtype}")
        if isinstance(x, Tensor):
            check_device(name, x, self._empty, "the memory")
        x = torch.as_tensor(x, dtype=self._empty.dtype, device=self._empty.device)
        if x.shape not in ((), (n,)):
            raise ValueError(f"{name} must be a number or have shape [{n}], got {list(x.shape)}")
        return x.expand(n)
