"""`nn.ShortConvolution` against its sum, and its memory of the last tokens."""

from __future__ import annotations

import pytest
import torch

from assocmem.nn import ShortConvolution
from tests.nn import reference


@pytest.mark.parametrize("width", [1, 2, 4])
@torch.no_grad()
def test_equals_its_sum(width):
    conv = ShortConvolution(6, width).double()
    x = torch.randn(2, 20, 6, dtype=torch.float64)
    y, state = conv(x)
    torch.testing.assert_close(y, reference.short_convolution(x, conv.weight))
    assert torch.equal(state, x[:, 20 - (width - 1) :])


@torch.no_grad()
def test_pieces_equal_the_whole():
    conv, x = ShortConvolution(6), torch.randn(2, 20, 6)
    whole, final = conv(x)
    state, pieces = None, []
    for piece in x.split([1, 0, 2, 17], 1):
        y, state = conv(piece, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    assert torch.equal(state, final)


def test_initial_weights():
    weight = ShortConvolution(5000).weight
    assert 0.49 < weight.abs().max() <= 0.5
    assert abs(weight.std() - 0.5 / 3**0.5) < 0.01


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        ShortConvolution(6, 0)
    with pytest.raises(TypeError, match="width must be an integer, got float"):
        ShortConvolution(6, 2.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        ShortConvolution(0)
    conv = ShortConvolution(6)
    with pytest.raises(ValueError, match=r"x must have shape .* C = 6, got \[2, 4, 5\]"):
        conv(torch.zeros(2, 4, 5))
    with pytest.raises(TypeError, match=r"x must be a tensor of floats, got torch\.int64"):
        conv(torch.zeros(2, 4, 6).long())
    with pytest.raises(TypeError, match="x must be a dense tensor"):
        conv(torch.zeros(2, 4, 6).to_sparse())
    with pytest.raises(ValueError, match=r"state must have shape .*\[2, 3, 6\], got \[2, 4, 6\]"):
        conv(torch.zeros(2, 4, 6), torch.zeros(2, 4, 6))
    with pytest.raises(TypeError, match=r"state must be a tensor of floats, got torch\.int64"):
        conv(torch.zeros(2, 4, 6), torch.zeros(2, 3, 6).long())
    with pytest.raises(ValueError, match="x must be on cpu like the weights, got meta"):
        conv(torch.zeros(2, 4, 6, device="meta"))
    with pytest.raises(ValueError, match="state must be on cpu like x, got meta"):
        conv(torch.zeros(2, 4, 6), torch.zeros(2, 3, 6, device="meta"))


def test_a_state_takes_the_dtype_of_the_next_piece():
    conv, x = ShortConvolution(6), torch.randn(1, 8, 6)
    _, state = conv(x[:, :5])
    y, after = conv.bfloat16()(x[:, 5:].bfloat16(), state)
    assert y.dtype == after.dtype == torch.bfloat16
