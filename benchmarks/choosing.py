"""Which memory for what: every design on every task, trained and recorded for chapter 9.

    python benchmarks/choosing.py            # run what is missing, and print the table
    python benchmarks/choosing.py --show     # print what is recorded

`src/assocmem/book/choosing/configuration.json` says what is run. First a pilot chooses a learning
rate for each design: the one with the smallest loss, averaged over short runs with a seed of their
own. Then come the seeds, one after another; then, on some tasks, all of them with the other rates:
how much hangs on the choice; and at last hybrids with their layers in either order, with every seed
and rate. A run is stored as soon as it is done, with a fingerprint of what the configuration says
of it, and with the losses of a training of three steps. It is run again when the configuration says
otherwise, or when today's code gives other losses, by more than rounding: other processors and
other orders of sums round otherwise. (Training adds that up, so a run may end elsewhere although
nothing is new.)
Float32, one thread, times in seconds of the processor.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from assocmem.book import choosing, recorded

ROOT = Path(__file__).parents[1]
NAME = "choosing"
# How far the losses of three steps may be off, relative: updates add rounding up. Other vector
# instructions moved them by up to 6e-7, 4e-5 and 1e-4.
ROUNDING = 1e-5, 2e-4, 4e-4

Row = dict[str, Any]


class Run(NamedTuple):
    """One training: "pilot", "main", "other rate" or "order", a seed, a task, a design, a rate."""

    stage: str
    seed: int
    task: str
    design: str
    lr: float


class Record:
    """What has been run, in a file that is written after every run.

    Args:
        config: as `choosing.configuration` hands it back.
        text: what the task "text" is about.
    """

    def __init__(self, config: Row, text: choosing.Text) -> None:
        self.config, self.text = config, text
        self.letters = recorded.fingerprint(str([x.tolist() for x in text]))
        stored = recorded.read(NAME) if recorded.exists(NAME) else {"costs": [], "runs": []}
        self.costs = {row["design"]: row for row in stored["costs"]}
        self.rows = {Run(*(row[x] for x in Run._fields)): row for row in stored["runs"]}

    def configured(self, run: Run) -> str:
        """A short hash of what the configuration says of a run."""
        task, design = self.config["tasks"][run.task], choosing.mixers(self.config, run.design)
        parts = [*run, self.steps(run), self.config["model"], design, task]
        return recorded.fingerprint(json.dumps(parts))

    def steps(self, run: Run) -> int:
        """How long a run trains."""
        if run.stage == "pilot":
            return self.config["pilot"]["steps"]
        return self.config["tasks"][run.task]["steps"]

    def is_new(self, run: Run) -> bool:
        """Whether a run is not recorded, or otherwise than it is configured and begins today."""
        row = self.rows.get(run)
        if row is None or row["configured"] != self.configured(run):
            return True
        begins = choosing.first(self.config, run.task, run.design, run.seed, run.lr)
        pairs = zip(row["first"], begins, ROUNDING, strict=True)
        return not all(math.isclose(x, y, rel_tol=most) for x, y, most in pairs)

    def missing(self, runs: Iterable[Run]) -> list[Run]:
        """Those that are new, and what would be compared with them after it has read another text.

        The book's text changes with every edit, so that alone makes no run new.
        """
        new = {run: self.is_new(run) for run in runs}
        reading = [run for run in new if self.config["tasks"][run.task]["kind"] == "text"]
        texts = {run: self.letters if new[run] else self.rows[run]["text"] for run in reading}
        if len(set(texts.values())) > 1:
            new |= {run: text != self.letters or new[run] for run, text in texts.items()}
        return [run for run in new if new[run]]

    def pilots(self) -> Iterator[Run]:
        """Every design with every learning rate, on the tasks of the pilot."""
        pilot = self.config["pilot"]
        for task in pilot["tasks"]:
            for design in self.config["designs"]:
                for lr in pilot["rates"]:
                    yield Run("pilot", pilot["seed"], task, design, lr)

    def rate(self, design: str) -> float:
        """The learning rate that the pilots choose for a design."""
        loss = {
            lr: mean(
                self.rows[run]["loss"]
                for run in self.pilots()
                if (run.design, run.lr) == (design, lr)
            )
            for lr in self.config["pilot"]["rates"]
        }
        return min(loss, key=lambda lr: loss[lr])

    def trainings(self) -> Iterator[Run]:
        """Every design on every task, seed after seed."""
        rates = {design: self.rate(design) for design in self.config["designs"]}
        for seed in self.config["seeds"]:
            for task in self.config["tasks"]:
                for design, lr in rates.items():
                    yield Run("main", seed, task, design, lr)

    def other_rates(self) -> Iterator[Run]:
        """Every design on some tasks, with the rates that the pilots did not choose."""
        pilot = self.config["pilot"]
        for seed in self.config["seeds"]:
            for task in pilot["checked"]:
                for design in self.config["designs"]:
                    for lr in pilot["rates"]:
                        if lr != self.rate(design):
                            yield Run("other rate", seed, task, design, lr)

    def orders(self) -> Iterator[Run]:
        """Hybrids whose layers stand in either order, with every seed and rate."""
        orders = self.config["orders"]
        for seed in self.config["seeds"]:
            for task in orders["tasks"]:
                for design in orders["designs"]:
                    for lr in self.config["pilot"]["rates"]:
                        yield Run("order", seed, task, design, lr)

    def planned(self) -> Iterator[Run]:
        """All that the configuration asks for, once the pilots are done."""
        yield from self.pilots()
        yield from self.trainings()
        yield from self.other_rates()
        yield from self.orders()

    def catch_up(self, runs: Iterable[Run]) -> None:
        """Run those that are new, and store each."""
        missing = self.missing(runs)
        for run in (bar := tqdm(missing, unit="run", disable=not missing)):
            bar.set_postfix_str(f"{run.stage} {run.seed}, {run.task}, {run.design}")
            began = time.process_time()
            row = choosing.run(
                self.config, run.task, run.design, run.seed, run.lr, self.steps(run), self.text
            )
            seconds = round(time.process_time() - began, 1)
            told = {**run._asdict(), "configured": self.configured(run)}
            if self.config["tasks"][run.task]["kind"] == "text":
                told["text"] = self.letters
            self.rows[run] = {**told, **row, "seconds": seconds}
            self.store()

    def count(self) -> None:
        """Count again what every design costs: that takes less time than to know what changed."""
        for design in self.config["designs"]:
            self.costs[design] = {"design": design, **choosing.costs(self.config, design)}

    def tidy(self) -> None:
        """Keep what the configuration asks for, in its order, once the pilots are done."""
        self.rows = {run: self.rows[run] for run in self.planned() if run in self.rows}
        self.costs = {design: self.costs[design] for design in self.config["designs"]}
        self.store()

    def store(self) -> None:
        """Write all that is known."""
        recorded.store(
            NAME,
            "python benchmarks/choosing.py",
            configuration=self.config,
            costs=[*self.costs.values()],
            runs=[*self.rows.values()],
        )


def show(result: Row) -> None:
    """Print, for every task and design, the mean over the seeds at every size that is tested."""
    for task, settings in result["configuration"]["tasks"].items():
        measure = "test_loss" if settings["kind"] == "text" else "accuracy"
        sizes = [next(iter(size.items())) for size in settings["test"]]
        print(f"{task}, {measure} at {', '.join(f'{name} = {n}' for name, n in sizes)}")
        told: dict[str, list[list[float]]] = {}
        for row in result["runs"]:
            if row["task"] == task and row["stage"] in ("main", "order"):
                told.setdefault(row["design"], []).append(row[measure])
        for design, runs in told.items():
            scores = zip(*runs, strict=True)
            line = [f"{mean(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in scores]
            print(f"  {design:28}{len(runs)} runs: {', '.join(line)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="print what is recorded, run nothing")
    if not parser.parse_args().show:
        torch.set_num_threads(1)
        notebooks = sorted((ROOT / "book").glob("0[1-8]_*.ipynb"))
        record = Record(choosing.configuration(), choosing.Text.of(notebooks))
        record.count()
        for runs in (record.pilots, record.trainings, record.other_rates, record.orders):
            record.catch_up(runs())
        record.tidy()
    show(recorded.read(NAME))


if __name__ == "__main__":
    main()
