"""What all layers share: pieces equal the whole, states, gradients, and how they fail."""

from __future__ import annotations

import io
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from assocmem.nn import (
    DeltaFormer,
    DeltaNet,
    DeltaProduct,
    GatedDeltaNet,
    GatedLinearAttention,
    KimiDeltaAttention,
    LinearAttention,
    Mixer,
    Retention,
    SequenceModel,
    SoftmaxAttention,
    detached,
    join,
    select,
    state_bytes,
)
from tests.ops.operators import TORCH_2_6
from tests.ops.reference import relative_error

RECURRENT = {
    "linear attention": LinearAttention,
    "linear attention, not normalised": partial(
        LinearAttention, normalize=False, d_key=4, d_value=10
    ),
    "retention": partial(Retention, d_key=4, d_value=10),
    "gated linear attention": partial(GatedLinearAttention, d_key=4, d_value=10),
    "DeltaNet": partial(DeltaNet, d_key=4, d_value=10),
    "DeltaNet, negative eigenvalues": partial(DeltaNet, allow_negative_eigenvalues=True),
    "DeltaNet, convolution of width 1": partial(DeltaNet, conv_width=1),
    "DeltaProduct": partial(DeltaProduct, n_corrections=3, d_key=4, d_value=10),
    "Gated DeltaNet": partial(GatedDeltaNet, d_key=4, d_value=10),
    "KDA": partial(KimiDeltaAttention, d_key=4, d_value=10),
}
GROWING = {
    "softmax attention": partial(SoftmaxAttention, d_key=4, d_value=10),
    "Forgetting Transformer": partial(SoftmaxAttention, forget_gate=True),
    "softmax attention, rotary": partial(SoftmaxAttention, rotary=True),
    "softmax attention, one head of keys": partial(SoftmaxAttention, n_kv_heads=1, rotary=True),
    "DeltaFormer": partial(DeltaFormer, d_key=4, d_value=10),
    "DeltaFormer, erase keys": partial(DeltaFormer, own_erase_keys=True, rotary=True),
    "DeltaFormer, linear": partial(DeltaFormer, erase="linear"),
    "DeltaFormer, relu": partial(DeltaFormer, erase="relu", own_erase_keys=True),
}
MIXERS = {**RECURRENT, **GROWING}


def layer(name: str, **options) -> Mixer:
    torch.manual_seed(0)
    return MIXERS[name](24, 3, **options).double()


def tokens(B: int, T: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, T, 24, dtype=torch.float64, generator=generator)


def parts(state) -> list[Tensor]:
    """The tensors of a state."""
    return [state] if isinstance(state, Tensor) else [x for x in state if x is not None]


@pytest.mark.parametrize("name", MIXERS)
def test_pieces_equal_the_whole(name):
    mixer, x = layer(name), tokens(2, 150)
    whole, final = mixer(x)
    state, pieces = None, []
    for piece in x.split([1, 80, 0, 69], 1):
        y, state = mixer(piece, state)
        pieces.append(y)
    assert whole.shape == x.shape
    assert relative_error(torch.cat(pieces, 1).detach(), whole.detach()) <= 1e-12
    for part, expected in zip(parts(state), parts(final), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MIXERS)
def test_steps_equal_the_whole(name):
    mixer, x = layer(name), tokens(2, 20)
    whole, _ = mixer(x)
    state = None
    for t in range(20):
        y, state = mixer.step(x[:, t], state)
        assert relative_error(y.detach(), whole[:, t].detach()) <= 1e-12


@pytest.mark.parametrize("name", MIXERS)
def test_forms_agree(name):
    x = tokens(2, 70)
    y, _ = layer(name, backend="recurrent")(x)
    expected, _ = layer(name, backend="chunk")(x)
    assert relative_error(y.detach(), expected.detach()) <= 1e-12


@pytest.mark.parametrize("name", MIXERS)
def test_a_layer_runs_the_form_that_it_is_asked_for(name):
    """No kernel takes float64: what refuses has been asked."""
    with pytest.raises(RuntimeError, match="backend='triton' cannot run here"):
        layer(name, backend="triton")(tokens(2, 10))


