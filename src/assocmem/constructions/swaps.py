"""Swaps: elements change places in a memory, by one write each."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem import similarity
from assocmem.arguments import check_count, check_device, check_finite
from assocmem.constructions.arguments import check_integers, check_pairs
from assocmem.rules import delta_product
from assocmem.similarity import Similarity


def swaps(pairs: Tensor, n: int, backend: str = "auto") -> Tensor:
    """Which element lies in each of n places after each swap, by the delta rule.

    Place i has the key e_i, and the memory starts as S = I: place i holds element i. The swap of
    places i and j writes the value 0 under k = e_j − e_i with β = 1:

        S ← (I − k kᵀ) S

    and I − k kᵀ, with ‖k‖² = 2, is the matrix that exchanges rows i and j. The query (0, 1, …,
    n − 1) reads for every element the number of its place. The state is n × n numbers, all of them
    0 or 1 at every step, so nothing is rounded.

    Args:
        pairs: the two places at each step `[B, T, 2]`, int64.
        n: number of places, at least 2.
        backend: as in `ops.delta_rule`.

    Returns:
        the element in each place `[B, T, n]`, int64.

    Raises:
        TypeError: pairs is not an int64 tensor, or n not an integer.
        ValueError: pairs has the wrong shape, a place that is not among the n, or the same twice.

    Example:
        >>> import torch
        >>> from assocmem import constructions
        >>> pairs = torch.tensor([[[0, 1], [1, 2]]])
        >>> constructions.swaps(pairs, n=3)[0, -1]
        tensor([1, 2, 0])
    """
    check_count("n", n, at_least=2)
    check_pairs(pairs, n)
    return exchanged(pairs[:, :, None], n, backend)


def exchanged(pairs: Tensor, n: int, backend: str) -> Tensor:
    """The element in each place `[B, T, n]`, when every token exchanges some pairs in order.

    Pairs are `[B, T, c, 2]`. Where both places are the same the key is 0, and nothing is written.
    """
    B, T = pairs.shape[:2]
    places = torch.eye(n, dtype=torch.float64, device=pairs.device)
    k = (places[pairs[..., 1]] - places[pairs[..., 0]])[:, :, :, None]  # [B, T, c, H = 1, n]
    o, _ = delta_product(
        torch.arange(n, dtype=k.dtype, device=k.device).expand(B, T, 1, n),
        k,
        torch.zeros_like(k),
        torch.ones_like(k[..., 0]),
        scale=1.0,
        initial_state=places.expand(B, 1, n, n),
        backend=backend,
    )
    return o[:, :, 0].round().long().argsort(-1)


def swaps_of_similar_keys(
    pairs: Tensor,
    keys: Tensor,
    kernel_function: str | Similarity = "round",
    rewrite_every: int | None = None,
) -> Tensor:
    """What lies in each place after each swap, when the places have keys that are not orthogonal.

    A cache holds pairs (k_s, u_s), and DeltaFormer's write corrects what a key recalls:

        u_t = v_t − Σ_{s<t} κ(k_t, k_s) u_s

    First every place is written, with its number as value; the swap of i < j then writes the value
    0 under k_j − k_i. As ‖k_i‖ = 1 and |k_iᵀ k_j| ≤ ε < 1/8, every inner product that occurs lies
    within 4 ε < ½ of an integer, and the kernel function that rounds sees orthogonal keys (Theorem
    1 of Xu et al., DeltaFormer, NeurIPS 2025; the derivation here is ours). With the linear kernel
    function each step adds an error that nothing removes.

    Args:
        pairs: the two places at each step `[B, T, 2]`, int64.
        keys: one key of length 1 per place `[n, d]`, float64.
        kernel_function: κ, by name or as a `Similarity`.
        rewrite_every: after so many swaps, replace the cache by the n keys and what they read, so
            that it never holds more than n + rewrite_every pairs; None never does.

    Returns:
        what is read in each place `[B, T, n]`, float64: exactly the elements' numbers where the
        construction holds.

    Raises:
        TypeError: pairs is not an int64 tensor, keys not a float64 tensor, or rewrite_every not an
            integer.
        ValueError: a shape or a device is wrong, a key is not finite or not of length 1, a place is
            not among the n, or rewrite_every is below 1.

    Example:
        >>> import torch
        >>> from assocmem import constructions
        >>> keys = constructions.unbiased_bases(4)[:1000]  # in 256 dimensions
        >>> pairs = torch.tensor([[[0, 999], [1, 999]]])
        >>> places = constructions.swaps_of_similar_keys(pairs, keys)
        >>> places[0, -1, [0, 1, 999]].tolist()
        [999.0, 0.0, 1.0]
    """
    if not isinstance(keys, Tensor) or keys.dtype != torch.float64:
        kind = keys.dtype if isinstance(keys, Tensor) else type(keys).__name__
        raise TypeError(f"keys must be a float64 tensor, got {kind}")
    if keys.ndim != 2 or len(keys) < 2:
        raise ValueError(f"keys must have shape [n, d] with n >= 2, got {list(keys.shape)}")
    # What can be said of pairs before their numbers are looked at.
    check_integers("pairs", pairs, 3, "[B, T, 2]")
    check_device("pairs", pairs, keys, "keys")
    check_finite("keys", keys)
    off = (keys.norm(dim=-1) - 1).abs().max().item()
    if off > 1e-6:
        raise ValueError(f"keys must have length 1, got one that is off by {off:.3g}")
    check_pairs(pairs, len(keys))
    κ = similarity.get(kernel_function, "kernel_function")
    if rewrite_every is None:
        rewrite_every = max(1, pairs.shape[1])
    rewrite_every = check_count("rewrite_every", rewrite_every)
    if pairs.numel() == 0:
        return keys.new_zeros(*pairs.shape[:2], len(keys))
    held = torch.arange(len(keys), dtype=keys.dtype, device=keys.device).expand(len(pairs), -1)
    contents = []
    for some in pairs.split(rewrite_every, 1):
        contents.append(
            torch.stack([_in_cache(p, keys, κ, h) for p, h in zip(some, held, strict=True)])
        )
        held = contents[-1][:, -1]
    return torch.cat(contents, 1)


def _in_cache(pairs: Tensor, keys: Tensor, κ: Similarity, held: Tensor) -> Tensor:
    """What the keys `[n, d]` read after each of T swaps `[T, 2]`, `[T, n]`."""
    low, high = pairs.sort(-1).values.unbind(-1)
    k = torch.cat((keys, keys[high] - keys[low]))  # [N = n + T, d]
    v = torch.cat((held, held.new_zeros(len(pairs))))
    recalled = κ(k, k)  # [N, N]
    u = torch.linalg.solve_triangular(recalled, v[:, None], upper=False, unitriangular=True)[:, 0]
    read = recalled[: len(keys)] * u  # what each write adds to what each place reads
    written = read[:, : len(keys)].sum(1, keepdim=True)
    return (written + read[:, len(keys) :].cumsum(1)).mT
