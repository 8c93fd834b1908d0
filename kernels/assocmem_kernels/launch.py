"""The table of launch configurations: one per kernel, architecture, precision and kind of decay.

Nothing is tuned while a reader waits. What the compiler says of every entry, its shared memory and
registers, is stored in `benchmarks/results/resources.json` and held to each architecture's limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, wraps

import torch
import triton
from torch import Tensor


@dataclass(frozen=True)
class Config:
    """How one kernel is launched: tokens per chunk, columns of V per tile, warps, pipeline stages.

    In `channel_decay.py` the tiles are columns of K.
    """

    C: int
    BV: int
    num_warps: int
    num_stages: int

    @property
    def options(self) -> dict[str, int]:
        """What a launch takes beside the kernel's arguments.

        A product and the sum that it enters are to be one instruction. Triton makes them one
        unasked, but 3.9 warns that 3.10 will not.
        """
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": True,
        }


ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")


def architecture(x: Tensor) -> str:
    """The row of the table for a tensor's device; a device that is not listed takes the nearest."""
    if not x.is_cuda:
        return "sm_90"  # Triton's interpreter, where any row will do
    if torch.version.hip:
        return "gfx942"
    major, minor = torch.cuda.get_device_capability(x.device)
    known = [int(a[3:]) for a in ARCHITECTURES if a.startswith("sm_")]
    return f"sm_{max((a for a in known if a <= 10 * major + minor), default=known[0])}"