@pytest.mark.parametrize("name", MIXERS)
def test_gradients_through_states_equal_those_of_the_whole(name):
    mixer, x = layer(name), tokens(1, 40).requires_grad_()
    targets = [x, *mixer.parameters()]
    whole, _ = mixer(x)
    expected = torch.autograd.grad(whole[:, 20:].square().sum(), targets)
    _, state = mixer(x[:, :20])
    y, _ = mixer(x[:, 20:], state)
    got = torch.autograd.grad(y.square().sum(), targets)
    assert (got[0][:, :20].norm(dim=-1) > 0).all()
    for a, b in zip(got, expected, strict=True):
        assert relative_error(a, b) <= 1e-10


@pytest.mark.parametrize("name", MIXERS)
def test_no_gradient_flows_through_a_detached_state(name):
    mixer, x = layer(name), tokens(1, 40).requires_grad_()
    _, state = mixer(x[:, :20])
    cut = detached((state, None))[0]
    assert type(cut) is type(state)
    assert not any(part.requires_grad for part in parts(cut))
    shared = zip(parts(cut), parts(state), strict=True)
    assert all(part.data_ptr() == whole.data_ptr() for part, whole in shared)
    expected, _ = mixer(x[:, 20:], state)
    y, _ = mixer(x[:, 20:], cut)
    assert torch.equal(y, expected)
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    assert not dx[:, :20].any()


@pytest.mark.parametrize("name", MIXERS)
def test_every_parameter_gets_a_gradient(name):
    mixer = layer(name)
    y, _ = mixer(tokens(2, 40))
    y.square().sum().backward()
    for parameter, x in mixer.named_parameters():
        assert x.grad is not None, parameter
        assert torch.isfinite(x.grad).all(), parameter
        assert x.grad.norm() > 0, parameter


def held(state) -> int:
    """Bytes that a state keeps alive."""
    return sum(x.untyped_storage().nbytes() for x in parts(state))


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_only_softmax_attention_and_delta_former_keep_every_token(name):
    mixer = layer(name)
    sizes = [held(mixer(tokens(2, T))[1]) for T in (1, 64, 256)]
    if name in RECURRENT:
        assert sizes[0] == sizes[1] == sizes[2]
    else:
        assert sizes[2] == 4 * sizes[1] == 256 * sizes[0]


@torch.no_grad()
def test_the_bytes_of_a_state_are_those_of_its_numbers():
    x = tokens(2, 70).float()
    assert state_bytes(None) == 0
    for mixer, bytes_ in [
        (Retention(24, 3), 4 * 2 * 3 * 8 * 8),
        (DeltaNet(24, 3, conv_width=3), 4 * 2 * (3 * 8 * 8 + 2 * 3 * 24)),  # and two tokens
        (SoftmaxAttention(24, 3, forget_gate=True), 4 * 2 * 70 * 3 * (8 + 8 + 1)),
        (SoftmaxAttention(24, 3).bfloat16(), 2 * 2 * 70 * 3 * (8 + 8)),
    ]:
        _, state = mixer(x.to(mixer.q_proj.weight.dtype))
        assert state_bytes(state) == bytes_
        assert state_bytes((state, None, state)) == 2 * bytes_


@pytest.mark.parametrize("name", MIXERS)
def test_zero_tokens_have_finite_gradients(name):
    mixer, x = layer(name), torch.zeros(1, 10, 24, dtype=torch.float64, requires_grad=True)
    y, _ = mixer(x)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(y).all()
    assert dx.abs().max() <= 1e6


@pytest.mark.parametrize("name", MIXERS)
def test_autocast_keeps_the_memory_in_float32(name):
    mixer, x = layer(name).float(), tokens(2, 70).float()
    expected, _ = mixer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x[:, :35])
        z, _ = mixer(x[:, 35:], state)
    assert y.dtype == torch.bfloat16
    if name in RECURRENT:
        assert parts(state)[0].dtype == torch.float32
    assert relative_error(torch.cat((y, z), 1).detach(), expected.detach()) <= 0.05


