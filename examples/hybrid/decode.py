"""Continue a text byte by byte with a trained model, and say what it has to remember.

    python decode.py run --prompt "Three layers" --tokens 200

Nothing is drawn: it takes the most likely byte.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from train_hybrid import load

from assocmem.nn import SequenceModel


def bytes_of(state: object) -> int:
    """Bytes of memory that a state keeps alive, of whatever tensors it is made."""
    if isinstance(state, Tensor):
        return state.untyped_storage().nbytes()
    return sum(map(bytes_of, state)) if isinstance(state, tuple) else 0


@torch.no_grad()
def decode(model: SequenceModel, prompt: bytes) -> Iterator[tuple[int, tuple]]:
    """The most likely next byte, again and again, and the state with which it was found.

    The prompt goes through at once, in matrix products; each byte after it is one step.
    """
    logits, state = model(torch.tensor([list(prompt)]))
    next_logits = logits[:, -1]
    while True:
        token = next_logits.argmax(-1)
        yield int(token), state
        next_logits, state = model.step(token, state)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where train_hybrid.py left its checkpoint")
    parser.add_argument("--prompt", default="Three layers")
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args(arguments)
    if not options.prompt:
        parser.error("--prompt must not be empty")
    if options.tokens < 1:
        parser.error(f"--tokens must be at least 1, got {options.tokens}")
    config, model, _ = load(options.folder)
    found, sizes = bytearray(), []
    for token, state in islice(decode(model, options.prompt.encode()), options.tokens):
        found.append(token)
        sizes.append([bytes_of(part) for part in state])
    print(options.prompt + found.decode(errors="replace"))
    print(f"\nbytes that each layer of the {config.mixers} model remembers:")
    for n in sorted({0, options.tokens // 2, options.tokens - 1}):
        print(f"  {len(options.prompt.encode()) + n:6d} tokens: {sizes[n]}")


if __name__ == "__main__":
    main()
