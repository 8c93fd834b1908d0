"""Tables and a figure from what `make gpu` has measured.

    python -m benchmarks.gpu_report benchmarks/results/gpu_*.json     # tables, in Markdown
    python -m benchmarks.gpu_report FILE --figure gpu.svg             # time over length, drawn
    python -m benchmarks.gpu_report FILE --store      # and kept for the book and the README

The tables are made in `gpu_tables.py`, the page of the book in `gpu_page.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from assocmem.book import recorded
from benchmarks import gpu_page
from benchmarks.gpu_cases import PUBLISHED
from benchmarks.gpu_tables import (
    README,
    gathered,
    readme_table,
    shape,
    sound,
    summary,
    table,
    with_table,
)

MARKERS = {"none": "o", "head": "^", "channel": "s"}  # of a decay


def figure(result: dict[str, Any], path: Path, H: int = 32, D: int = 128) -> None:
    """Draw the time of training over the length of a sequence, at a constant number of tokens."""
    import matplotlib.pyplot as plt

    from assocmem.book import figures

    plt.rcParams.update(figures.STYLE)
    there = sound(result["rows"])
    both = [row for row in there.values() if "forward+backward" in row]
    swept = [r for r in both if shape(r)[2:] == (H, D) and shape(r) != PUBLISHED]
    fig, (ax,) = figures.figure(height=5)
    colors = iter((figures.BLUE, figures.ORANGE, figures.GREEN, figures.PURPLE))
    color = {operator: next(colors) for operator in dict.fromkeys(r["operator"] for r in swept)}
    for name in dict.fromkeys((r["operator"], r["gate"], r["implementation"]) for r in swept):
        operator, gate, who = name
        points = sorted(
            (r["T"], r["forward+backward"]["ms"])
            for r in swept
            if (r["operator"], r["gate"], r["implementation"]) == name
        )
        label = f"{operator.replace('_', ' ')}, {gate}" + (" (fla)" if who == "fla" else "")
        ax.plot(
            *zip(*points, strict=True), ls="--" if who == "fla" else "-", label=label,
            color=color[operator], marker=MARKERS[gate], mfc="none" if who == "fla" else None,
        )  # fmt: skip
    lengths = sorted({row["T"] for row in swept})
    ax.set(xscale="log", yscale="log", xlabel="tokens a sequence", ylabel="milliseconds")
    ax.set_xticks(lengths, [f"{T:,}" for T in lengths])
    ax.minorticks_off()
    ax.set_title(f"{result['gpu']}: forward and backward, {H} heads of {D}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--figure", type=Path, help="an SVG to write")
    parser.add_argument(
        "--store",
        action="store_true",
        help="keep the rows for chapter 6, a table in the README, and a page of the book",
    )
    arguments = parser.parse_args()
    result = gathered(arguments.files)
    print(summary(result))
    for at in dict.fromkeys(map(shape, result["rows"])):
        print(f"\n{' × '.join(map(str, at))} (sequences × tokens × heads × size)\n")
        print(table(result["rows"], at))
    if arguments.figure:
        figure(result, arguments.figure)
    if arguments.store:
        gpu_page.PAGE.write_text(gpu_page.page(result))
        figure(result, gpu_page.FIGURE)
        recorded.store_gpu(result)
        README.write_text(with_table(README.read_text(), readme_table(result["rows"])))


if __name__ == "__main__":
    main()
