"""Layers. Those that mix tokens take `forward(x, state=None, *, group=None, cu_seqlens=None)` and
give `(y, state)`; those that change each token by itself, the feed-forward memories, take
`forward(x) -> y`.
"""

from assocmem.nn.block import Block
from assocmem.nn.delta_former import DeltaFormer, KUCache
from assocmem.nn.delta_net import DeltaNet, DeltaState
from assocmem.nn.delta_product import DeltaProduct
from assocmem.nn.feed_forward_memory import KERNEL_FUNCTIONS, FeedForwardMemory
from assocmem.nn.gated_delta_net import GatedDeltaNet
from assocmem.nn.gated_linear_attention import GatedLinearAttention
from assocmem.nn.kimi_delta_attention import KimiDeltaAttention
from assocmem.nn.linear_attention import LinearAttention
from assocmem.nn.mixer import Mixer
from assocmem.nn.mixture_of_experts import MixtureOfExperts
from assocmem.nn.product_key_memory import ProductKeyMemory
from assocmem.nn.retention import Retention
from assocmem.nn.sequence_model import SequenceModel
from assocmem.nn.short_convolution import ShortConvolution
from assocmem.nn.softmax_attention import KVCache, SoftmaxAttention
from assocmem.nn.softplus_decay import SoftplusDecay
from assocmem.nn.state import detached, join, select, state_bytes
from assocmem.nn.streaming import Streaming

__all__ = [
    "KERNEL_FUNCTIONS",
    "Block",
    "DeltaFormer",
    "DeltaNet",
    "DeltaProduct",
    "DeltaState",
    "FeedForwardMemory",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "KUCache",
    "KVCache",
    "KimiDeltaAttention",
    "LinearAttention",
    "Mixer",
    "MixtureOfExperts",
    "ProductKeyMemory",
    "Retention",
    "SequenceModel",
    "ShortConvolution",
    "SoftmaxAttention",
    "SoftplusDecay",
    "Streaming",
    "detached",
    "join",
    "select",
    "state_bytes",
]
