"""Layers made of the sequence operators: `forward(x, state=None) -> (y, state)`."""

from assocmem.nn.block import Block, SwiGLU
from assocmem.nn.delta_net import DeltaNet, DeltaState
from assocmem.nn.gated_delta_net import GatedDeltaNet
from assocmem.nn.gated_linear_attention import GatedLinearAttention
from assocmem.nn.kimi_delta_attention import KimiDeltaAttention
from assocmem.nn.linear_attention import LinearAttention
from assocmem.nn.mixer import Mixer
from assocmem.nn.sequence_model import SequenceModel
from assocmem.nn.short_convolution import ShortConvolution
from assocmem.nn.softmax_attention import KVCache, SoftmaxAttention
from assocmem.nn.softplus_decay import SoftplusDecay
from assocmem.nn.streaming import Streaming

__all__ = [
    "Block",
    "DeltaNet",
    "DeltaState",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "KVCache",
    "KimiDeltaAttention",
    "LinearAttention",
    "Mixer",
    "SequenceModel",
    "ShortConvolution",
    "SoftmaxAttention",
    "SoftplusDecay",
    "Streaming",
    "SwiGLU",
]
