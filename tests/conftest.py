"""Every test draws the same numbers, alone and in any order."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def a_fixed_seed() -> None:
    torch.manual_seed(0)
