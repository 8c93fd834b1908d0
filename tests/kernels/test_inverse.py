"""The inverse of a chunk's triangular system, in the interpreter or on a GPU.

In bfloat16, which the interpreter does not multiply: `test_ptx.py`.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernels.test_scans import DEVICE
from tests.ops.inputs import KEYS, delta_inputs
from tests.ops.reference import relative_error

triton = pytest.importorskip("triton", reason="triton is missing")
import triton.language as tl  # noqa: E402
from assocmem_kernels.inverse import unit_lower_inverse  # noqa: E402

HALF = [torch.float16] + [torch.bfloat16] * (DEVICE == "cuda")


@triton.jit
def inverse_kernel(L, like, out, C: tl.constexpr):
    """Of L, for inputs of the dtype of `like`."""
    p = tl.arange(0, C)[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(out + p, unit_lower_inverse(tl.load(L + p), C, like.dtype.element_ty))


def inverse(L: Tensor, dtype: torch.dtype, kernel=inverse_kernel) -> Tensor:
    L, out = L.to(DEVICE), torch.empty_like(L, device=DEVICE)
    kernel[(1,)](L, torch.empty(1, dtype=dtype, device=DEVICE), out, len(L), num_warps=2)
    return out.cpu()


def system(C: int, keys: str) -> Tensor:
    """L of a chunk in float64, for the largest β of a stable memory."""
    inputs = delta_inputs(1, C, 1, 128, 16, "none", keys=keys, beta=(1.9, 2.0))
    assert inputs.beta is not None
    k = F.normalize(inputs.k[0, :, 0].double(), dim=-1)
    return (inputs.beta[0] * (k @ k.mT)).tril(-1)


def expected(L: Tensor) -> Tensor:
    one = torch.eye(len(L)).double()
    return torch.linalg.solve_triangular(L.double(), one, upper=False, unitriangular=True)


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 4e-6), (torch.float64, 1e-14)])
def test_by_substitution(dtype, bound, keys):
    """A series in powers of L would be off by 1e7 for identical keys and β = 2."""
    L = system(16, keys).to(dtype)
    got = inverse(L, torch.float32)
    assert relative_error(got, expected(L)) <= bound
    assert torch.equal(got.triu(1), torch.zeros_like(L))


@pytest.mark.parametrize("C", [16, 32, 64])
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("dtype", HALF)
def test_by_blocks(C, keys, dtype):
    """From products of half precision, one of which alone would be off by 1e-3 or more."""
    L = system(C, keys).float()
    got = inverse(L, dtype)
    assert relative_error(got, expected(L)) <= 4e-6
    assert torch.equal(got.triu(1), torch.zeros_like(L))


def test_what_float16_does_not_hold_stays_in_its_row():
    """An entry of L, and one of the inverse: times a masked 0 infinity would be NaN anywhere."""
    L = system(32, "random").float()
    L[9, 2], L[20, 17], L[23, 20] = 7e4, 3e2, 3e2
    got = inverse(L, torch.float16)
    assert relative_error(got[:9], expected(L)[:9]) <= 4e-6
    assert got[9, 2].isnan()
    assert not got[23, 17].half().isfinite()
    assert got[10:20, 10:].isfinite().all()
