"""What feed-forward memories store, and kernel functions swapped with attention, at length.

    python benchmarks/feed_forward.py            # print the tables
    python benchmarks/feed_forward.py --store    # and store them for chapter 4

Float32, two seeds each. Kernel functions differ in the learning rate that suits them, and so
every one is trained with all of `RATES`, and the best one counts (all are stored). "scaled softmax"
is the softmax times the number of units.
"""

from __future__ import annotations

import argparse
import itertools
from statistics import mean
from typing import Any

import torch
from tqdm import tqdm

from assocmem.book import fact_learning, recorded
from assocmem.book.two_memories import Swap
from assocmem.nn import KERNEL_FUNCTIONS
from assocmem.tasks import fact_storage

SEEDS = (0, 1)
D_MODEL, D_HIDDEN, N_ANSWERS = 32, 64, 256
COUNTS = (512, 1024, 2048)
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
FACT_STEPS = 600
KERNELS = ("relu", "relu2", "gelu", "swiglu", "exponential", "softmax", "scaled softmax", "solu")
N_PAIRS, N_FACTS, N_VALUES, SWAP_STEPS = 128, 512, 256, 600
SWAP_RATES = (1e-2, 3e-2)
ATTENTIONS = ("relu", "relu2", "softmax")
FEED_FORWARDS = ("relu", "exponential", "softmax", "scaled softmax")


def facts_row(kernel: str, n_facts: int, lr: float, seed: int) -> dict[str, Any]:
    """One memory that was trained on its facts."""
    generator = torch.Generator().manual_seed(seed)
    facts = fact_storage(n_facts, D_MODEL, N_ANSWERS, generator, torch.float32)
    memory = fact_learning.untrained(kernel, D_MODEL, D_HIDDEN, seed=seed)
    fact_learning.learn(memory, facts, FACT_STEPS, lr=lr, silent=True)
    c = fact_learning.contributions(memory, facts.inputs)
    row = {
        "kernel": kernel,
        "n_facts": n_facts,
        "lr": lr,
        "seed": seed,
        "units": c.shape[1],
        "accuracy": facts.accuracy(memory(facts.inputs)),
        "units_per_fact": fact_learning.participation_ratio(c, 1).mean().item(),
        "facts_per_unit": fact_learning.participation_ratio(c, 0).mean().item(),
    }
    if kernel == "exponential":
        # The same keys and values, with the normaliser of the softmax.
        normalised = KERNEL_FUNCTIONS["softmax"](memory.up_proj(facts.inputs))
        row["accuracy_as_softmax"] = facts.accuracy(memory.down_proj(normalised))
    return row


def swap_row(attention: str, feed_forward: str, lr: float, seed: int) -> dict[str, Any]:
    """One model that was trained on context and facts."""
    swap = Swap(
        N_PAIRS, N_FACTS, N_VALUES, D_MODEL, D_HIDDEN, attention, feed_forward,
        seed=seed, dtype=torch.float32,
    )  # fmt: skip
    swap.train(SWAP_STEPS, lr=lr, silent=True)
    row = {"attention": attention, "feed_forward": feed_forward, "lr": lr, "seed": seed}
    return {**row, **swap.scores()._asdict()}


def show(facts: list[dict[str, Any]], swaps: list[dict[str, Any]]) -> None:
    """Print accuracies, averaged over the seeds, one column a learning rate."""
    for kernel, n in itertools.product(KERNELS, COUNTS):
        line = [
            mean(r["accuracy"] for r in facts
                 if (r["kernel"], r["n_facts"], r["lr"]) == (kernel, n, lr))
            for lr in RATES
        ]  # fmt: skip
        print(f"{kernel:15}{n:6}", *(f"{x:.3f}" for x in line))
    for pair in itertools.product(ATTENTIONS, FEED_FORWARDS):
        for lr in SWAP_RATES:
            rows = [r for r in swaps if (r["attention"], r["feed_forward"], r["lr"]) == (*pair, lr)]
            context, known = (mean(r[name] for r in rows) for name in ("context", "facts"))
            print(f"{pair[0]:8}{pair[1]:15} lr {lr}: context {context:.3f}, facts {known:.3f}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", action="store_true", help="store the result for chapter 4")
    keep = parser.parse_args().store
    cases = list(itertools.product(KERNELS, COUNTS, RATES, SEEDS))
    facts = [facts_row(*case) for case in tqdm(cases, desc="facts")]
    cases = list(itertools.product(ATTENTIONS, FEED_FORWARDS, SWAP_RATES, SEEDS))
    swaps = [swap_row(*case) for case in tqdm(cases, desc="kernel functions swapped")]
    show(facts, swaps)
    if keep:
        command = "python benchmarks/feed_forward.py --store"
        recorded.store("feed_forward", command, facts=facts, swaps=swaps)


if __name__ == "__main__":
    main()
