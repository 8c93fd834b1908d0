"""Draw the picture of the README and the front page: `python book/picture.py`.

Above, a memory after 1, 4 and 16 outer products. Below, how much the other pairs disturb the
reading of one, measured with the library, beside the line (N − 1)/d that chapter 2 derives.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from assocmem import ops
from assocmem.book import figures

HERE = Path(__file__).parent / "_static"
SIZE = 64  # of the keys in the right panel
COUNTS = (2, 4, 8, 16, 32, 64, 128, 256, 512)


def memory_after(pairs: int, size: int = 16) -> torch.Tensor:
    """The state [V, K] after so many unit keys with values of random signs."""
    generator = torch.Generator().manual_seed(1)
    k = torch.nn.functional.normalize(torch.randn(16, size, generator=generator), dim=-1)
    v = torch.randn(16, size, generator=generator).sign()
    k, v = (x[None, :pairs, None] for x in (k, v))
    _, S = ops.linear_attention(k, k, v, output_final_state=True)
    return S[0, 0].T


def crosstalk(pairs: int, size: int = SIZE, memories: int = 32) -> tuple[float, float]:
    """‖S q − v‖² / ‖v‖² over all stored pairs of several memories: mean and standard error."""
    generator = torch.Generator().manual_seed(pairs)
    k = torch.nn.functional.normalize(
        torch.randn(memories, pairs, 1, size, generator=generator), dim=-1
    )
    v = torch.randn(memories, pairs, 1, size, generator=generator)
    _, S = ops.linear_attention(k, k, v, scale=1.0, output_final_state=True)
    error = torch.einsum("bhkv,bnhk->bnhv", S, k) - v
    per_memory = error.square().sum((1, 2, 3)) / v.square().sum((1, 2, 3))
    return per_memory.mean().item(), per_memory.std().item() / memories**0.5


def draw() -> Figure:
    fig = plt.figure(figsize=(6.9, 4.6))
    above, below = fig.subfigures(2, 1, height_ratios=(1, 1.15))

    for ax, pairs in zip(above.subplots(1, 3), (1, 4, 16), strict=True):
        S = memory_after(pairs)
        limit = S.abs().max().item()
        ax.imshow(S, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(f"{pairs} pair" + "s" * (pairs > 1))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        ax.spines[["left", "bottom"]].set_visible(False)
    above.supylabel("memory $S$: values × keys", fontsize=9.5)

    ax = below.subplots()
    mean, error = map(torch.tensor, zip(*map(crosstalk, COUNTS), strict=True))
    line = (torch.tensor(COUNTS) - 1) / SIZE
    assert ((mean - line).abs() < 5 * error).all(), "measured crosstalk is off the line (N − 1)/d"
    ax.plot(COUNTS, line, color=figures.BLUE, marker="", label="derived: $(N-1)/d$")
    ax.errorbar(COUNTS, mean, 2 * error, color=figures.ORANGE, marker="o", ls="", label="measured")
    ax.axhline(1, color="0.45", lw=0.8, ls="--")
    ax.text(2, 1.15, "as loud as the signal", color="0.3", fontsize=8.5)
    ax.set(xscale="log", yscale="log", xlabel=f"pairs stored, $N$ (keys of size $d$ = {SIZE})")
    ax.set_ylabel("crosstalk / signal")
    ax.legend(loc="lower right")
    return fig


if __name__ == "__main__":
    figures.use_style()
    fig = draw()
    fig.savefig(HERE / "picture.svg", metadata={"Date": None})
    fig.savefig(HERE / "picture.png", dpi=160)
