"""What `benchmarks/gpu.py` measures: operators, shapes, inputs, references and floors.

q, k and v are random bfloat16, β and log decays float32. The reference is the chunk form in
float64, for the last heads of the last sequence.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem import ops

DEVICE, DTYPE = "cuda", torch.bfloat16

# Operations and bytes a second, from NVIDIA's product data: bfloat16 tensor cores, memory.
PEAKS = {
    "NVIDIA A100-SXM4-80GB": (312e12, 2.039e12),
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA H200": (989e12, 4.8e12),
}

# In the order in which they are measured, the first ones for certain.
VARIANTS = (
    ("delta_rule", "head"), ("linear_attention", "none"), ("delta_rule", "none"),
    ("deltaformer", "none"), ("softmax_attention", "none"), ("linear_attention", "head"),
    ("delta_rule", "channel"), ("linear_attention", "channel"),
)  # fmt: skip
OPERATORS = tuple(dict.fromkeys(operator for operator, _ in VARIANTS))
QUADRATIC = ("softmax_attention", "deltaformer")
TOKENS = 65_536
LENGTHS = (2048, 4096, 8192, 16_384, 32_768, 65_536)
PUBLISHED = (8, 4096, 32, 128)  # B, T, H, D that others have published
FEW_HEADS = (1, TOKENS, 4, 128)

FLA = {
    ("linear_attention", "none"): ("chunk_linear_attn", {"normalize": False}),
    ("linear_attention", "head"): ("chunk_simple_gla", {}),
    ("linear_attention", "channel"): ("chunk_gla", {}),
    ("delta_rule", "none"): ("chunk_delta_rule", {}),
    ("delta_rule", "head"): ("chunk_gated_delta_rule", {}),
    ("delta_rule", "channel"): ("chunk_kda", {}),
}


@dataclass(frozen=True)
class Case:
    """One operator, gate and shape: q, k and v are `[B, T, H, D]`."""

    operator: str
    gate: str
    B: int
    T: int
    H: int
    D: int


Todo = list[tuple[Case, str]]  # cases, and the implementations that compute them


def cases() -> Iterator[Case]:
    """All rows, shape by shape, so that a budget that ends early has cut no operator short.

    Every number and size of heads comes once before lengths are swept.
    """
    sizes = [(H, D) for D in (128, 64) for H in (32, 16)]
    once = [(TOKENS // 4096, 4096, *size) for size in sizes[1:]]
    swept = [(TOKENS // T, T, *size) for size in sizes for T in LENGTHS]
    for shape in dict.fromkeys((PUBLISHED, FEW_HEADS, *once, *swept)):
        for operator, gate in VARIANTS:
            yield Case(operator, gate, *shape)


def inputs(case: Case) -> tuple[dict[str, Tensor], Tensor]:
    """What the operator takes, by name, and a gradient of its output."""
    generator = torch.Generator(DEVICE).manual_seed(0)

    def normal(*last: int) -> Tensor:
        shape = (case.B, case.T, case.H, *last)
        return torch.randn(*shape, generator=generator, device=DEVICE)

    x = {name: normal(case.D).to(DTYPE) for name in "qkv"}
    if case.operator == "delta_rule":
        x["k"] = F.normalize(x["k"].float(), dim=-1).to(DTYPE)
    if case.operator in ("delta_rule", "deltaformer"):
        x["beta"] = normal().sigmoid()
    if case.gate != "none":  # decays near 0.95
        x["g"] = F.logsigmoid(normal(*(case.D,) * (case.gate == "channel")) + 3)
    return x, normal(case.D).to(DTYPE)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's causal softmax attention."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def ours(operator: str, backend: str, **x: Tensor) -> Tensor:
    """An operator of the library; DeltaFormer erases by its queries, as fla's does."""
    w = {"w": x["q"]} if operator == "deltaformer" else {}
    result = getattr(ops, operator)(**x, **w, backend=backend)
    return result if isinstance(result, Tensor) else result[0]


