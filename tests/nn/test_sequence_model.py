"""`nn.SequenceModel` and its blocks: composition, decoding, and that a hybrid learns to recall."""

from __future__ import annotations

import io
import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.nn import (
    Block,
    DeltaFormer,
    DeltaNet,
    DeltaProduct,
    FeedForwardMemory,
    GatedDeltaNet,
    GatedLinearAttention,
    KimiDeltaAttention,
    LinearAttention,
    Mixer,
    MixtureOfExperts,
    ProductKeyMemory,
    SequenceModel,
    SoftmaxAttention,
)
from tests.nn.reference import rms_norm, silu
from tests.ops.reference import relative_error

HYBRID = [GatedDeltaNet, KimiDeltaAttention, partial(SoftmaxAttention, rotary=True), DeltaFormer]


def model(mixers=HYBRID, **options) -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(11, 24, 3, mixers, **options).double()


def some_tokens(B: int, T: int) -> Tensor:
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(1))


def test_only_dense_tensors_are_tokens():
    tokens = some_tokens(2, 5)
    for other in (tokens.to_sparse(), torch.nested.as_nested_tensor(list(tokens))):
        with pytest.raises(TypeError, match="tokens must be a dense tensor"):
            model()(other)
        with pytest.raises(TypeError, match="x must be a dense tensor"):
            model().step(other)


@torch.no_grad()
def test_a_block_is_two_residual_steps():
    block = Block(LinearAttention(24, 3)).double()
    for norm in (block.mixer_norm, block.feed_forward_norm):
        norm.weight.normal_()
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    h = x + block.mixer(block.mixer_norm.weight * rms_norm(x))[0]
    z = block.feed_forward_norm.weight * rms_norm(h)
    f = block.feed_forward
    assert f.up_proj.weight.shape == (64, 24)
    hidden = silu(z @ f.gate_proj.weight.T) * (z @ f.up_proj.weight.T)
    expected = h + hidden @ f.down_proj.weight.T
    assert relative_error(block(x)[0], expected) <= 1e-13


@pytest.mark.parametrize("tied_head", [True, False])
@torch.no_grad()
def test_logits_are_the_blocks_one_after_the_other(tied_head):
    net, tokens = model(tied_head=tied_head, d_hidden=32), some_tokens(2, 20)
    logits, _ = net(tokens)
    x = net.embedding.weight[tokens]
    for block in net.blocks:
        x, _ = block(x)
    head = net.embedding.weight if tied_head else net.head.weight
    assert (net.head is None) == tied_head
    assert net.blocks[0].feed_forward.up_proj.weight.shape == (32, 24)
    assert logits.shape == (2, 20, 11)
    assert relative_error(logits, rms_norm(x) @ head.T) <= 1e-13


@torch.no_grad()
def test_pieces_and_steps_equal_the_whole():
    net, tokens = model(), some_tokens(2, 150)
    whole, _ = net(tokens)
    state, pieces = None, []
    for piece in tokens.split([1, 80, 60, 9], 1)[:3]:
        logits, state = net(piece, state)
        pieces.append(logits)
    for t in range(141, 150):
        logits, state = net.step(tokens[:, t], state)
        assert logits.shape == (2, 11)
        pieces.append(logits[:, None])
    assert relative_error(torch.cat(pieces, 1), whole) <= 1e-12


@torch.no_grad()
def test_decoding_holds_a_constant_memory():
    net = model([GatedDeltaNet, GatedLinearAttention, LinearAttention])

    def held(x) -> int:
        if isinstance(x, Tensor):
            return x.untyped_storage().nbytes()
        return sum(held(part) for part in x)

    sizes, state = [], None
    for token in some_tokens(2, 70).T:
        _, state = net.step(token, state)
        sizes.append(held(state))
    assert len(set(sizes)) == 1


def test_embeddings_start_with_length_one():
    net = SequenceModel(500, 64, 1, [])
    assert abs(net.embedding.weight.square().sum(-1).mean() - 1) < 0.05


@torch.no_grad()
def test_a_model_made_without_memory_gets_its_weights_later():
    with torch.device("meta"):
        net = SequenceModel(500, 64, 2, [DeltaProduct, KimiDeltaAttention, SoftmaxAttention])
        net.blocks.append(ProductKeyMemory(64, 8, 2))
    net.to_empty(device="cpu")
    for x in net.parameters():
        x.fill_(math.nan)
    net.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    assert [name for name, x in net.named_parameters() if not x.isfinite().all()] == []
    assert abs(net.embedding.weight.square().sum(-1).mean() - 1) < 0.05


def test_a_tied_head_stays_tied_when_weights_are_assigned():
    with torch.device("meta"):
        net = SequenceModel(11, 24, 3, HYBRID)
    whole = model()
    net.load_state_dict(whole.state_dict(), assign=True)
    assert torch.equal(net(some_tokens(1, 5))[0], whole(some_tokens(1, 5))[0])
    assert sum(x.numel() for x in net.parameters()) == sum(x.numel() for x in whole.parameters())