@pytest.mark.parametrize("name", [name for name in MIXERS if hasattr(layer(name), "o_norm")])
def test_heads_are_normalised_in_the_dtype_of_the_weights(name):
    """Under autocast they read another one, which PyTorch would normalise in many passes."""
    mixer, seen = layer(name).float(), []
    mixer.o_norm.register_forward_hook(lambda _module, given, out: seen.append((given[0], out)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixer(tokens(2, 10).float())
    ((o, out),) = seen
    assert o.dtype == torch.bfloat16
    assert torch.equal(out, torch.nn.functional.rms_norm(o.float(), o.shape[-1:], eps=1e-5))


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match=r"n_heads must be at least 1, got 0"):
        LinearAttention(24, 0)
    with pytest.raises(TypeError, match=r"d_model must be an integer, got float"):
        LinearAttention(24.0, 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"d_key must be at least 1, got -1"):
        LinearAttention(24, 2, d_key=-1)
    with pytest.raises(ValueError, match=r"d_value must be at least 1, got 0"):
        LinearAttention(24, 2, d_value=0)
    with pytest.raises(ValueError, match=r"backend must be one of .*got 'cuda'"):
        LinearAttention(24, 2, backend="cuda")


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (partial(LinearAttention, 24, 2), "normalize"),
        (partial(DeltaNet, 24, 2), "allow_negative_eigenvalues"),
        (partial(DeltaFormer, 24, 2), "allow_negative_eigenvalues"),
        (partial(DeltaFormer, 24, 2), "own_erase_keys"),
        (partial(DeltaFormer, 24, 2), "rotary"),
        (partial(SoftmaxAttention, 24, 2), "rotary"),
        (partial(SoftmaxAttention, 24, 2), "forget_gate"),
        (partial(SequenceModel, 5, 24, 2, [DeltaNet]), "tied_head"),
    ],
)
def test_an_option_is_on_or_off(make, option):
    with pytest.raises(TypeError, match=f"{option} must be a bool, got str"):
        make(**{option: "no"})


@pytest.mark.parametrize("name", MIXERS)
def test_bad_input_is_named(name):
    with pytest.raises(ValueError, match=r"x must have shape .* d_model = 24, got \[2, 8, 23\]"):
        layer(name)(torch.zeros(2, 8, 23))
    mixer = layer(name)
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got list"):
        mixer([1, 2])
    with pytest.raises(TypeError, match=r"x must be a tensor of floats, got torch\.int64"):
        mixer(tokens(2, 8).long())
    with pytest.raises(TypeError, match=r"x must be torch\.float64 like the weights, got torch\.f"):
        mixer(tokens(2, 8).float())
    with pytest.raises(ValueError, match="x must be on cpu like the weights, got meta"):
        mixer(tokens(2, 8).to("meta"))
    _, state = mixer(tokens(2, 8))
    with pytest.raises(ValueError, match=r"^state(\.S)? must (have|be of N = 3 sequences)"):
        mixer(tokens(3, 8), state)


@pytest.mark.parametrize("name", MIXERS)
def test_what_brings_its_weights_itself_may_take_any_tokens(name):
    mixer, x = layer(name), tokens(2, 8).float()
    expected = layer(name).float()(x)[0]
    mixer.q_proj.register_forward_pre_hook(lambda *_: mixer.float() and None)
    assert torch.equal(mixer(x)[0], expected)


@pytest.mark.parametrize("name", MIXERS)
def test_only_dense_tensors_are_tokens_or_states(name):
    mixer, x = layer(name), tokens(2, 8)
    _, state = mixer(x)
    for other in (Tensor.to_sparse, lambda y: torch.nested.as_nested_tensor(list(y))):
        with pytest.raises(TypeError, match="x must be a dense tensor"):
            mixer(other(x))
        with pytest.raises(TypeError, match="x must be a dense tensor"):
            mixer.step(other(x[:, 0]), state)
        for i in range(len(parts(state))):
            changed = [other(y) if i == j else y for j, y in enumerate(parts(state))]
            fields = dict(zip(getattr(state, "_fields", ()), changed, strict=False))
            with pytest.raises(TypeError, match=r"state.* must be a dense tensor"):
                mixer(x, state._replace(**fields) if fields else changed[0])