def processors(x: Tensor) -> int:
    """How many processors the GPU of a tensor has; 1 in Triton's interpreter."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1


# Registers set the sizes. At 64 tokens per chunk Hopper would multiply with wgmma whose first
# operand lies in registers, which the assembler that Triton ships can miscompile; at 32 it does
# not. float32 is not rounded to TF32, so its products run on ordinary cores and take more
# registers. With a decay per channel, scores are summed 16 tokens at a time.
KINDS = ("half", "half, channel", "float32", "float32, channel")
TABLE = {
    "forward_kernel": ((32, 16, 8, 2), (16, 32, 4, 2), (16, 16, 8, 2), (16, 16, 8, 1)),
    "states_kernel": ((32, 64, 8, 2), (16, 64, 4, 2), (16, 16, 8, 2), (16, 16, 8, 1)),
    "backward_kernel": ((32, 64, 8, 2), (16, 32, 4, 2), (16, 32, 8, 3), (16, 32, 8, 2)),
    "triangles_kernel": ((32, 16, 2, 1), (16, 16, 1, 1), (16, 16, 4, 1), (16, 16, 4, 1)),
    "delta_forward_kernel": ((32, 32, 4, 2), (16, 32, 4, 2), (16, 16, 8, 1), (16, 16, 8, 2)),
    "delta_states_kernel": ((32, 64, 4, 2), (16, 64, 4, 2), (16, 16, 8, 2), (16, 16, 8, 2)),
    "delta_states_backward_kernel": (
        (32, 64, 4, 2),
        (16, 64, 4, 2),
        (16, 16, 8, 1),
        (16, 16, 8, 1),
    ),
    "delta_backward_kernel": ((32, 32, 8, 1), (16, 32, 4, 2), (16, 16, 8, 1), (16, 16, 8, 1)),
    "erase_triangles_kernel": ((32, 16, 4, 1),) * 2 + ((16, 16, 4, 1),) * 2,
    "recall_kernel": ((64, 128, 8, 2),) * 2 + ((32, 32, 8, 2),) * 2,
    "correct_kernel": ((32, 64, 4, 2),) * 2 + ((16, 16, 8, 2),) * 2,
    "collect_kernel": ((64, 128, 8, 2),) * 2 + ((32, 32, 8, 2),) * 2,
    "correct_backward_kernel": ((32, 64, 4, 2),) * 2 + ((16, 16, 8, 2),) * 2,
    "erase_key_gradient_kernel": ((64, 32, 8, 2),) * 2 + ((32, 32, 8, 2),) * 2,
    "key_gradient_kernel": ((64, 64, 8, 2),) * 2 + ((32, 32, 8, 2),) * 2,
    "step_kernel": ((1, 16, 4, 1),) * 4,
    "channel_decay_kernel": ((16, 32, 1, 1),) * 2 + ((16, 128, 8, 1),) * 2,
    "channel_decay_backward_kernel": ((16, 32, 4, 1),) * 2 + ((16, 64, 16, 1),) * 2,
}
# Of sm_90 in half precision, without a decay per channel: the fastest that an H200 was given, with
# heads of 128. All others are chosen by what the compiler says of them.
EXCEPTIONS = {
    ("sm_80", "forward_kernel", "float32, channel"): (16, 16, 8, 2),
    ("sm_80", "delta_forward_kernel", "half"): (32, 32, 8, 2),
    ("sm_80", "delta_forward_kernel", "half, head"): (32, 16, 4, 2),
    ("sm_80", "delta_states_backward_kernel", "half, head"): (32, 32, 4, 2),
    ("sm_80", "delta_backward_kernel", "half, head"): (32, 16, 8, 1),
    ("sm_80", "delta_backward_kernel", "float32"): (16, 16, 4, 1),
    ("sm_80", "delta_backward_kernel", "float32, head"): (16, 16, 8, 1),
    ("sm_86", "delta_forward_kernel", "half"): (32, 32, 8, 2),
    ("sm_86", "delta_forward_kernel", "half, head"): (32, 32, 4, 2),
    ("sm_86", "delta_states_backward_kernel", "half"): (32, 32, 4, 2),
    ("sm_86", "delta_backward_kernel", "float32"): (16, 16, 4, 1),
    ("sm_86", "recall_kernel", "float32"): (32, 16, 8, 2),
    ("sm_89", "delta_forward_kernel", "half"): (32, 32, 8, 2),
    ("sm_89", "delta_forward_kernel", "half, head"): (32, 32, 4, 2),
    ("sm_89", "delta_states_backward_kernel", "half"): (32, 32, 4, 2),
    ("sm_89", "delta_backward_kernel", "float32"): (16, 16, 4, 1),
    ("sm_89", "recall_kernel", "float32"): (32, 16, 8, 2),
    ("sm_90", "forward_kernel", "half"): (32, 64, 4, 3),
    ("sm_90", "forward_kernel", "half, channel"): (16, 64, 4, 2),
    ("sm_90", "forward_kernel", "float32"): (16, 16, 8, 1),
    ("sm_90", "forward_kernel", "float32, channel"): (16, 16, 8, 2),
    ("sm_90", "states_kernel", "half"): (32, 64, 2, 2),
    ("sm_90", "backward_kernel", "half"): (32, 64, 4, 3),
    ("sm_90", "backward_kernel", "half, head"): (32, 16, 2, 3),
    ("sm_90", "backward_kernel", "float32"): (16, 16, 8, 3),
    ("sm_90", "delta_forward_kernel", "half"): (32, 64, 4, 3),
    ("sm_90", "delta_forward_kernel", "half, channel"): (16, 64, 4, 2),
    ("sm_90", "delta_states_kernel", "half"): (32, 64, 4, 3),
    ("sm_90", "delta_states_kernel", "half, head"): (32, 64, 4, 2),
    ("sm_90", "delta_states_backward_kernel", "half"): (32, 64, 4, 3),
    ("sm_90", "delta_states_backward_kernel", "half, head"): (32, 64, 4, 2),
    ("sm_90", "delta_backward_kernel", "half"): (32, 32, 4, 3),
    ("sm_90", "delta_backward_kernel", "float32, head"): (16, 16, 4, 1),
    ("sm_90", "erase_triangles_kernel", "half"): (32, 16, 2, 1),
    ("sm_90", "recall_kernel", "half"): (64, 128, 4, 2),
    ("sm_90", "correct_kernel", "half"): (32, 128, 4, 1),
    ("sm_90", "correct_kernel", "float32"): (16, 32, 8, 2),
    ("sm_90", "collect_kernel", "half"): (128, 128, 8, 2),
    ("sm_90", "correct_backward_kernel", "half"): (32, 128, 4, 1),
    ("sm_90", "erase_key_gradient_kernel", "half"): (64, 128, 4, 2),
    ("sm_90", "key_gradient_kernel", "half"): (128, 128, 8, 2),
    ("sm_100", "forward_kernel", "half"): (32, 64, 8, 2),
    ("sm_100", "forward_kernel", "half, channel"): (16, 64, 4, 2),
    ("sm_100", "states_kernel", "half"): (16, 32, 8, 2),
    ("sm_100", "states_kernel", "half, channel"): (16, 32, 4, 2),
    ("sm_100", "states_kernel", "float32, channel"): (16, 16, 8, 2),
    ("sm_100", "backward_kernel", "half"): (16, 32, 8, 2),
    ("sm_100", "delta_forward_kernel", "half"): (32, 64, 4, 2),
    ("sm_100", "delta_forward_kernel", "half, head"): (32, 32, 4, 2),
    ("sm_100", "delta_forward_kernel", "half, channel"): (16, 64, 4, 2),
    ("sm_100", "delta_backward_kernel", "half, channel"): (16, 32, 4, 1),
    ("sm_100", "erase_key_gradient_kernel", "half"): (64, 64, 8, 2),
    ("sm_100", "key_gradient_kernel", "half"): (64, 64, 4, 2),
    ("sm_120", "forward_kernel", "float32"): (16, 16, 8, 3),
    ("sm_120", "states_kernel", "half"): (16, 32, 8, 2),
    ("sm_120", "backward_kernel", "half"): (16, 32, 8, 2),
    ("sm_120", "delta_forward_kernel", "half"): (32, 16, 4, 1),
    ("sm_120", "delta_forward_kernel", "half, head"): (32, 16, 4, 2),
    ("sm_120", "delta_forward_kernel", "half, channel"): (16, 16, 4, 2),
    ("sm_120", "delta_states_backward_kernel", "half"): (32, 32, 8, 2),
    ("sm_120", "delta_states_backward_kernel", "half, channel"): (16, 32, 4, 2),
    ("sm_120", "delta_backward_kernel", "half"): (32, 16, 8, 1),
    ("sm_120", "delta_backward_kernel", "float32, head"): (16, 16, 8, 2),
    ("gfx942", "forward_kernel", "half"): (32, 32, 4, 2),
    ("gfx942", "states_kernel", "half"): (32, 32, 4, 2),
    ("gfx942", "backward_kernel", "half"): (32, 32, 4, 2),
    ("gfx942", "backward_kernel", "float32"): (16, 16, 4, 1),
    ("gfx942", "backward_kernel", "float32, channel"): (16, 16, 4, 1),
    ("gfx942", "delta_backward_kernel", "half"): (32, 32, 4, 2),
    ("gfx942", "delta_backward_kernel", "float32"): (16, 16, 4, 1),
    ("gfx942", "delta_backward_kernel", "float32, channel"): (16, 16, 4, 2),
    ("gfx942", "recall_kernel", "half"): (64, 64, 4, 2),
    ("gfx942", "recall_kernel", "float32"): (32, 32, 4, 2),
    ("gfx942", "collect_kernel", "half"): (64, 64, 4, 2),
    ("gfx942", "erase_key_gradient_kernel", "half"): (64, 64, 4, 2),
    ("gfx942", "erase_key_gradient_kernel", "float32"): (32, 32, 4, 2),
    ("gfx942", "key_gradient_kernel", "half"): (64, 64, 4, 2),
    ("gfx942", "key_gradient_kernel", "float32"): (32, 32, 4, 2),
}
# Before 3.7.1 Triton leaves out the fence between pipelined copies into shared memory and tensor
# cores that read it by themselves (its pull request 10537), where nothing else is stored between
# the two, as in these kernels. What is not pipelined has the fence.
UNFENCED = (
    "states_kernel",
    "recall_kernel",
    "collect_kernel",
    "erase_key_gradient_kernel",
    "key_gradient_kernel",
)
# Turing's tensor cores are out of Triton's reach: small tiles on ordinary cores.
TURING = (16, 16, 8, 1)


def config(kernel: str, arch: str, dtype: torch.dtype, gate: int) -> Config:
    """The configuration of a kernel.

    Args:
        kernel: the kernel's name.
        arch: one of `ARCHITECTURES`.
        dtype: of q, k and v.
        gate: 0 for no decay, 1 for one per head, 2 for one per channel.
    """
    if arch == "sm_75":
        return Config(*TURING)
    base = "float32" if dtype == torch.float32 else "half"
    cfg = listed(kernel, arch, base, gate)
    affected = kernel in UNFENCED and arch in ("sm_90", "sm_100") and base == "half"
    if affected and cfg.num_warps >= 4 and not fenced(triton.__version__):
        return replace(cfg, num_stages=1)
    return cfg


def narrowed(cfg: Config, x: Tensor, V: int, walks: int) -> Config:
    """A walk's configuration with tiles of V so narrow that half of the processors have work.

    Every program walks all chunks of its sequence, with a narrower tile in less time.

    Args:
        cfg: the configuration where there is enough to do.
        x: a tensor on the GPU.
        V: size of the values.
        walks: how many sequences or pieces are walked, times heads; each takes all tiles of V.
    """
    BV = cfg.BV
    while BV > 16 and 2 * walks * triton.cdiv(V, BV) <= processors(x):
        BV //= 2
    return replace(cfg, BV=BV)


@cache
def fenced(version: str) -> bool:
    """Whether a version of Triton puts a fence after pipelined copies."""
    return tuple(int(x) for x in re.findall(r"\d+", version)[:3]) >= (3, 7, 1)


def listed(kernel: str, arch: str, base: str, gate: int) -> Config:
    """The configuration of a kernel in the table, for "half" or "float32"."""
    kinds = ((base,), (f"{base}, head", base), (f"{base}, channel",))[gate]
    for kind in kinds:
        if (arch, kernel, kind) in EXCEPTIONS:
            return Config(*EXCEPTIONS[arch, kernel, kind])
    return Config(*TABLE[kernel][KINDS.index(kinds[-1])])


def refuse(_ctx: object, *_gradients: Tensor) -> None:
    """The gradient of a backward pass, for which there are no kernels."""
    raise RuntimeError("the kernels have first derivatives only: take backend='recurrent'")


def on_its_device(operator: Callable) -> Callable:
    """The operator on the device of its first tensor: Triton launches on the current one."""

    @wraps(operator)
    def there(x: Tensor, *others: object) -> object:
        with torch.cuda.device_of(x):
            return operator(x, *others)

    return there
