"""Arguments that every operator has to refuse: what is changed, the error, and what it says."""

from __future__ import annotations

import torch

q = torch.zeros(2, 10, 3, 4)  # what is right for q, k and v
BAD_FOR_ALL = {
    "q no tensor": (dict(q=[1.0]), TypeError, r"q must be a torch.Tensor, got list"),
    "q sparse": (
        dict(q=q.to_sparse()),
        TypeError,
        r"q must be a dense tensor, got layout torch.sparse_coo",
    ),
    "v nested": (
        dict(v=torch.nested.as_nested_tensor(q[:, 0])),
        TypeError,
        r"v must be a dense tensor, with cu_seqlens for several lengths, got a nested one",
    ),
    "q rank": (dict(q=q[0]), ValueError, r"q must have shape \[B, T, H, K\], got \[10, 3, 4\]"),
    "q integer": (dict(q=q.long()), TypeError, r"q must be float16.*got torch.int64"),
    "k dtype": (dict(k=q.double()), TypeError, r"k must be .* the same as q .*got torch.float64"),
    "k shape": (
        dict(k=q[..., :3]),
        ValueError,
        r"k must have shape \[B, T, H, K\] = \[2, 10, 3, 4\] like q",
    ),
    "v shape": (dict(v=q[:, :9]), ValueError, r"v must have shape .*got \[2, 9, 3, 4\]"),
    "v device": (dict(v=q.to("meta")), ValueError, r"v must be on cpu like q, got meta"),
    "K is 0": (dict(q=q[..., :0], k=q[..., :0]), ValueError, r"K and V must be at least 1"),
    "V is 0": (dict(v=q[..., :0]), ValueError, r"K and V must be at least 1"),
    "borders with a batch": (
        dict(cu_seqlens=torch.tensor([0, 10])),
        ValueError,
        r"batch size 1 with cu_seqlens, got 2",
    ),
    "borders dtype": (
        dict(cu_seqlens=torch.tensor([0.0, 10.0])),
        TypeError,
        r"cu_seqlens must be int32 or int64",
    ),
    "borders no tensor": (
        dict(cu_seqlens=[0, 10]),
        TypeError,
        r"cu_seqlens must be a torch.Tensor, got list",
    ),
    "borders rank": (
        dict(cu_seqlens=torch.tensor([[0, 10], [0, 10]])),
        ValueError,
        r"cu_seqlens must have shape \[N \+ 1\] with N >= 1, got \[2, 2\]",
    ),
    "borders of nothing": (
        dict(cu_seqlens=torch.tensor([10])),
        ValueError,
        r"cu_seqlens must have shape \[N \+ 1\] with N >= 1, got \[1\]",
    ),
    "k device": (dict(k=q.to("meta")), ValueError, r"k must be on cpu like q, got meta"),
    "borders device": (
        dict(cu_seqlens=torch.tensor([0, 10], device="meta")),
        ValueError,
        r"cu_seqlens must be on cpu like q, got meta",
    ),
    "scale is infinite": (
        dict(scale=float("inf")),
        ValueError,
        r"scale must be finite, got inf",
    ),
    "backend": (dict(backend="cuda"), ValueError, r"backend must be one of .*got 'cuda'"),
}