@torch.no_grad()
def test_torch_compile_takes_the_whole_graph():
    net, tokens = model().float(), some_tokens(2, 20)
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(tokens)[0], net(tokens)[0]) <= 1e-5


@torch.no_grad()
def test_a_saved_program_takes_any_length_and_goes_on():
    net = model([LinearAttention, DeltaProduct, KimiDeltaAttention, SoftmaxAttention, DeltaFormer])
    net, tokens = net.float(), some_tokens(2, 90)
    T = torch.export.Dim("T", min=4, max=512)
    program = torch.export.export(net, (some_tokens(2, 20),), dynamic_shapes=({1: T},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    logits, state = loaded(tokens[:, :80])
    expected, _ = net(tokens)
    more, _ = net(tokens[:, 80:], state)
    assert relative_error(torch.cat((logits, more), 1), expected) <= 1e-5


class OwnMixer(Mixer):
    """A mixer that hands back what it is told to."""

    def __init__(self, d_model: int, n_heads: int, outputs):
        super().__init__(d_model, n_heads)
        self.outputs = outputs

    def forward(self, x, state=None, *, group=None, cu_seqlens=None):
        return self.outputs(self.o_proj(self.project(x)[2]))


def test_what_a_mixer_of_ones_own_forgets_is_named():
    x = torch.randn(2, 5, 24)
    with pytest.raises(TypeError, match=r"OwnMixer must return \(y, state\), got Tensor"):
        Block(OwnMixer(24, 3, lambda y: y))(x)
    with pytest.raises(ValueError, match=r"must return y \[2, 5, 24\] like x, got \[2, 1, 24\]"):
        Block(OwnMixer(24, 3, lambda y: (y[:, :1], None)))(x)
    for no_layer in (DeltaNet, torch.nn.Linear(24, 24), None):
        with pytest.raises(
            TypeError, match="mixer must be a layer with a d_model, such as a Mixer"
        ):
            Block(no_layer)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match="mixers must make layers of size 24, got a DeltaNet of 12"
    ):
        SequenceModel(11, 24, 3, [lambda _, H: DeltaNet(12, H)])


def recall(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four pairs of a key (of 8) and a value (of 8), then a key again: what was its value?"""
    keys = torch.rand(n, 8, generator=generator).argsort(1)[:, :4]
    values = torch.randint(8, (n, 4), generator=generator)
    asked = torch.randint(4, (n, 1), generator=generator)
    pairs = torch.stack((keys, 8 + values), -1).flatten(1)
    return torch.cat((pairs, keys.gather(1, asked)), 1), values.gather(1, asked)[:, 0]


def test_a_hybrid_learns_to_recall():
    net = SequenceModel(16, 32, 2, [GatedDeltaNet, SoftmaxAttention])
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    losses = []
    for _ in range(150):
        tokens, answers = recall(64, generator)
        loss = F.cross_entropy(net(tokens)[0][:, -1, 8:], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(x.grad is not None and x.grad.norm() > 0 for x in net.parameters())
    assert losses[0] > 0.8 * math.log(8)
    assert sum(losses[-10:]) / 10 < 0.25 * math.log(8)


@torch.no_grad()
def test_a_block_takes_any_feed_forward_memory():
    experts = partial(MixtureOfExperts, d_hidden=16, n_experts=4, top_k=2)
    net = model([DeltaNet, SoftmaxAttention], feed_forward=experts)
    assert all(isinstance(block.feed_forward, MixtureOfExperts) for block in net.blocks)
    block, x = net.blocks[0], torch.randn(2, 9, 24, dtype=torch.float64)
    h = x + block.mixer(block.mixer_norm(x))[0]
    expected = h + block.feed_forward(block.feed_forward_norm(h))
    assert torch.equal(block(x)[0], expected)
    mixer = DeltaNet(24, 3)
    with pytest.raises(ValueError, match="d_hidden must be None with feed_forward, got 8"):
        Block(mixer, 8, feed_forward=net.blocks[0].feed_forward)
    with pytest.raises(TypeError, match="feed_forward must be a module or None, got 'relu'"):
        Block(mixer, feed_forward="relu")  # pyright: ignore[reportArgumentType]
    narrow, tuples = torch.nn.Linear(24, 1), OwnMixer(24, 3, lambda y: (y, None))
    with pytest.raises(ValueError, match=r"Linear must return y .* like x, got \[2, 9, 1\]"):
        Block(mixer, feed_forward=narrow)(x.float())
    with pytest.raises(TypeError, match="OwnMixer must return a tensor y, got tuple"):
        Block(mixer, feed_forward=tuples)(x.float())


@torch.no_grad()
def test_generated_tokens_are_the_likeliest_of_the_whole():
    net, prompts = model(), [some_tokens(1, T)[0] for T in (5, 1, 3)]
    cu_seqlens = torch.tensor([0, 5, 6, 9])
    written = net.generate(torch.cat(prompts)[None], 6, cu_seqlens=cu_seqlens)
    assert written.shape == (3, 6)
    for prompt, own in zip(prompts, written, strict=True):
        assert torch.equal(net.generate(prompt[None], 6)[0], own)
        whole = torch.cat((prompt, own))[None]
        assert torch.equal(net(whole)[0][0, len(prompt) - 1 : -1].argmax(-1), own)


def test_generated_tokens_are_drawn_from_the_model():
    net = model([LinearAttention])
    net.embedding.weight.data.mul_(0.2)
    prompt, τ = some_tokens(1, 4), 0.7
    with torch.no_grad():
        p = (net(prompt)[0][0, -1] / τ).softmax(-1)
    assert 0.05 < p.max() < 0.95
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    drawn = net.generate(prompt.expand(n, -1), 1, temperature=τ, generator=generator)
    assert not drawn.requires_grad
    generator.manual_seed(0)
    again = net.generate(prompt.int().expand(n, -1), 1, temperature=τ, generator=generator)
    assert torch.equal(again, drawn)
    counts = torch.bincount(drawn[:, 0], minlength=11)
    spread = (n * p * (1 - p)).sqrt()
    assert ((counts - n * p).abs() < 4 * spread + 1).all()
    net.norm.weight.data.mul_(1000)
    for τ in (1e-38, 1e-300):  # logits / τ would be infinite
        assert torch.equal(net.generate(prompt, 4, temperature=τ), net.generate(prompt, 4))


def test_what_cannot_be_generated_is_named():
    net, prompt = model([LinearAttention]), some_tokens(1, 4)
    for bad, error, message in (
        (dict(steps=0), ValueError, "steps must be at least 1, got 0"),
        (dict(temperature=0.0), ValueError, "temperature must be .*got 0.0"),
        (dict(tokens=prompt[:, :0]), ValueError, "at least one of every prompt"),
        (dict(cu_seqlens=torch.tensor([0, 4, 4])), ValueError, "at least one of every prompt"),
    ):
        with pytest.raises(error, match=message):
            net.generate(**(dict(tokens=prompt, steps=2) | bad))


def test_a_model_says_what_it_is_made_of():
    told = str(SequenceModel(11, 24, 3, [DeltaProduct, partial(SoftmaxAttention, n_kv_heads=1)]))
    for words in ("n_heads=3, d_key=8, d_value=8", "n_kv_heads=1, rotary=False", "width=4",
                  "kernel='swiglu'"):  # fmt: skip
        assert words in told


def test_bad_input_is_named():
    net = model()
    with pytest.raises(ValueError, match=r"tokens must have shape \[B, T\], got \[5\]"):
        net(some_tokens(1, 5)[0])
    with pytest.raises(TypeError, match=r"tokens must be .* int32 or int64, got torch\.float32"):
        net(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="tokens must be from 0 to vocab_size - 1 = 10, got 11"):
        net(torch.tensor([[0, 11, -1]]))
    with pytest.raises(ValueError, match="tokens must be on cpu like the embedding, got meta"):
        net(some_tokens(1, 5).to("meta"))
    with pytest.raises(ValueError, match=r"x must have shape \[B\], got \[2, 1\]"):
        net.step(some_tokens(2, 1))
    with pytest.raises(TypeError, match=r"mixers must be a sequence, got .*GatedDeltaNet"):
        SequenceModel(11, 24, 3, GatedDeltaNet)  # pyright: ignore[reportArgumentType]
    layer: Any = LinearAttention(8, 2)
    with pytest.raises(TypeError, match="such as LinearAttention, got a LinearAttention"):
        SequenceModel(7, 8, 2, [layer])
    with pytest.raises(TypeError, match="mixers must be what makes a layer, got 3"):
        SequenceModel(7, 8, 2, [3])  # pyright: ignore[reportArgumentType]
    for memory, message in (
        ("relu", "feed_forward must be what makes a memory, got 'relu'"),
        (FeedForwardMemory(8, 4), "such as FeedForwardMemory, got a FeedForwardMemory"),
    ):
        with pytest.raises(TypeError, match=message):
            SequenceModel(7, 8, 2, [], feed_forward=memory)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
        net.generate(some_tokens(1, 5), 2, generator=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"x must have shape .* d_model = 24, got \[2, 23\]"):
        net.blocks[0](torch.zeros(2, 23))
    with pytest.raises(ValueError, match="d_model must be at least 1, got 0"):
        SequenceModel(7, 0, 2, [])
    with pytest.raises(ValueError, match="n_heads must be at least 1, got 0"):
        SequenceModel(7, 8, 0, [])
    with pytest.raises(ValueError, match="vocab_size must be at least 1, got 0"):
        SequenceModel(0, 24, 3, [])
    with pytest.raises(ValueError, match="state must have one entry a block, 4, got 2"):
        net(some_tokens(1, 5), (None, None))
    with pytest.raises(ValueError, match="state must have one entry a block, 4, got int"):
        net(some_tokens(1, 5), 3)  # pyright: ignore[reportArgumentType]


def test_the_head_is_tied_unless_it_is_asked_not_to_be():
    assert SequenceModel(7, 8, 2, [LinearAttention]).head is None