def fla(case: Case, **x: Tensor) -> Tensor:
    """fla's form of an operator, imported when it is first called."""
    if case.operator == "deltaformer":  # its public function needs the package flash_attn to read
        module = importlib.import_module("fla.ops.deltaformer.parallel")
        size = min(module.BLOCK_SIZE_C, case.T)
        u = module.ParallelDeltaformerFunction.apply(x["q"], x["k"], x["v"], x["beta"], size, None)
        return attention(x["q"], x["k"], u)
    name, options = FLA[case.operator, case.gate]
    return getattr(importlib.import_module("fla.ops"), name)(**x, **options)[0]


def version_of_fla() -> str | None:
    """fla's version, None where it is not installed."""
    try:
        return importlib.metadata.version("fla-core")
    except importlib.metadata.PackageNotFoundError:
        return None


def implementations(case: Case) -> dict[str, Callable[..., Tensor]]:
    """What computes a case, by name."""
    if case.operator == "softmax_attention":
        return {"torch": attention}
    found: dict[str, Callable[..., Tensor]] = {"assocmem": partial(ours, case.operator, "triton")}
    return found | ({"fla": partial(fla, case)} if version_of_fla() else {})


def planned(selected: list[Case]) -> Todo:
    """All that is to be measured."""
    return [(case, name) for case in selected for name in implementations(case)]


def forward_backward(
    form: Callable[..., Tensor], x: dict[str, Tensor], do: Tensor
) -> dict[str, Tensor]:
    """The output and the gradients of all inputs, by name."""
    leaves = {name: y.detach().requires_grad_() for name, y in x.items()}
    o = form(**leaves)
    gradients = torch.autograd.grad(o, list(leaves.values()), do)
    return {"o": o.detach(), **{f"d{n}": y for n, y in zip(leaves, gradients, strict=True)}}


def part(x: Tensor) -> Tensor:
    """What is compared: two heads of one sequence, the last ones, whose offsets are largest."""
    return x[-1:, :, -2:]


def reference(case: Case, x: dict[str, Tensor], do: Tensor) -> dict[str, Tensor] | None:
    """The same in float64; None where float64 attention would not fit into memory."""
    if case.operator in QUADRATIC and case.T > 8192:
        return None
    wide = {name: part(y).double() for name, y in x.items()}
    return forward_backward(partial(ours, case.operator, "chunk"), wide, part(do).double())


def relative_error(x: Tensor, expected: Tensor) -> float:
    """‖x − expected‖ / ‖expected‖."""
    return float((part(x).double() - expected).norm() / expected.norm())


def floors(case: Case, x: dict[str, Tensor], do: Tensor, gpu: str) -> dict[str, float | None]:
    """Milliseconds that no kernel can pass: bytes over bandwidth, or operations over peak.

    Every input is read and every output written once in each pass. Operations are those of chunks
    of 64 tokens with their states computed again for the gradients, or of half of T² pairs.
    """
    if gpu not in PEAKS:
        return {"forward": None, "forward+backward": None}
    peak, bandwidth = PEAKS[gpu]
    D, C, pairs = case.D, 64, case.T * case.D
    forward, backward = {
        "linear_attention": (4 * D * D + 4 * C * D, 10 * D * D + 10 * C * D),
        "delta_rule": (6 * D * D + 8 * C * D, 14 * D * D + 26 * C * D),
        "softmax_attention": (2 * pairs, 5 * pairs),
        "deltaformer": (4 * pairs, 10 * pairs),
    }[case.operator]
    tokens, moved = case.B * case.T * case.H, sum(y.nbytes for y in x.values())
    once = max(tokens * forward / peak, (moved + do.nbytes) / bandwidth)
    back = max(tokens * backward / peak, (2 * moved + do.nbytes) / bandwidth)
    return {"forward": 1e3 * once, "forward+backward": 1e3 * (once + back)}