@pytest.mark.parametrize("name", GROWING)
def test_a_state_of_every_token_has_to_be_one_of_this_layer(name):
    mixer, x = layer(name), tokens(2, 8)
    _, state = mixer(x)
    assert torch.equal(mixer(x, tuple(state))[0], mixer(x, state)[0])
    with pytest.raises(TypeError, match=r"state must be \(k, .*\), got Tensor"):
        mixer(x, state.k)
    with pytest.raises(ValueError, match=r"state must have k = torch\.float64"):
        mixer(x, state._replace(k=state.k.float()))
    with pytest.raises(ValueError, match=r"state must have k = torch\.float64"):
        mixer(x, state._replace(k=state.k[..., 1:]))
    for part in (part for part in state._fields if getattr(state, part) is not None):
        shorter = state._replace(**{part: getattr(state, part)[:, :5]})
        with pytest.raises(ValueError, match=r"the same tokens in all its parts, got .*5"):
            mixer(x, shorter)


@pytest.mark.parametrize("name", MIXERS)
def test_a_state_is_loaded_as_it_was_saved(name):
    _, state = layer(name)(tokens(2, 8))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded) is type(state)
    for x, y in zip(parts(loaded), parts(state), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    "Layer", [LinearAttention, DeltaNet, GatedDeltaNet, SoftmaxAttention, DeltaFormer]
)
def test_heads_must_share_the_model(Layer):
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads = 5"):
        Layer(24, 5)
    assert Layer(24, 5, d_key=4, d_value=4)(torch.zeros(1, 3, 24))[0].shape == (1, 3, 24)


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match="expand_v"):
        KimiDeltaAttention(24, 3, expand_v=2)


@pytest.mark.parametrize("kind", [SoftmaxAttention, DeltaFormer])
def test_keys_of_odd_size_are_refused_with_rotary_only(kind):
    y, _ = kind(24, 3, d_key=3)(tokens(1, 4).float())
    assert y.shape == (1, 4, 24)


@pytest.mark.parametrize("name", MIXERS)
def test_whatever_is_made_is_made_on_the_device_of_the_tokens(name):
    mixer = MIXERS[name](24, 3).to("meta")
    y, state = mixer(tokens(2, 10).float().to("meta"))
    again, _ = mixer(y, state)
    assert again.is_meta
    assert again.shape == (2, 10, 24)
    y, state = mixer(y[:1], cu_seqlens=torch.empty(4, dtype=torch.int64, device="meta"))
    again, _ = mixer(y.expand(3, -1, -1), state)
    assert again.shape == (3, 10, 24)


@pytest.mark.parametrize("name", [name for name in MIXERS if "," not in name])
def test_one_graph_forward_and_backward(name):
    if name in GROWING and TORCH_2_6:
        pytest.skip("torch 2.6 mistakes the strides of its own attention's gradient")
    torch.compiler.reset()
    mixer, x = layer(name).float(), tokens(2, 5).float().requires_grad_()
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    inputs = [x, *mixer.parameters()]
    got, expected = (torch.autograd.grad(f(x)[0].sum(), inputs) for f in (compiled, mixer))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", [SoftmaxAttention, DeltaFormer])
