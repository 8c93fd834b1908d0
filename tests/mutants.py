"""The mutants: how the library could be broken, and who has to notice.

A mutant is a change of one place in a source file. Its guards are the test files and chapters that
have to turn red. `tests/run_mutants.py` makes the changes, one at a time, and runs the guards.
"""

from __future__ import annotations

from dataclasses import dataclass

CHAPTER_1 = "book/01_linear_attention.ipynb"
CHAPTER_2 = "book/02_memory_capacity.ipynb"
CHAPTER_3 = "book/03_kernel_view.ipynb"
CHAPTER_4 = "book/04_feed_forward_memory.ipynb"
CHAPTER_5 = "book/05_update_rules.ipynb"
CHAPTER_6 = "book/06_gpu_scans.ipynb"
CHAPTER_7 = "book/07_expressivity.ipynb"
CHAPTER_8 = "book/08_infinite_context.ipynb"
CHAPTER_9 = "book/09_choosing.ipynb"


@dataclass(frozen=True)
class Mutant:
    """What is broken, how, and who has to notice."""

    what: str
    file: str
    old: str
    new: str
    guards: tuple[str, ...]


POLYNOMIALS = "src/assocmem/similarity/polynomials.py"
EXPONENTIALS = "src/assocmem/similarity/exponentials.py"
ACTIVATIONS = "src/assocmem/similarity/activations.py"
FEATURES = "src/assocmem/similarity/features.py"
MEMORY = "src/assocmem/memory.py"
CLOSED_FORMS = "src/assocmem/capacity/closed_forms.py"
EXPONENTIAL_FORMS = "src/assocmem/capacity/exponential_forms.py"
QUADRATURE = "src/assocmem/capacity/quadrature.py"
DILUTION = "src/assocmem/capacity/dilution.py"
HOPFIELD = "src/assocmem/hopfield.py"
RETRIEVAL = "src/assocmem/capacity/retrieval.py"
FRAMES = "src/assocmem/capacity/frames.py"
CLAIMS = "src/assocmem/book/claims.py"
LINEAR_ATTENTION = "src/assocmem/ops/linear_attention.py"
KERNEL = "kernels/assocmem_kernels/linear_attention.py"
LAYER = "src/assocmem/nn/linear_attention.py"
DECAY = "src/assocmem/ops/decay.py"
CHUNKS = "src/assocmem/ops/chunks.py"
DELTA_RULE = "src/assocmem/ops/delta_rule.py"
SOFTMAX_ATTENTION = "src/assocmem/ops/softmax_attention.py"
DELTAFORMER = "src/assocmem/ops/deltaformer.py"
ERASE = "src/assocmem/ops/erase.py"
DELTA_KERNEL = "kernels/assocmem_kernels/delta_rule.py"
CHANNEL_SCORES = "kernels/assocmem_kernels/channel_scores.py"
PIECES = "kernels/assocmem_kernels/pieces.py"
KERNEL_DECAY = "kernels/assocmem_kernels/decay.py"
DELTAFORMER_KERNEL = "kernels/assocmem_kernels/deltaformer.py"
DELTAFORMER_BACKWARD = "kernels/assocmem_kernels/deltaformer_backward.py"
ERASE_KERNEL = "kernels/assocmem_kernels/erase.py"
FEED_FORWARD = "src/assocmem/nn/feed_forward_memory.py"
FEED_FORWARD_TEST = "tests/nn/test_feed_forward_memory.py"
ADDING = "src/assocmem/rules/adding.py"
CORRECTING = "src/assocmem/rules/correcting.py"
SOLVING = "src/assocmem/rules/solving.py"
ATTENTION_RULES = "src/assocmem/rules/attention.py"
RULE_OPERATORS = "src/assocmem/rules/operators.py"
# Guards may narrow down what they run, in pytest's own words.
OPS_TEST = "tests/ops/test_scans.py -k linear"
DELTA_TEST = "tests/ops/test_scans.py -k delta"
WORST_KEYS = "tests/ops/test_delta_rule.py"
KERNEL_TEST = "tests/kernels/test_scans.py -k linear"
DELTA_KERNEL_TEST = "tests/kernels/test_scans.py -k delta"
DELTAFORMER_KERNEL_TEST = "tests/kernels/test_deltaformer.py"
PIECES_TEST = "tests/kernels/test_pieces.py"
INTEGERS_TEST = "tests/kernels/test_integers.py"
GPU_TEST = "tests/test_gpu_benchmark.py"
DELTA_LAYERS = "tests/nn/test_delta_layers.py"
DELTAFORMER_TEST = "tests/ops/test_deltaformer.py"
DELTA_FORMER_LAYER = "tests/nn/test_delta_former.py"
RULES_TEST = "tests/test_rules.py"

