"""The decay of Mamba-2: a learned rate times a learned time step."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.arguments import check_counts, check_device, check_floats


class SoftplusDecay(nn.Module):
    """g = −exp(A_log) · softplus(a + dt_bias), a log decay that is never above 0.

    The parametrisation and initialisation of Mamba-2 (Dao and Gu, arXiv:2405.21060), where
    A = exp(A_log) is a rate and dt = softplus(a + dt_bias) the time that passes at a token.

    Args:
        n_heads: number of heads H.
        channels: how many decays C a head has: 1, or one per channel of its keys.

    Weights: A_log `[H, 1]`, the logarithm of A uniform in [1, 16]; dt_bias `[H, C]`, such that
    for a = 0 the time step dt is log-uniform in [0.001, 0.1]. An optimiser's weight decay usually
    leaves both out. They have two dimensions, as a matrix has, so select them by name.

    Raises:
        TypeError, ValueError: when n_heads or channels is not an integer >= 1.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> decay = nn.SoftplusDecay(n_heads=4, channels=1)
        >>> bool((decay(torch.zeros(2, 10, 4, 1)) < 0).all())
        True
    """

    def __init__(self, n_heads: int, channels: int) -> None:
        super().__init__()
        check_counts(n_heads=n_heads, channels=channels)
        self.A_log = nn.Parameter(torch.empty(n_heads, 1))
        self.dt_bias = nn.Parameter(torch.empty(n_heads, channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights, as when the layer is made."""
        self.A_log.uniform_(1, 16).log_()
        dt = self.dt_bias.uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias.copy_(dt + (-(-dt).expm1()).log())  # softplus of it is dt

    def forward(self, a: Tensor) -> Tensor:
        """The log decays of a `[B, T, H, C]`, in the same shape; weights may stay in float32.

        Raises:
            TypeError: when a is not a tensor of floats.
            ValueError: when a is not `[..., H, C]`, or on another device.
        """
        check_floats(a=a)
        if a.shape[-2:] != self.dt_bias.shape:
            raise ValueError(
                f"a must have shape [B, T, H, C] with [H, C] = {list(self.dt_bias.shape)}, "
                f"got {list(a.shape)}"
            )
        check_device("a", a, self.dt_bias, "the weights")
        # softplus(x) = −log σ(−x): `torch.compile` gets the strides of softplus's gradient wrong.
        return self.A_log.exp() * F.logsigmoid(-(a + self.dt_bias))
