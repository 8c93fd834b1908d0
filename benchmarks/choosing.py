"""Which memory for what: every design on every task, trained and recorded for chapter 9.

    python benchmarks/choosing.py            # run what is missing, and print the table
    python benchmarks/choosing.py --show     # print what is recorded

`src/assocmem/book/choosing.json` says what is run. First a pilot chooses a learning rate for each
design: the one with the smallest loss, averaged over short runs with a seed of their own. Then come
the seeds, one after another, and at last, on some tasks, the first seed with the other rates: how
much hangs on the choice. A run is stored as soon as it is done, with a fingerprint of the code and
of the configuration that it depends on, and is run again only when they have changed. Float32, one
thread, times in seconds of the processor.
"""

from __future__ import annotations

import argparse
import json
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

Row = dict[str, Any]


class Run(NamedTuple):
    """One training: "pilot", "main" or "other rate", a seed, a task, a design, a learning rate."""

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
        self.code = recorded.fingerprint(*map(recorded.without_comments, sources()))
        stored = recorded.read(NAME) if recorded.exists(NAME) else {"costs": [], "runs": []}
        self.costs = {row["design"]: row for row in stored["costs"]}
        self.rows = {Run(*(row[x] for x in Run._fields)): row for row in stored["runs"]}

    def fingerprint(self, run: Run) -> str:
        """A short hash of all that decides how a run ends: code, configuration, text."""
        task = self.config["tasks"][run.task]
        parts = [self.code, torch.__version__, *run, self.steps(run), self.config["model"]]
        parts += [self.config["designs"][run.design], task]
        if task["kind"] == "text":
            parts += [self.text.learned.tolist(), self.text.held_out.tolist()]
        return recorded.fingerprint(json.dumps(parts))

    def steps(self, run: Run) -> int:
        """How long a run trains."""
        if run.stage == "pilot":
            return self.config["pilot"]["steps"]
        return self.config["tasks"][run.task]["steps"]

    def is_new(self, run: Run) -> bool:
        """Whether a run is not recorded as it would be today."""
        return run not in self.rows or self.rows[run]["code"] != self.fingerprint(run)

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
        """The first seed with the rates that the pilots did not choose."""
        pilot, seed = self.config["pilot"], self.config["seeds"][0]
        for task in pilot["checked"]:
            for design in self.config["designs"]:
                for lr in pilot["rates"]:
                    if lr != self.rate(design):
                        yield Run("other rate", seed, task, design, lr)

    def catch_up(self, runs: Iterable[Run]) -> None:
        """Run those that are new, and store each."""
        missing = [run for run in runs if self.is_new(run)]
        for run in (bar := tqdm(missing, unit="run", disable=not missing)):
            bar.set_postfix_str(f"{run.stage} {run.seed}, {run.task}, {run.design}")
            began = time.process_time()
            row = choosing.run(
                self.config, run.task, run.design, run.seed, run.lr, self.steps(run), self.text
            )
            seconds = round(time.process_time() - began, 1)
            fingerprint = self.fingerprint(run)
            self.rows[run] = {**run._asdict(), "code": fingerprint, **row, "seconds": seconds}
            self.store()

    def count(self) -> None:
        """Count again what every design costs: that takes less time than to know what changed."""
        for design in self.config["designs"]:
            self.costs[design] = {"design": design, **choosing.costs(self.config, design)}

    def tidy(self) -> None:
        """Keep what the configuration asks for, in its order, once the pilots are done."""
        planned = (*self.pilots(), *self.trainings(), *self.other_rates())
        self.rows = {run: self.rows[run] for run in planned if run in self.rows}
        self.costs = {design: self.costs[design] for design in self.config["designs"]}
        self.store()

    def store(self) -> None:
        """Write all that is known."""
        recorded.store(
            NAME,
            "python benchmarks/choosing.py",
            text={
                "learned": len(self.text.learned),
                "held_out": len(self.text.held_out),
                "fingerprint": recorded.fingerprint(str(self.text.learned.tolist())),
            },
            configuration=self.config,
            costs=[*self.costs.values()],
            runs=[*self.rows.values()],
        )


def sources() -> list[str]:
    """All the code that a run depends on: the library, without what only chapters use."""
    package = ROOT / "src" / "assocmem"
    rooms = [path for room in ("nn", "ops", "tasks") for path in (package / room).glob("*.py")]
    files = [*sorted(rooms), package / "train.py", package / "book" / "choosing.py"]
    return [path.read_text() for path in files]


def show(result: Row) -> None:
    """Print, for every task and design, the mean over the seeds at every size that is tested."""
    for task, settings in result["configuration"]["tasks"].items():
        measure = "test_loss" if settings["kind"] == "text" else "accuracy"
        sizes = [next(iter(size.items())) for size in settings["test"]]
        print(f"{task}, {measure} at {', '.join(f'{name} = {n}' for name, n in sizes)}")
        for design in result["configuration"]["designs"]:
            rows = [
                row
                for row in result["runs"]
                if (row["stage"], row["task"], row["design"]) == ("main", task, design)
            ]
            scores = zip(*(row[measure] for row in rows), strict=True)
            line = [f"{mean(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in scores]
            print(f"  {design:26}{len(rows)} seeds: {', '.join(line)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="print what is recorded, run nothing")
    if not parser.parse_args().show:
        torch.set_num_threads(1)
        notebooks = sorted((ROOT / "book").glob("0[1-8]_*.ipynb"))
        record = Record(choosing.configuration(), choosing.Text.of(notebooks))
        record.count()
        record.catch_up(record.pilots())
        record.catch_up(record.trainings())
        record.catch_up(record.other_rates())
        record.tidy()
    show(recorded.read(NAME))


if __name__ == "__main__":
    main()
