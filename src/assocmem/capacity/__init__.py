"""How much a memory holds: the retrieval signal-to-noise ratio, measured and in closed form."""

from assocmem.capacity.closed_forms import (
    snr_cone,
    snr_decay,
    snr_linear,
    snr_polynomial,
    snr_relu,
    snr_round,
    snr_taylor,
)
from assocmem.capacity.decoding import accuracy_linear, nearest_value_accuracy
from assocmem.capacity.dilution import softmax_error, softmax_temperature, softmax_weight
from assocmem.capacity.exponential_forms import (
    freezing_temperature,
    snr_exponential,
    snr_rbf,
    snr_solu,
)
from assocmem.capacity.frames import tight_frame, welch_bound
from assocmem.capacity.quadrature import snr_by_quadrature, snr_typical
from assocmem.capacity.retrieval import MonteCarlo, monte_carlo, noise_to_signal, retrieval_snr
from assocmem.capacity.vectors import cone, sphere

__all__ = [
    "MonteCarlo",
    "accuracy_linear",
    "cone",
    "freezing_temperature",
    "monte_carlo",
    "nearest_value_accuracy",
    "noise_to_signal",
    "retrieval_snr",
    "snr_by_quadrature",
    "snr_cone",
    "snr_decay",
    "snr_exponential",
    "snr_linear",
    "snr_polynomial",
    "snr_rbf",
    "snr_relu",
    "snr_round",
    "snr_solu",
    "snr_taylor",
    "snr_typical",
    "softmax_error",
    "softmax_temperature",
    "softmax_weight",
    "sphere",
    "tight_frame",
    "welch_bound",
]