@torch.no_grad()
def test_a_compiled_step_serves_a_cache_that_grows(kind):
    torch.compiler.reset()
    counter = CompileCounter()
    layer, x = kind(24, 3), tokens(1, 9).float()
    step = torch.compile(layer.step, backend=counter)
    _, state = layer(x[:, :3])
    for t in range(3, 9):
        _, state = step(x[:, t], state)
    assert counter.frame_count <= 2  # the second with a length that may change


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([2, 0]),
        torch.tensor([1, 1, 0, 2], dtype=torch.int32),
        torch.tensor([], dtype=torch.int64),
        torch.tensor([True, False, True]),
    ],
    ids=lambda index: str(index.tolist()),
)
@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_some_sequences_go_on_without_the_others(name, index):
    mixer, x = layer(name), tokens(3, 8)
    _, state = mixer(x)
    y, _ = mixer(x.flip(1), state)
    kept, _ = mixer(x.flip(1)[index], select((state, None), index)[0])
    torch.testing.assert_close(kept, y[index], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_sequences_join_those_that_run(name):
    mixer, x = layer(name), tokens(3, 8)
    running, new = mixer(x[:2])[1], mixer(x[2:, :3])[1]
    y, _ = mixer.step(x[:, 0], join([(running, None), (new, None)])[0])
    expected = torch.cat((mixer.step(x[:2, 0], running)[0], mixer.step(x[2:, 0], new)[0]))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_states_that_do_not_join_are_named():
    x = tokens(2, 3)
    linear, delta, softmax = (
        layer(name)(x)[1] for name in ("linear attention", "DeltaNet", "softmax attention")
    )
    forgetting = layer("Forgetting Transformer")(x)[1]
    for states, error, message in [
        ([], ValueError, "states must hold at least one state, got none"),
        (softmax, TypeError, "states must be a list of states, got KVCache"),
        (linear, TypeError, "states must be a list of states, got Tensor"),
        ([linear, None], ValueError, "states must be of one kind, got Tensor, NoneType"),
        (
            [linear, linear[:, :1]],
            ValueError,
            r"states must differ in N alone, got .* \[N, 1, 8, 9\]",
        ),
        ([delta, softmax], ValueError, "states must be of one kind, got DeltaState, KVCache"),
        (
            [softmax, forgetting],
            ValueError,
            r"states must differ in N and S alone, got .* \[1, S, 3",
        ),
        ([(linear,), (linear, None)], ValueError, r"states must have as many parts, got \[1, 2\]"),
        (["S", "S"], TypeError, "state must be a tensor, a tuple of states or None, got str"),
    ]:
        with pytest.raises(error, match=message):
            join(states)


@pytest.mark.parametrize("name", MIXERS)
def test_training_goes_on_from_a_state_of_inference(name):
    mixer, x = layer(name), tokens(2, 8)
    with torch.inference_mode():
        _, state = mixer(x)
    y, _ = mixer(x, detached(state))
    y.sum().backward()
    torch.testing.assert_close(y, mixer(torch.cat((x, x), 1))[0][:, 8:])


@pytest.mark.parametrize("name", ["KDA", "softmax attention"])
def test_a_bad_index_of_sequences_is_named(name):
    state = layer(name)(tokens(1, 12), cu_seqlens=torch.tensor([0, 3, 8, 12]))[1]
    for index, error, message in [
        ([0, 1], TypeError, r"index must be a torch\.Tensor, got list"),
        (torch.tensor([0.0]), TypeError, r"index must be int32, int64 or bool, got torch\.float32"),
        (torch.tensor(0), ValueError, r"index must have shape \[M\], got \[\]"),
        (torch.tensor([0]).to("meta"), ValueError, "index must be on cpu like the state, got meta"),
        (torch.tensor([0, 3]), ValueError, r"index must be from 0 to N - 1 = 2, got \[0, 3\]"),
        (torch.tensor([-1]), ValueError, r"index must be from 0 to N - 1 = 2, got \[-1\]"),
        (
            torch.tensor([True, False]),
            ValueError,
            r"index must have shape \[N\] = \[3\], got \[2\]",
        ),
    ]:
        with pytest.raises(error, match=message):
            select(state, index)


def test_what_is_no_state_is_named():
    for no_state in ({"a": torch.ones(1)}, "S", 3):
        with pytest.raises(TypeError, match="state must be a tensor, a tuple of states or None"):
            detached(no_state)
        with pytest.raises(TypeError, match="state must be a tensor, a tuple of states or None"):
            state_bytes(no_state)
        with pytest.raises(TypeError, match="state must be a tensor, a tuple of states or None"):
            select(no_state, torch.tensor([0]))


def test_a_step_takes_a_token_of_every_sequence():
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got list"):
        layer("DeltaNet").step([1.0])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"x must have shape \[B, \.\.\.\], got \[\]"):
        layer("DeltaNet").step(torch.tensor(1.0))
