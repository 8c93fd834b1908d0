"""How much a memory holds: the retrieval signal-to-noise ratio, measured and in closed form."""

from assocmem.capacity.closed_forms import (
    snr_cone,
    snr_decay,
    snr_exponential,
    snr_linear,
    snr_polynomial,
    snr_relu,
)
from assocmem.capacity.decoding import accuracy_linear, nearest_value_accuracy
from assocmem.capacity.frames import tight_frame, welch_bound
from assocmem.capacity.retrieval import MonteCarlo, monte_carlo, noise_to_signal, retrieval_snr
from assocmem.capacity.vectors import cone, sphere

__all__ = [
    "MonteCarlo",
    "accuracy_linear",
    "cone",
    "monte_carlo",
    "nearest_value_accuracy",
    "noise_to_signal",
    "retrieval_snr",
    "snr_cone",
    "snr_decay",
    "snr_exponential",
    "snr_linear",
    "snr_polynomial",
    "snr_relu",
    "sphere",
    "tight_frame",
    "welch_bound",
]