MUTANTS = (
    # kernel functions
    Mutant(
        "ReLU forgets to cut",
        ACTIVATIONS,
        "return z.clamp_min(0) ** self.power",
        "return z ** self.power",
        ("tests/test_similarity.py", "tests/test_capacity.py", CHAPTER_2, CHAPTER_3),
    ),
    Mutant(
        "wrong degree of the polynomial",
        POLYNOMIALS,
        "return z**self.degree",
        "return z ** (self.degree + 1)",
        ("tests/test_similarity.py", "tests/test_capacity.py", CHAPTER_2, CHAPTER_3),
    ),
    Mutant(
        "the default temperature is d instead of √d",
        "src/assocmem/similarity/base.py",
        "return math.sqrt(d) if tau is None",
        "return float(d) if tau is None",
        ("tests/test_similarity.py", CHAPTER_3),
    ),
    Mutant(
        "a feature map of one degree too many",
        POLYNOMIALS,
        "range(degree - 1)",
        "range(degree)",
        ("tests/test_similarity.py", "tests/test_memory.py"),
    ),
    Mutant(
        "Taylor's series without its factorials",
        POLYNOMIALS,
        "total = 1 + total * u / p",
        "total = 1 + total * u",
        ("tests/test_similarity.py", "tests/test_capacity.py", CHAPTER_3),
    ),
    Mutant(
        "SoLU without its score",
        EXPONENTIALS,
        "return z * torch.exp(z / temperature(self.tau, d))",
        "return torch.exp(z / temperature(self.tau, d))",
        ("tests/test_similarity.py", "tests/test_capacity.py", CHAPTER_3),
    ),
    Mutant(
        "random features that forget the length of the key",
        FEATURES,
        "x.square().sum(-1, keepdim=True) / 2)",
        "0 * x.square().sum(-1, keepdim=True) / 2)",
        ("tests/test_similarity.py", CHAPTER_3),
    ),
    Mutant(
        "DPFP multiplies each feature by itself",
        FEATURES,
        "r * r.roll(j, -1)",
        "r * r.roll(0 * j, -1)",
        ("tests/test_similarity.py",),
    ),
    # the memory as an object
    Mutant(
        "a write is subtracted",
        MEMORY,
        "self._values = decay * self._values + self._phi(k).mT @ u",
        "self._values = decay * self._values - self._phi(k).mT @ u",
        ("tests/test_memory.py",),
    ),
    Mutant(
        "nothing fades",
        MEMORY,
        "torch.cat((decay * self._values, u))",
        "torch.cat((self._values, u))",
        ("tests/test_memory.py",),
    ),
    Mutant(
        "the delta rule reads before the decay",
        MEMORY,
        "x[i : i + 1] - decay[i] * self._recall",
        "x[i : i + 1] - self._recall",
        ("tests/test_memory.py",),
    ),
    Mutant(
        "forgetting takes out half",
        MEMORY,
        "u = -self._recall(rows) / norm",
        "u = -0.5 * self._recall(rows) / norm",
        ("tests/test_memory.py",),
    ),
    # capacity
    Mutant(
        "N disturb instead of N − 1",
        CLOSED_FORMS,
        "return math.inf if N == 1 else gain / (N - 1)",
        "return math.inf if N == 1 else gain / N",
        ("tests/test_capacity.py", CHAPTER_2),
    ),
    Mutant(
        "ReLU as loud as the polynomial",
        CLOSED_FORMS,
        "return 2 * snr_polynomial(N, d, power, keys)",
        "return snr_polynomial(N, d, power, keys)",
        ("tests/test_capacity.py", CHAPTER_2),
    ),
    Mutant(
        "a wrong temperature in the exponential's SNR",
        EXPONENTIAL_FORMS,
        "return 2 * d * (1 - tau) / tau**2",
        "return 2 * d * (1 - tau) / tau",
        ("tests/test_capacity.py", CHAPTER_2, CHAPTER_3),
    ),
    Mutant(
        "the sphere's exponential forgets its own signal",
        EXPONENTIAL_FORMS,
        "return log_0f1(d / 2, d / tau) - 2 * d / tau",
        "return log_0f1(d / 2, d / tau) - d / tau",
        ("tests/test_capacity.py", CHAPTER_2, CHAPTER_3),
    ),
    Mutant(
        "the series of the Bessel function has half the exponent",
        EXPONENTIAL_FORMS,
        "2 * n * math.log(beta)",
        "n * math.log(beta)",
        ("tests/test_capacity.py", CHAPTER_2, CHAPTER_8),
    ),
    Mutant(
        "freezing at twice the temperature",
        EXPONENTIAL_FORMS,
        "return math.sqrt(2 * d / math.log(N))",
        "return 2 * math.sqrt(2 * d / math.log(N))",
        ("tests/test_capacity.py", CHAPTER_3),
    ),
    Mutant(
        "the typical memory hears the loudest key alone",
        QUADRATURE,
        "torch.logaddexp(loudest, rest)",
        "loudest",
        ("tests/test_capacity.py", CHAPTER_3),
    ),
    Mutant(
        "the normaliser sees keys twice as sharp",
        DILUTION,
        "beta - log_0f1(d / 2, beta / 2)",
        "beta - log_0f1(d / 2, beta)",
        ("tests/test_capacity.py", CHAPTER_3),
    ),
    Mutant(
        "dilution is not an error",
        DILUTION,
        "return (1 - weight) ** 2 + weight**2 / snr",
        "return weight**2 / snr",
        ("tests/test_capacity.py", CHAPTER_3),
    ),
    Mutant(
        "the Hopfield energy without the state's own length",
        HOPFIELD,
        "return x.square().sum(-1) / 2 - ",
        "return x.square().sum(-1) - ",
        ("tests/test_hopfield.py", CHAPTER_3),
    ),
    Mutant(
        "the Hopfield step at temperature 1",
        HOPFIELD,
        "return (beta * x @ patterns.T).softmax(-1) @ patterns",
        "return (x @ patterns.T).softmax(-1) @ patterns",
        ("tests/test_hopfield.py", CHAPTER_3),
    ),
    Mutant(
        "the item's own score counts as noise",
        RETRIEVAL,
        "scores.diagonal_scatter(torch.zeros_like(c), offset=start) @ values",
        "scores @ values",
        ("tests/test_capacity.py", CHAPTER_2),
    ),
    Mutant(
        "the Welch bound without its 1",
        FRAMES,
        "return max(0.0, N / m - 1)",
        "return max(0.0, N / m)",
        ("tests/test_capacity.py", CHAPTER_2),
    ),
    # linear attention
    Mutant(
        "the definition subtracts what it should add",
        LINEAR_ATTENTION,
        "S = S + k[:, t, :, :, None] * v",
        "S = S - k[:, t, :, :, None] * v",
        (OPS_TEST,),
    ),
    Mutant(
        "the chunk form forgets what earlier chunks wrote",
        LINEAR_ATTENTION,
        "decay.over_chunk(i, S) + written[i]",
        "written[i]",
        (OPS_TEST, "tests/nn/test_linear_attention.py", CHAPTER_1, CHAPTER_8),
    ),
    Mutant(
        "the chunk form's mask is shifted by one",
        DECAY,
        "return (q @ k.mT).tril_()",
        "return (q @ k.mT).tril_(-1)",
        (OPS_TEST, CHAPTER_1),
    ),
    Mutant(
        "the chunk form drops the scale",
        LINEAR_ATTENTION,
        "states).mul_(scale)",
        "states)",
        (OPS_TEST, CHAPTER_1),
    ),
    Mutant(
        "the decay of a token acts on itself",
        DECAY,
        "dtype=torch.bool, device=g.device).tril(-1)",
        "dtype=torch.bool, device=g.device).tril(0)",
        (OPS_TEST, CHAPTER_1, "tests/ops/test_softmax_attention.py"),
    ),
    Mutant(
        "a NaN is not taken out of the product",
        LINEAR_ATTENTION,
        "A @ X if clean else masked_product(A, X)",
        "A @ X",
        (OPS_TEST,),
    ),
    Mutant(
        "the layer does not hand on its state",
        LAYER,
        "initial_state=state,",
        "initial_state=None,",
        ("tests/nn/test_linear_attention.py",),
    ),
    # kernels
    Mutant(
        "the kernel subtracts what it should add",
        KERNEL,
        "        S += dot(tl.trans(Kc), X)",
        "        S -= dot(tl.trans(Kc), X)",
        (KERNEL_TEST, "tests/kernels/test_linear_attention.py"),
    ),
    Mutant(
        "the kernel's output drops the scale",
        KERNEL,
        "tl.cumsum(lost.to(tl.float32), 0)) * scale)",
        "tl.cumsum(lost.to(tl.float32), 0)))",
        (KERNEL_TEST,),
    ),
    Mutant(
        "the kernel's gradient of the scores sees the future",
        KERNEL,
        "tl.where(lower, dA, 0.0) * scale",
        "dA * scale",
        (KERNEL_TEST,),
    ),
    Mutant(
        "the gradient of the decay forgets pairs across the chunk",
        KERNEL,
        " + tl.sum(S_dS, 0) * kept",
        "",
        (KERNEL_TEST,),
    ),
    Mutant(
        "chunks of packed sequences share a number",
        "kernels/assocmem_kernels/chunks.py",
        "first = borders[:-1] // C + torch.arange(len(borders) - 1, device=borders.device)",
        "first = borders[:-1] // C",
        (KERNEL_TEST, "tests/kernels/test_chunks.py"),
    ),
    Mutant(
        "the state between two pieces of a sequence is not moved by the second",
        PIECES,
        "S = moved(i, S) + R[:, i]",
        "S = S + R[:, i]",
        (PIECES_TEST,),
    ),
    Mutant(
        "gradients between pieces are passed on from the first to the last",
        PIECES,
        "reversed(range(self.n))",
        "range(self.n)",
        (PIECES_TEST,),
    ),
    Mutant(
        "all pieces of a sequence decay like the first",
        PIECES,
        "kept[:, i] * S",
        "kept[:, 0] * S",
        (PIECES_TEST,),
    ),
    Mutant(
        "sequences are cut where other scans take more than is won",
        PIECES,
        "n < 2 * scans",
        "n < 2",
        (PIECES_TEST,),
    ),
    Mutant(
        "a gradient is moved through a piece as the state is",
        DELTA_KERNEL,
        "P[:, i].mT @ dS",
        "P[:, i] @ dS",
        (f"{PIECES_TEST} -k delta",),
    ),
    # the delta rule
    Mutant(
        "a write adds to what is recalled instead of correcting it",
        DELTA_RULE,
        "(v[:, t] - recalled)",
        "(v[:, t] + recalled)",
        (DELTA_TEST, WORST_KEYS, CHAPTER_6),
    ),
    Mutant(
        "the chunk form corrects what other chunks wrote the wrong way",
        DELTA_RULE,
        "K_in[i], S, alpha=-1)",
        "K_in[i], S, alpha=1)",
        (DELTA_TEST, WORST_KEYS, CHAPTER_8),
    ),
    Mutant(
        "writes within a chunk do not see each other",
        DELTA_RULE,
        "return torch.linalg.solve_triangular(L,",
        "return torch.linalg.solve_triangular(0 * L,",
        (DELTA_TEST, WORST_KEYS, "tests/ops/test_properties.py", DELTA_LAYERS, CHAPTER_8),
    ),
    Mutant(
        "the triangular system is solved in float32",
        CHUNKS,
        'return x if x.device.type == "mps" else x.double()',
        "return x",
        (WORST_KEYS, CHAPTER_6),
    ),
    Mutant(
        "a NaN that is taken out of the triangular system does not come back",
        DELTA_RULE,
        "nan_to_num(0.0, 0.0, 0.0), D) + lost",
        "nan_to_num(0.0, 0.0, 0.0), D)",
        (DELTA_TEST,),
    ),
    Mutant(
        "the kernel rounds equal keys each in its own way",
        KERNEL_DECAY,
        "tl.where(kept > 0.5, 1.0, 0.0)",
        "tl.where(kept > 5.0, 1.0, 0.0)",
        ("tests/kernels/test_delta_rule.py -k round_away",),
    ),
    Mutant(
        "the kernel's decays a channel have exponentials of float32",
        CHANNEL_SCORES,
        "tl.exp(D.to(wide))",
        "tl.exp(D)",
        ("tests/kernels/test_delta_rule.py -k round_away",),
    ),
    Mutant(
        "the kernel's decays a head are exact to float32 only",
        DELTA_KERNEL,
        "head_decay(g, row, ok, lower, L.dtype)",
        "head_decay(g, row, ok, lower)",
        ("tests/kernels/test_delta_rule.py",),
    ),
    Mutant(
        "the kernel's own scores, which nearly cancel in the gradient of g, are float32",
        DELTA_KERNEL,
        "own = torch.float64 if exact else torch.float32",
        "own = torch.float32",
        ("tests/kernels/test_delta_rule.py -k round_away",),
    ),
    Mutant(
        "the kernel's gradients of the scores, which nearly cancel there too, are float32",
        DELTA_KERNEL,
        "        if GATE == 1:\n            dA = plus_product",
        "        if GATE == 3:\n            dA = plus_product",
        ("tests/kernels/test_delta_rule.py -k round_away",),
    ),
    Mutant(
        "the chunk form rounds equal keys each in its own way",
        DECAY,
        "k[i].mT, ρ * U)",
        "(ρ * k[i]).mT, U)",
        (WORST_KEYS,),
    ),
    Mutant(
        "the chunk form reads in float32 what the triangular system gives",
        DELTA_RULE,
        "A, U = wide(decay.scores(Q, K)), torch.stack(corrections)",
        "A, U = decay.scores(Q, K), torch.stack(corrections).to(S)",
        (WORST_KEYS,),
    ),
    Mutant(
        "the kernel corrects the wrong way",
        DELTA_KERNEL,
        "D = (X - read(k, since, γ_C, row, ok, col, K, S, GATE))",
        "D = (X + read(k, since, γ_C, row, ok, col, K, S, GATE))",
        (DELTA_KERNEL_TEST, CHAPTER_6),
    ),
    Mutant(
        "the kernel merges blocks of the inverse with the wrong sign",
        DELTA_KERNEL,
        "X -= dot(dot(X,",
        "X += dot(dot(X,",
        ("tests/kernels/test_delta_rule.py", f"{INTEGERS_TEST} -k delta"),
    ),
    Mutant(
        "the kernel's gradient of the keys' own scores has the wrong sign",
        DELTA_KERNEL,
        "tl.where(before, -dM, 0.0)",
        "tl.where(before, dM, 0.0)",
        (DELTA_KERNEL_TEST,),
    ),
    Mutant(
        "the kernel's gradient of beta forgets earlier writes of the chunk",
        DELTA_KERNEL,
        "        E -= dot(own.to(U.dtype), U)",
        "        E -= 0 * dot(own.to(U.dtype), U)",
        (DELTA_KERNEL_TEST,),
    ),
    Mutant(
        "the kernel lets a NaN reach earlier tokens",
        DELTA_KERNEL,
        "tl.where(lost == 0.0, D, 0.0).to(X.dtype)",
        "D.to(X.dtype)",
        (DELTA_KERNEL_TEST,),
    ),
    Mutant(
        "a correction that float16 does not hold reaches earlier tokens",
        DELTA_KERNEL,
        "            lost += beyond(U, X.dtype)\n",
        "",
        ("tests/kernels/test_delta_rule.py -k overflow",),
    ),
    Mutant(
        "what float16 does not hold counts as held",
        "kernels/assocmem_kernels/tiles.py",
        "X = X.to(dtype)",
        "X = X * 1.0",
        (
            "tests/kernels/test_delta_rule.py -k overflow",
            "tests/kernels/test_deltaformer.py -k overflow",
        ),
    ),
    Mutant(
        "borders are read without their stride",
        "kernels/assocmem_kernels/chunks.py",
        ".to(torch.int64).contiguous()",
        ".to(torch.int64)",
        ("tests/kernels/test_scans.py -k stride",),
    ),
    Mutant(
        "float16 gets gradients that it does not hold",
        KERNEL,
        "if dtype != torch.float16 or x.dtype == dtype or not x.numel():",
        "if dtype:",
        ("tests/kernels/test_linear_attention.py -k divisor",),
    ),
    Mutant(
        "a tangent passes for none",
        "src/assocmem/ops/backend.py",
        "unpack_dual(x).tangent is not None or _followed(x)",
        "_followed(x)",
        ("tests/ops/test_deltaformer.py -k derivatives",),
    ),
    Mutant(
        "what torch.func differentiates by passes for a plain tensor",
        "src/assocmem/ops/backend.py",
        "unpack_dual(x).tangent is not None or _followed(x)",
        "unpack_dual(x).tangent is not None",
        ("tests/ops/test_deltaformer.py -k derivatives",),
    ),
    Mutant(
        "one token is not corrected",
        "kernels/assocmem_kernels/step.py",
        "u = (u - tl.sum(k_t[:, None] * S, 0))",
        "u = (u - 0 * tl.sum(k_t[:, None] * S, 0))",
        (DELTA_KERNEL_TEST,),
    ),
    # DeltaFormer
    Mutant(
        "a token erases itself",
        ERASE,
        "device=w.device).triu()  # s ≥ t",
        "device=w.device).triu(1)  # s ≥ t",
        (DELTAFORMER_TEST, DELTA_FORMER_LAYER, CHAPTER_7),
    ),
    Mutant(
        "the relu kernel does not cut",
        ERASE,
        'return scores.relu() if erase == "relu" else scores',
        "return scores",
        (DELTAFORMER_TEST, DELTA_FORMER_LAYER),
    ),
    Mutant(
        "the softmax's gradient forgets its normaliser",
        ERASE,
        "dP.sub_(dP_P[..., None]).mul_(P)",
        "dP.mul_(P)",
        (DELTAFORMER_TEST,),
    ),
    Mutant(
        "strips of the chunk form do not see earlier strips",
        DELTAFORMER,
        "recalled = left @ u[:, : own.start]",
        "recalled = 0 * (left @ u[:, : own.start])",
        (DELTAFORMER_TEST, DELTA_FORMER_LAYER, CHAPTER_7),
    ),
    Mutant(
        "the gradient of a strip does not reach earlier strips",
        DELTAFORMER,
        "baddbmm_(left.mT, B, alpha=-1)",
        "baddbmm_(left.mT, B, alpha=0)",
        (DELTAFORMER_TEST,),
    ),
    Mutant(
        "the gradient of beta is that of recalling the value",
        DELTAFORMER,
        "-(dv * y).sum(-1), dpast.clone()",
        "(dv * y).sum(-1), dpast.clone()",
        (DELTAFORMER_TEST,),
    ),
    Mutant(
        "a NaN is not taken out of the strip's system",
        DELTAFORMER,
        "        if clean:",
        "        if True:",
        (DELTAFORMER_TEST,),
    ),
    Mutant(
        "one token does not read what it wrote",
        DELTAFORMER,
        "return read + p[..., -1].mT[..., None] * u, u",
        "return read, u",
        (DELTAFORMER_TEST, "tests/nn/test_mixers.py"),
    ),
    Mutant(
        "a chunk's recall is left out of its corrections",
        DELTAFORMER_KERNEL,
        "D = X - β[:, None] * Y + ",
        "D = X + ",
        (f"{INTEGERS_TEST} -k deltaformer",),
    ),
    Mutant(
        "the first call of all counts on a CPU",
        "benchmarks/cpu.py",
        "for name, (_, *warm) in",
        "for name, warm in",
        ("tests/test_cpu_benchmark.py",),
    ),
    Mutant(
        "rows are measured after the time is up",
        "benchmarks/gpu.py",
        "if start >= deadline:",
        "if start < 0:",
        (GPU_TEST,),
    ),
    Mutant(
        "the first heads of the first sequence are compared",
        "benchmarks/gpu_cases.py",
        "return x[-1:, :, -2:]",
        "return x[:1, :, :2]",
        (GPU_TEST,),
    ),
    Mutant(
        "a fast wrong kernel wins",
        "benchmarks/gpu_report.py",
        'if "forward" in row and not wrong(row)',
        'if "forward" in row',
        ("tests/test_gpu_report.py",),
    ),
    Mutant(
        "the kernel's normaliser counts finished blocks only",
        DELTAFORMER_KERNEL,
        "past + (start + C if ERASE == 0 else first)",
        "past + first",
        (DELTAFORMER_KERNEL_TEST,),
    ),
    Mutant(
        "a chunk does not recall the chunks before it in its block",
        DELTAFORMER_KERNEL,
        "for j in range(0, c):",
        "for j in range(c, c):",
        (DELTAFORMER_KERNEL_TEST,),
    ),
    Mutant(
        "a NaN is not taken out of a chunk's product",
        DELTAFORMER_KERNEL,
        "tl.where(lost == 0.0, D, 0.0).to(X.dtype)",
        "D.to(X.dtype)",
        (DELTAFORMER_KERNEL_TEST,),
    ),
    Mutant(
        "a continued sequence takes the rows of another batch element",
        DELTAFORMER_KERNEL,
        "to_k = (b + 1) * past * H",
        "to_k = past * H",
        (DELTAFORMER_KERNEL_TEST,),
    ),
    Mutant(
        "a token erases itself in the kernel",
        ERASE_KERNEL,
        "P = tl.where(r[:, None] > r[None, :], P, 0.0)",
        "P = tl.where(r[:, None] >= r[None, :], P, 0.0)",
        (DELTAFORMER_KERNEL_TEST,),
    ),
    Mutant(
        "the kernel of the softmax's gradient forgets the normaliser",
        ERASE_KERNEL,
        "weights(scores, L, scale, ERASE) * (dP + delta)",
        "weights(scores, L, scale, ERASE) * dP",
        (DELTAFORMER_KERNEL_TEST,),
    ),
    Mutant(
        "the kernel's gradient does not reach earlier blocks",
        DELTAFORMER_BACKWARD,
        "load(G, row_s, ok_s, col_v, V) - tl.trans(X)",
        "load(G, row_s, ok_s, col_v, V) - 0 * tl.trans(X)",
        (DELTAFORMER_KERNEL_TEST,),
    ),
    Mutant(
        "keys of the linear kernel are not normalised",
        "src/assocmem/nn/delta_former.py",
        "w, k, scale = l2_normalize(w), l2_normalize(k), 1.0",
        "w, k, scale = w, k, 1.0",
        (DELTA_FORMER_LAYER,),
    ),
    # softmax attention and the layers
    Mutant(
        "softmax attention with a decay sees the next token",
        SOFTMAX_ATTENTION,
        "device=g.device).triu(1)  # s > t",
        "device=g.device).triu(2)  # s > t",
        ("tests/ops/test_softmax_attention.py", "tests/nn/test_softmax_attention.py"),
    ),
    Mutant(
        "a step size stays below 1 where negative eigenvalues are allowed",
        "src/assocmem/nn/delta_net.py",
        "return 2 * beta if",
        "return beta if",
        (DELTA_LAYERS, CHAPTER_9),
    ),
    Mutant(
        "keys are not normalised",
        "src/assocmem/nn/delta_net.py",
        "            l2_normalize(k),",
        "            k,",
        (DELTA_LAYERS,),
    ),
    Mutant(
        "a decay above 1",
        "src/assocmem/nn/softplus_decay.py",
        "return -self.A_log.exp()",
        "return self.A_log.exp()",
        (DELTA_LAYERS,),
    ),
    Mutant(
        "the short convolution gives the weights of earlier tokens to the next",
        "src/assocmem/nn/short_convolution.py",
        "x[:, past - i : past - i + T]",
        "x[:, past - i + 1 : past - i + 1 + T]",
        ("tests/nn/test_short_convolution.py",),
    ),
    # feed-forward memories, tasks, training
    Mutant(
        "ReLU² is not squared",
        FEED_FORWARD,
        "return F.relu(z).square()",
        "return F.relu(z)",
        (FEED_FORWARD_TEST, CHAPTER_4),
    ),
    Mutant(
        "the softmax is over the tokens instead of the units",
        FEED_FORWARD,
        "return z.softmax(-1)",
        "return z.softmax(0)",
        (FEED_FORWARD_TEST, CHAPTER_4),
    ),
    Mutant(
        "a written fact is added to the old answer",
        FEED_FORWARD,
        "torch.outer(y - self(x), u)",
        "torch.outer(y, u)",
        (FEED_FORWARD_TEST, CHAPTER_4, CHAPTER_8),
    ),
    Mutant(
        "a sparing edit moves the others most",
        FEED_FORWARD,
        "u = torch.linalg.solve(C, a)",
        "u = C @ a",
        (FEED_FORWARD_TEST, CHAPTER_4, CHAPTER_8),
    ),
    Mutant(
        "experts answer without their gates",
        "src/assocmem/nn/mixture_of_experts.py",
        "answer = gates[token, place, None] * expert(tokens[token])",
        "answer = expert(tokens[token])",
        ("tests/nn/test_mixture_of_experts.py", CHAPTER_4),
    ),
    Mutant(
        "product keys read the transposed value",
        "src/assocmem/nn/product_key_memory.py",
        "i * self.n_keys + j",
        "j * self.n_keys + i",
        ("tests/nn/test_product_key_memory.py", CHAPTER_4),
    ),
    Mutant(
        "the value that was written first is the answer",
        "src/assocmem/tasks/recall.py",
        "torch.arange(1, n_writes + 1)",
        "torch.arange(n_writes, 0, -1)",
        ("tests/test_tasks.py",),
    ),
    Mutant(
        "noise has the keys of what is asked for",
        "src/assocmem/tasks/recall.py",
        "marked = n_keys + n_values + torch",
        "marked = torch",
        ("tests/test_tasks.py",),
    ),
    Mutant(
        "a copy is shown a symbol ahead",
        "src/assocmem/tasks/copying.py",
        "now, symbols[:, :-1]",
        "now, symbols[:, 1:]",
        ("tests/test_tasks.py",),
    ),
    Mutant(
        "the rates of retention begin at 1/64",
        "src/assocmem/nn/retention.py",
        "torch.arange(5.0, 5 + self.n_heads",
        "torch.arange(6.0, 6 + self.n_heads",
        ("tests/nn/test_gated_linear_attention.py",),
    ),
    Mutant(
        "DeltaProduct reads after a token's first pair",
        "src/assocmem/nn/delta_product.py",
        "o = o[:, n - 1 :: n]",
        "o = o[:, ::n]",
        ("tests/nn/test_delta_layers.py",),
    ),
    Mutant(
        "a run is known by its name alone",
        "benchmarks/choosing.py",
        'return run not in self.rows or self.rows[run]["code"] != self.fingerprint(run)',
        "return run not in self.rows",
        ("tests/book/test_choosing.py",),
    ),
    Mutant(
        "models are tested on what they have learned",
        "src/assocmem/book/choosing.py",
        "window = self.held_out[ends + torch.arange(-length, 1)]",
        "window = self.learned[ends + torch.arange(-length, 1)]",
        ("tests/book/test_choosing.py",),
    ),
    Mutant(
        "a state that does not grow is read and not written",
        "src/assocmem/book/choosing.py",
        "held + (growth or held)",
        "held + growth",
        ("tests/book/test_choosing.py", CHAPTER_9),
    ),
    Mutant(
        "the state of a word problem multiplies from the other side",
        "src/assocmem/tasks/states.py",
        "state = moves[state, token]",
        "state = moves[token, state]",
        ("tests/test_tasks.py", "tests/test_constructions.py", CHAPTER_7),
    ),
    Mutant(
        "a swap reflects along the wrong difference",
        "src/assocmem/constructions/swaps.py",
        "k = (places[pairs[..., 1]] - places[pairs[..., 0]])",
        "k = (places[pairs[..., 1]] + places[pairs[..., 0]])",
        ("tests/test_constructions.py", CHAPTER_7, CHAPTER_8),
    ),
    Mutant(
        "the bases of the code are all the same",
        "src/assocmem/constructions/codes.py",
        "traces = [_trace(_product(a, xy, s), s)",
        "traces = [_trace(xy, s)",
        ("tests/test_constructions.py", CHAPTER_7),
    ),
    Mutant(
        "a reflection counts as a rotation",
        "src/assocmem/constructions/dihedral.py",
        "step = (1 - tokens) *",
        "step = 1 *",
        ("tests/test_constructions.py", CHAPTER_7),
    ),
    Mutant(
        "the parity's eigenvalue at a one is 0",
        "src/assocmem/constructions/parity.py",
        "beta = 2.0 * bits",
        "beta = 1.0 * bits",
        ("tests/test_constructions.py", CHAPTER_7, CHAPTER_8),
    ),
    Mutant(
        "a path's length sets its sign, whatever β",
        "src/assocmem/constructions/reachability.py",
        "solve_triangular(beta * A, v",
        "solve_triangular(abs(beta) * A, v",
        ("tests/test_constructions.py", CHAPTER_7),
    ),
    Mutant(
        "the gradient passes a rank as its state does",
        "src/assocmem/distributed/scan.py",
        "D = P_r.mT @ D + of_before",
        "D = P_r @ D + of_before",
        ("tests/distributed/test_scan.py",),
    ),
    Mutant(
        "a short convolution sees the last tokens of all ranks",
        "src/assocmem/nn/short_convolution.py",
        "seen[:, piece.start : piece.start + past]",
        "seen[:, seen.shape[1] - past :]",
        ("tests/distributed/test_layers.py",),
    ),
    Mutant(
        "backward a state is counted once",
        "src/assocmem/distributed/cost.py",
        "states * 2 * d_value",
        "states * d_value",
        ("tests/distributed/test_cost.py", CHAPTER_9),
    ),
    Mutant(
        "a rank without tokens does not go backward",
        "src/assocmem/distributed/scan.py",
        "        S = S + nothing_of(tokens)\n",
        "        pass\n",
        ("tests/distributed/test_layers.py",),
    ),
    Mutant(
        "the gradient of a token counts on its own rank only",
        "src/assocmem/distributed/piece.py",
        "    dist.all_reduce(total, group=piece.group)\n",
        "",
        ("tests/distributed/test_layers.py",),
    ),
    Mutant(
        "a fact is answered by the least similar answer",
        "src/assocmem/tasks/facts.py",
        "self.answers.mT).argmax(-1)",
        "self.answers.mT).argmin(-1)",
        ("tests/test_tasks.py", CHAPTER_4),
    ),
    Mutant(
        "the learning rate does not fall",
        "src/assocmem/train.py",
        "        schedule.step()\n",
        "",
        ("tests/test_train.py",),
    ),
    Mutant(
        "units are counted without the square",
        "src/assocmem/book/fact_learning.py",
        "return c.sum(dim).square() /",
        "return c.sum(dim) /",
        ("tests/book/test_fact_learning.py", CHAPTER_4),
    ),
    # update rules
    Mutant(
        "a rule that adds does not fade",
        ADDING,
        "return channels(write.decay) * S + write.beta",
        "return S + write.beta",
        (RULES_TEST, CHAPTER_5),
    ),
    Mutant(
        "a correction adds what is recalled",
        CORRECTING,
        "k.mT @ (v - k @ S)",
        "k.mT @ (v + k @ S)",
        (RULES_TEST, CHAPTER_5),
    ),
    Mutant(
        "Gated DeltaNet corrects before it fades",
        CORRECTING,
        "return correct(fade(S, write), write)",
        "return fade(correct(S, write), write)",
        (RULES_TEST, CHAPTER_5),
    ),
    Mutant(
        "the implicit step forgets the key's length",
        SOLVING,
        "return beta / (1 + beta * k.square().sum(-1))",
        "return beta / (1 + beta)",
        (RULES_TEST, CHAPTER_5),
    ),
    Mutant(
        "Titans' step is that of a halved loss",
        SOLVING,
        "M = write.momentum * M + 2 * (correct(S, write) - S)",
        "M = write.momentum * M + (correct(S, write) - S)",
        (RULES_TEST, CHAPTER_5),
    ),
    Mutant(
        "Mesa does not remember which keys it has seen",
        SOLVING,
        "write.decay * state.H + torch.outer(write.k, write.k)",
        "write.decay * state.H",
        (RULES_TEST, CHAPTER_5),
    ),
    Mutant(
        "the newest pair counts twice in softmax attention",
        ATTENTION_RULES,
        "return score / Z",
        "return 2 * score / (Z + score)",
        (RULES_TEST, CHAPTER_5),
    ),
    Mutant(
        "DeltaProduct reads after its first correction",
        RULE_OPERATORS,
        "return o[:, n - 1 :: n], S",
        "return o[:, ::n], S",
        (RULES_TEST,),
    ),
    Mutant(
        "the Mesa operator without its ridge",
        RULE_OPERATORS,
        "torch.linalg.solve(H + Lambda, q_t[..., None])",
        "torch.linalg.solve(H + 1e-6 * Lambda, q_t[..., None])",
        (RULES_TEST,),
    ),
    # examples, and what notebooks may do
    Mutant(
        "a run that goes on draws the batches of its start again",
        "examples/hybrid/train_hybrid.py",
        'generator.set_state(state["generator"])',
        "pass",
        ("examples/hybrid",),
    ),
    Mutant(
        "a notebook reaches the network",
        "tests/book/offline/sitecustomize.py",
        "not in HERE:",
        "not in (*HERE, host):",
        ("tests/book/test_nbval_policy.py",),
    ),
    # what is refused before any work
    Mutant(
        "a temperature may be 0",
        "src/assocmem/arguments.py",
        "if not (0 < value < math.inf):",
        "if not (0 <= value < math.inf):",
        ("tests/test_capacity.py -k named",),
    ),
    Mutant(
        "no pairs at all are pairs",
        "src/assocmem/capacity/inputs.py",
        "if keys.shape[0] == 0:",
        "if keys.shape[0] < 0:",
        ("tests/test_capacity.py -k pairs",),
    ),
    Mutant(
        "a place may be swapped with itself",
        "src/assocmem/constructions/arguments.py",
        "if bool((pairs[..., 0] == pairs[..., 1]).any()):",
        "if bool((pairs[..., 0] == pairs[..., 1]).all()):",
        ("tests/test_constructions.py -k named",),
    ),
    Mutant(
        "borders of packed sequences may fall",
        "src/assocmem/ops/inputs.py",
        " or borders != sorted(borders):",
        ":",
        ("tests/ops/test_scans.py -k borders",),
    ),
    # parts of operators and of layers
    Mutant(
        "a T4 takes Triton",
        "src/assocmem/ops/backend.py",
        "if major < 8:",
        "if major < 7:",
        ("tests/ops/test_linear_attention.py -k auto",),
    ),
    Mutant(
        "the library imports Triton at once",
        "src/assocmem/ops/backend.py",
        "import importlib.util\n",
        "import importlib.util\nimport triton\n",
        ("tests/test_dependencies.py -k imports",),
    ),
    Mutant(
        "the normaliser is that of another scale",
        LINEAR_ATTENTION,
        "x = torch.cat((v, torch.ones_like(v[..., :1])), -1)",
        "x = torch.cat((v, 2 * torch.ones_like(v[..., :1])), -1)",
        ("tests/ops/test_linear_attention.py -k normalize",),
    ),
    Mutant(
        "every packed sequence starts from the first one's state",
        "src/assocmem/ops/packed.py",
        "S[n : n + 1]",
        "S[:1]",
        ("tests/ops/test_scans.py -k packed",),
    ),
    Mutant(
        "a block adds the feed-forward of what is not normalised",
        "src/assocmem/nn/block.py",
        "self.feed_forward(self.feed_forward_norm(h))",
        "self.feed_forward(h)",
        ("tests/nn/test_sequence_model.py",),
    ),
    Mutant(
        "the model's head reads what is not normalised",
        "src/assocmem/nn/sequence_model.py",
        "self.head(self.norm(x))",
        "self.head(x)",
        ("tests/nn/test_sequence_model.py",),
    ),
    Mutant(
        "the output gate of Gated DeltaNet is a sigmoid",
        "src/assocmem/nn/gated_delta_net.py",
        "F.silu(",
        "F.sigmoid(",
        (DELTA_LAYERS,),
    ),
    Mutant(
        "the output gate of Kimi Delta Attention is linear",
        "src/assocmem/nn/kimi_delta_attention.py",
        "self.heads(self.gate_proj(x)).sigmoid()",
        "self.heads(self.gate_proj(x))",
        (DELTA_LAYERS,),
    ),
    Mutant(
        "a map of low rank has no bias",
        "src/assocmem/nn/low_rank.py",
        "bias=bias)",
        "bias=False)",
        (DELTA_LAYERS, "tests/nn/test_gated_linear_attention.py"),
    ),
    Mutant(
        "gated linear attention starts out short",
        "src/assocmem/nn/gated_linear_attention.py",
        "(x))) / TEMPERATURE",
        "(x)))",
        ("tests/nn/test_gated_linear_attention.py",),
    ),
    Mutant(
        "a head takes every H-th channel",
        "src/assocmem/nn/mixer.py",
        "x.unflatten(-1, (self.n_heads, -1))",
        "x.unflatten(-1, (-1, self.n_heads)).mT",
        ("tests/nn/test_linear_attention.py", DELTA_LAYERS),
    ),
    Mutant(
        "a pair of channels is reflected instead of turned",
        "src/assocmem/nn/rotary.py",
        "a * angle.sin() + b * angle.cos()",
        "a * angle.sin() - b * angle.cos()",
        ("tests/nn/test_softmax_attention.py",),
    ),
    Mutant(
        "every piece of a sequence begins at position 0",
        "src/assocmem/nn/softmax_attention.py",
        "start = piece.start + (0 if state is None else state.k.shape[1])",
        "start = piece.start",
        ("tests/nn/test_mixers.py -k pieces",),
    ),
    Mutant(
        "only the largest part of a state takes memory",
        "src/assocmem/nn/streaming.py",
        "sum(map(state_bytes, state))",
        "max(map(state_bytes, state))",
        ("tests/nn/test_mixers.py",),
    ),
    Mutant(
        "a state of every token need not fit the layer",
        "src/assocmem/nn/mixer.py",
        "if not alike(old, x):",
        "if False:",
        ("tests/nn/test_mixers.py -k state", DELTA_FORMER_LAYER),
    ),
    Mutant(
        "without tokens the caller's state is handed back",
        "src/assocmem/ops/packed.py",
        "final.clone() if o.shape[1] == 0 else final",
        "final",
        ("tests/ops/test_scans.py -k nothing",),
    ),
    Mutant(
        "distances of the Gaussian kernel function are taken in half precision",
        EXPONENTIALS,
        "torch.promote_types(dtype, torch.float32)",
        "dtype",
        ("tests/test_similarity.py -k rbf",),
    ),
    # parts of kernels
    Mutant(
        "with a decay a channel, a token does not see itself",
        CHANNEL_SCORES,
        "(r[None, :] == s) & (r >= s)[:, None]",
        "(r[None, :] == s) & (r > s)[:, None]",
        (KERNEL_TEST,),
    ),
    Mutant(
        "a decay of a channel gets the gradient of the token's own score",
        CHANNEL_SCORES,
        "later = (r > s)[:, None]",
        "later = (r >= s)[:, None]",
        (KERNEL_TEST,),
    ),
    Mutant(
        "differences of summed decays lose the digits that the sums share",
        KERNEL_DECAY,
        " + (low[:, None] - low[None, :])",
        "",
        (KERNEL_TEST,),
    ),
    Mutant(
        "a decay until the end of the chunk is one since its start",
        KERNEL_DECAY,
        "tl.cumsum(x, 0, reverse=True)",
        "tl.cumsum(x, 0)",
        (KERNEL_TEST,),
    ),
    Mutant(
        "a decay a head since the chunk's start lacks the token's own",
        KERNEL_DECAY,
        "tl.exp(G.to(dtype))",
        "tl.exp((G - x).to(dtype))",
        (DELTA_KERNEL_TEST, KERNEL_TEST),
    ),
    Mutant(
        "what is near 1 in the decays to the chunk's end is counted twice",
        KERNEL_DECAY,
        "        ρ -= near\n",
        "",
        (DELTA_KERNEL_TEST,),
    ),
    Mutant(
        "scores are split into two factors where one of them overflows",
        CHANNEL_SCORES,
        "STRONG = tl.constexpr(40.0)",
        "STRONG = tl.constexpr(400.0)",
        ("tests/kernels/test_scans.py -k factors", "tests/kernels/test_channel_scores.py"),
    ),
    Mutant(
        "a NaN among the decays passes for a small number",
        CHANNEL_SCORES,
        "tl.where(tl.abs(G) < limit, 0, 1)",
        "tl.where(tl.abs(G) >= limit, 1, 0)",
        ("tests/kernels/test_scans.py -k factors",),
    ),
    Mutant(
        "the gradient of a decay lacks the pairs that it is not between",
        CHANNEL_SCORES,
        "tl.cumsum(Q * dQ - Kc * dK, 0, reverse=True)",
        "tl.cumsum(Q * dQ, 0, reverse=True)",
        ("tests/kernels/test_scans.py -k factors",),
    ),
    Mutant(
        "a NaN is looked for by taking a number from itself",
        "kernels/assocmem_kernels/tiles.py",
        "return X * 0.0",
        "return X - X",
        ("tests/kernels/test_resources.py -k itself", "tests/kernels/test_ptx.py -k float32"),
    ),
    Mutant(
        "kernels are launched on the current device, wherever their tensors are",
        "kernels/assocmem_kernels/launch.py",
        "with torch.cuda.device_of(x):",
        "if True:",
        ("tests/kernels/test_scans.py -k launched",),
    ),
    Mutant(
        "kernels of one scan differ in the length of a chunk",
        "kernels/assocmem_kernels/launch.py",
        '"triangles_kernel": ((32, 16, 2, 1),',
        '"triangles_kernel": ((16, 16, 2, 1),',
        ("tests/kernels/test_resources.py -k share",),
    ),
    Mutant(
        "a tile reads on beyond the last column",
        "kernels/assocmem_kernels/tiles.py",
        "return tl.load(p, mask=ok[:, None] & (col < D)[None, :], other=0.0)",
        "return tl.load(p, mask=ok[:, None], other=0.0)",
        (KERNEL_TEST,),
    ),
    Mutant(
        "places in the states are counted in 32 bits",
        "kernels/assocmem_kernels/step.py",
        "tl.program_id(0).to(tl.int64)",
        "tl.program_id(0)",
        ("tests/kernels/test_resources.py -k places",),
    ),
    Mutant(
        "borders of packed sequences are counted in 32 bits",
        "kernels/assocmem_kernels/chunks.py",
        "return cu_seqlens.to(torch.int64)",
        "return cu_seqlens",
        ("tests/kernels/test_chunks.py",),
    ),
    # parts of capacity, rules and tasks
    Mutant(
        "the longest value is the nearest",
        "src/assocmem/capacity/decoding.py",
        "candidates = unit(values)",
        "candidates = values",
        ("tests/test_capacity.py -k decoding",),
    ),
    Mutant(
        "keys in a cone are not of length 1",
        "src/assocmem/capacity/vectors.py",
        "(1 - cosine) ** 0.5 * w",
        "(1 - cosine) * w",
        ("tests/test_capacity.py -k cone",),
    ),
    Mutant(
        "every kernel function called so is another",
        "src/assocmem/similarity/named.py",
        '"relu": relu,',
        '"relu": SiLU(),',
        ("tests/test_similarity.py",),
    ),
    Mutant(
        "every recurrence follows its objective",
        "src/assocmem/rules/rule.py",
        "difference = new - S",
        "difference = new - new",
        (RULES_TEST,),
    ),
    Mutant(
        "the table has steps in every column",
        "src/assocmem/rules/table.py",
        "getattr(rule.tex, column)",
        "rule.tex.step",
        (RULES_TEST,),
    ),
    Mutant(
        "a node that anything leads to is reached",
        "src/assocmem/tasks/graphs.py",
        "(adjacency[:, t] & seen).any(-1)",
        "adjacency[:, t].any(-1)",
        ("tests/test_tasks.py", "tests/test_constructions.py", CHAPTER_7),
    ),
    Mutant(
        "an exchange moves nothing",
        "src/assocmem/constructions/word_problem.py",
        "a.gather(-1, pair.flip(-1))",
        "a.gather(-1, pair)",
        ("tests/test_constructions.py", CHAPTER_7),
    ),
    Mutant(
        "a long run is compared with itself",
        "benchmarks/long_run.py",
        "{name: y.double() for name, y in x.items()}",
        "{name: y for name, y in x.items()}",
        ("tests/test_long_run.py",),
    ),
    # what the book is made with
    Mutant(
        "figures have no style",
        "src/assocmem/book/figures.py",
        "    mpl.rcParams.update(STYLE)\n",
        "",
        ("tests/book/test_figures.py -k style",),
    ),
    Mutant(
        "every figure that moves starts with its first frame",
        "src/assocmem/book/interactive.py",
        '"start": start,',
        '"start": 0,',
        ("tests/book/test_interactive.py -k places",),
    ),
    Mutant(
        "times of another shape are found",
        "src/assocmem/book/recorded.py",
        "if what in row and wanted.items() <= row.items()",
        "if what in row",
        ("tests/book/test_recorded.py",),
    ),
    Mutant(
        "code of two files is shown as that of one",
        "src/assocmem/book/source.py",
        "if len(modules) == 1 else None",
        "if modules else None",
        ("tests/book/test_source.py",),
    ),
    Mutant(
        "a table's rows have no head",
        "src/assocmem/book/table.py",
        '<th scope="row">{escape(str(first))}</th>',
        "<td>{escape(str(first))}</td>",
        ("tests/book/test_table.py",),
    ),
    Mutant(
        "the feed-forward layer does not see what attention reads",
        "src/assocmem/book/two_memories.py",
        "self.memory(self.memory_norm(h))",
        "self.memory(self.memory_norm(x))",
        ("tests/book/test_two_memories.py -k logits",),
    ),
    Mutant(
        "two keys may have one name",
        "src/assocmem/book/workbench.py",
        "if keys.setdefault(pair.key, pair.k) != pair.k:",
        "if keys.setdefault(pair.key, pair.k) is None:",
        ("tests/book/test_workbench.py -k named",),
    ),
    # checks of exercises
    Mutant(
        "a wrong answer to an exercise passes",
        "src/assocmem/book/check/exercise.py",
        "        return False\n\n    return check",
        "        return True\n\n    return check",
        ("tests/book/test_checks.py -k ch2_ex1",),
    ),
    Mutant(
        "every chunk may have to be full",
        "src/assocmem/book/check/ch1.py",
        "if not right(g, 16):",
        "if not right(g, 25):",
        ("tests/book/test_checks.py -k ch1_ex6",),
    ),
    Mutant(
        "any SNR of two pairs is right",
        "src/assocmem/book/check/ch2.py",
        "if not close(got, 1 / cosine**2):",
        "if got < 0:",
        ("tests/book/test_checks.py -k ch2_ex1",),
    ),
    Mutant(
        "any sharpness is right",
        "src/assocmem/book/check/ch3.py",
        "if not math.isclose(weight, p, rel_tol=1e-9):",
        "if weight < 0:",
        ("tests/book/test_checks.py -k ch3_ex1",),
    ),
    Mutant(
        "a change of the values may be larger than it has to be",
        "src/assocmem/book/check/ch4.py",
        "if not same(new, V + torch.outer(y - V @ a, a) / (a @ a)):",
        "if new is V:",
        ("tests/book/test_checks.py -k ch4_ex1",),
    ),
    Mutant(
        "any β is stable",
        "src/assocmem/book/check/ch5.py",
        "if not close(got, (1 + 1 / gamma) / squared):",
        "if got < 0:",
        ("tests/book/test_checks.py -k ch5_ex2",),
    ),
    Mutant(
        "a scan has to be right in its first chunk only",
        "src/assocmem/book/check/ch6.py",
        "for T in (C, 3 * C - 3):\n        case = Case.draw(T, 2, decays=False)",
        "for T in (C,):\n        case = Case.draw(T, 2, decays=False)",
        ("tests/book/test_checks.py -k ch6_ex5",),
    ),
    Mutant(
        "any β swaps",
        "src/assocmem/book/check/ch7.py",
        'raise Wrong("the key is right; which β makes the eigenvalue along it −1?")',
        "continue",
        ("tests/book/test_checks.py -k ch7_ex1",),
    ),
    Mutant(
        "any β has the floor",
        "src/assocmem/book/check/ch8.py",
        "if not close(got, 2 * e / (e + power)):",
        "if got < 0:",
        ("tests/book/test_checks.py -k ch8_ex1",),
    ),
    Mutant(
        "a design needs no eigenvalue below 0",
        "src/assocmem/book/check/ch9.py",
        'if not any(options.get("allow_negative_eigenvalues") for _, options in design):',
        "if not design:",
        ("tests/book/test_checks.py -k ch9_ex6",),
    ),
    # the book's own checkers: each has to see a small chapter that is broken on purpose
    Mutant(
        "an example in a docstring may say anything",
        "tests/test_examples.py",
        "doctest.DocTestRunner(verbose=False).run(test, out=said.append)",
        "pass",
        ("tests/test_examples.py -k wrong",),
    ),
    Mutant(
        "a claim that is never checked passes",
        "tests/book/test_claims.py",
        'problems += [f"{name} is stated and never checked" for name in said - checked]',
        "",
        ("tests/book/test_claims.py",),
    ),
    Mutant(
        "a figure may say nothing in words",
        "tests/book/test_figures.py",
        "if len(alt.split()) < WORDS:",
        "if len(alt.split()) < 0:",
        ("tests/book/test_figures.py",),
    ),
    Mutant(
        "a solution may lie open",
        "tests/book/test_exercises.py",
        'elif "dropdown" not in solution.options.get("class", ""):',
        "elif not solution:",
        ("tests/book/test_exercises.py -k noticed",),
    ),
    Mutant(
        "a notebook may hold a path of somebody's machine",
        "tests/book/test_notebooks.py",
        'problems.append("a path of somebody\'s machine")',
        "pass",
        ("tests/book/test_notebooks.py",),
    ),
    Mutant(
        "code may name an equation that is nowhere",
        "tests/book/test_equations.py",
        "if label not in known else []",
        "if not label else []",
        ("tests/book/test_equations.py",),
    ),
    Mutant(
        "a symbol may have a size that no one knows",
        "tests/book/test_notation.py",
        'problems += [f"{symbol}: unknown size {size}" for size in sorted(unknown)]',
        "pass",
        ("tests/book/test_notation.py",),
    ),
    Mutant(
        "another version is cited",
        "CITATION.cff",
        "\nversion: ",
        "\nversion: 9",
        ("tests/book/test_citation.py",),
    ),
    Mutant(
        "the site is another one",
        "_config.yml",
        "ogp_site_url: https://",
        "ogp_site_url: https://www.",
        ("tests/book/test_address.py",),
    ),
    Mutant(
        "a page without members has them all",
        "tests/book/test_api.py",
        'elif ":members:" in options:',
        "else:",
        ("tests/book/test_api.py",),
    ),
    Mutant(
        "the guide names a file that is gone",
        "CONTRIBUTING.md",
        "`tests/mutants.py` keeps",
        "`tests/gone.py` keeps",
        ("tests/book/test_contributing.py",),
    ),
    Mutant(
        "any two outputs of a notebook are alike",
        "tests/book/nbval_policy.py",
        "return isinstance(other, str) and alike(str(self), str(other))",
        "return isinstance(other, str)",
        ("tests/book/test_nbval_policy.py",),
    ),
    Mutant(
        "numbers of a notebook may be far apart",
        "tests/book/nbval_policy.py",
        "rel_tol=RTOL, abs_tol=ATOL",
        "rel_tol=RTOL, abs_tol=1e3 * ATOL",
        ("tests/book/test_nbval_policy.py -k difference",),
    ),
    Mutant(
        "a role that is not known is left as it is",
        "colab/markdown.py",
        'raise ValueError(f"role {{{name}}} is not among those known: {sorted(ROLES)}")',
        "return content",
        ("tests/colab/test_generate.py",),
    ),
    Mutant(
        "outputs of a chapter are not compared on Colab",
        "tests/colab/elsewhere.py",
        "ours.outputs, ours.execution_count = theirs.outputs, theirs.execution_count",
        "ours.execution_count = theirs.execution_count",
        ("tests/colab/test_elsewhere.py -k edition",),
    ),
    # claims
    Mutant(
        "a claim that does not hold passes",
        CLAIMS,
        "if not holds:",
        "if False:",
        ("tests/book/test_claim_function.py",),
    ),
    Mutant(
        "a tolerance of any width",
        CLAIMS,
        "abs(x - target) <= width",
        "abs(x - target) >= 0",
        ("tests/book/test_claim_function.py",),
    ),
    Mutant(
        "NaN holds",
        CLAIMS,
        "holds, parts = math.isfinite(x), []",
        "holds, parts = True, []",
        ("tests/book/test_claim_function.py",),
    ),
)
