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
        "torch.stack(states)).mul_(scale)",
        "torch.stack(states))",
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
        (KERNEL_TEST,),
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
        (KERNEL_TEST,),
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
        (DELTA_TEST, WORST_KEYS, DELTA_LAYERS, CHAPTER_8),
    ),
    Mutant(
        "the triangular system is solved in float32",
        CHUNKS,
        'return x if x.device.type == "mps" else x.double()',
        "return x",
        (WORST_KEYS, CHAPTER_6),
    ),
    Mutant(
        "a NaN is not taken out of the triangular system",
        DELTA_RULE,
        "if clean else solve_around_poison(L[i], D)",
        "if True else solve_around_poison(L[i], D)",
        (DELTA_TEST,),
    ),
    Mutant(
        "the kernel rounds equal keys each in its own way",
        DELTA_KERNEL,
        "near = tl.where(tl.min(ρ, 0) > 0.5, 1.0, 0.0)",
        "near = tl.where(tl.min(ρ, 0) > 5.0, 1.0, 0.0)",
        ("tests/kernels/test_delta_rule.py",),
    ),
    Mutant(
        "the chunk form rounds equal keys each in its own way",
        DECAY,
        "k[i].mT, ρ * U)",
        "(ρ * k[i]).mT, U)",
        (WORST_KEYS,),
    ),
    Mutant(
        "the kernel corrects the wrong way",
        DELTA_KERNEL,
        "D = (X - dot(Kc, S))",
        "D = (X + dot(Kc, S))",
        (DELTA_KERNEL_TEST, CHAPTER_6),
    ),
    Mutant(
        "the kernel merges blocks of the inverse with the wrong sign",
        DELTA_KERNEL,
        "X -= dot(dot(X,",
        "X += dot(dot(X,",
        ("tests/kernels/test_delta_rule.py", CHAPTER_6),
    ),
    Mutant(
        "the kernel's gradient of the keys' own scores has the wrong sign",
        DELTA_KERNEL,
        "dM -= dot(dV, tl.trans(U))",
        "dM += dot(dV, tl.trans(U))",
        (DELTA_KERNEL_TEST,),
    ),
    Mutant(
        "the kernel's gradient of beta forgets earlier writes of the chunk",
        DELTA_KERNEL,
        "        E -= dot(own, U)",
        "        E -= 0 * dot(own, U)",
        (DELTA_KERNEL_TEST,),
    ),
    Mutant(
        "the kernel lets a NaN reach earlier tokens",
        DELTA_KERNEL,
        "D = tl.where(lost == 0.0, D, 0.0).to(X.dtype)",
        "D = D.to(X.dtype)",
        (DELTA_KERNEL_TEST,),
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
        "two blocks of an inverse are merged with the wrong sign",
        DELTA_KERNEL,
        "X -= dot(dot(X,",
        "X += dot(dot(X,",
        (f"{INTEGERS_TEST} -k delta",),
    ),
    Mutant(
        "a chunk's recall is left out of its corrections",
        DELTAFORMER_KERNEL,
        "D = X - β[:, None] * Y + ",
        "D = X + ",
        (f"{INTEGERS_TEST} -k deltaformer",),
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
        "D = tl.where(lost == 0.0, D, 0.0).to(X.dtype)",
        "D = D.to(X.dtype)",
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
