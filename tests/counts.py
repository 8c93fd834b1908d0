"""How many tests there are, of which kinds.

    python -m tests.counts

Those of the kernels are counted as they run in Triton's interpreter.
"""

from __future__ import annotations

import os

import pytest

ROOMS = ["tests", "examples", "--ignore=tests/book", "--ignore=tests/colab"]


class Counter:
    """A plugin of pytest that looks at what is collected."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("tests", "expect an error", "properties", "random cases"), 0)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests by what their functions say."""
        for item in session.items:
            test = getattr(item, "function", None)
            if test is None:
                continue
            self.counts["tests"] += 1
            drawn = getattr(test, "is_hypothesis_test", False)
            inner = test.hypothesis.inner_test if drawn else test
            self.counts["expect an error"] += "raises" in inner.__code__.co_names
            self.counts["properties"] += drawn
            if drawn:
                self.counts["random cases"] += test._hypothesis_internal_use_settings.max_examples


def main() -> None:
    """The command."""
    os.environ["TRITON_INTERPRET"] = "1"  # as `make unit` runs them
    counter = Counter()
    pytest.main(["--collect-only", "-qq", "--no-header", *ROOMS], plugins=[counter])
    for kind, n in counter.counts.items():
        print(f"{n:7,} {kind}")


if __name__ == "__main__":
    main()
