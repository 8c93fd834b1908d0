"""An emulator of PTX in NumPy: what the compiler made of a kernel runs without a GPU.

Triton's interpreter runs a kernel's source. It sees nothing of what the compiler does afterwards:
layouts, shared memory, barriers, and sums that are fused with products. Here the compiled kernel
runs, instruction by instruction, for two architectures: sm_80, whose products are `mma.sync`, and
sm_90, where four warps together multiply what lies in shared memory, by `wgmma`.

The threads of a block are the lanes of NumPy arrays, either all in lockstep or warp after warp from
barrier to barrier. Whatever is not known, or not allowed, raises `Fault`:

- an instruction that is not listed here, or that all lanes must reach and only some do;
- an address outside the arguments, or that its size does not divide;
- a byte that two warps use without a barrier in between, or two blocks at all, where one stores;
- a product of `wgmma` of what no fence has shown to it, or of what changes before it is waited for.

Shared memory and registers begin as NaN, and so does what an asynchronous copy or product will
write. A sum of a product is fused with it wherever ptxas may do so. Nothing else that ptxas does is
emulated, nor how tensor cores round their sums (here in float64, then to float32), nor a race
within a warp.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

WARP = 32
TYPES = {
    "pred": np.bool_, "b8": np.uint8, "b16": np.uint16, "u16": np.uint16, "s16": np.int16,
    "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "f32": np.float32, "f16": np.float16,
    "b64": np.uint64, "u64": np.uint64, "s64": np.int64, "f64": np.float64,
    "bf16": np.uint16, "bf16x2": np.uint32, "f16x2": np.uint32,
}  # fmt: skip
BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Fault(Exception):
    """What a GPU would not run, or would run in an order that is not determined."""


# --- numbers -----------------------------------------------------------------------------------


def to_bf16(x: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, ties to even; x is in float64."""
    bits = x.view(np.int64)
    near = ((bits + (1 << 44) - 1 + (bits >> 45 & 1)) >> 45 << 45).view(np.float64)
    near = np.where(np.abs(x) < 2.0**-126, np.rint(x * 2.0**133) / 2.0**133, near)
    return (np.where(np.isnan(x), np.nan, near).astype(np.float32).view(np.uint32) >> 16).astype(
        np.uint16
    )


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """Bits of bfloat16 as float64."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def numbers(bits: np.ndarray, kind: str) -> np.ndarray:
    """Bits as numbers of a type."""
    return from_bf16(bits) if kind == "bf16" else bits.view(TYPES[kind])


def flush(x: np.ndarray) -> np.ndarray:
    """Float32 with 0 for what is denormal."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A product of float64 and what is rounded away (Dekker)."""

    def halves(x):
        high = 134217729.0 * x
        high = high - (high - x)
        return high, x - high

    p, (a1, a2), (b1, b2) = a * b, halves(a), halves(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a b + c, rounded once: to float32 by way of float64, which holds its products."""
    if a.dtype != np.float64:
        return np.multiply(a, b, dtype=np.float64) + c
    p, lost = two_product(a, b)
    s = p + c
    part = s - p
    exact = s + ((p - (s - part)) + (c - part) + lost)
    return np.where(np.isfinite(exact), exact, s)


def approximate(x: np.ndarray) -> np.ndarray:
    """Float32 with a relative error of up to 2⁻²², none where the exact result is a float32."""
    near = x.astype(np.float32)
    noise = (x.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)) * 2.0**-52 - 1
    return np.where(near == x, near, (x * (1 + 2.0**-22 * noise)).astype(np.float32))


# --- memory ------------------------------------------------------------------------------------


@dataclass
class Clock:
    """When lanes use memory: their warps, and an interval between barriers, counted by block."""

    warps: np.ndarray
    block: int
    barriers: int = 0

    @property
    def interval(self) -> int:
        return (self.block + 1 << 16) + self.barriers


class Memory:
    """Bytes, who stored each of them, and when every warp last loaded it."""

    def __init__(self, name: str, data: np.ndarray, usable: np.ndarray, warps: int, turn: int):
        self.name, self.data, self.usable, self.turn = name, data, usable, turn
        self.stored = np.zeros(len(data), np.int32)
        self.by = np.zeros(len(data), np.int8)
        self.loaded = np.zeros((warps, len(data)), np.int32)
        self.shown = np.ones(len(data), bool)  # to wgmma, by a fence after the store

    def _rows(self, address: np.ndarray, size: int) -> np.ndarray:
        address = address.astype(np.int64)
        if (address % size).any():
            raise Fault(f"{self.name}: address not divisible by {size}")
        if address.max() >= len(self.data) or not self.usable[address].all():
            raise Fault(f"{self.name}: address out of bounds")
        return address // size

    @staticmethod
    def _unordered(when, by, clock: Clock, warps: np.ndarray):
        """Whether an access is of another block, or of another warp since the last barrier."""
        elsewhere = when >> 16 != clock.block + 1
        return (when > 0) & (elsewhere | ((when == clock.interval) & (by != warps)))

    def load(self, address: np.ndarray, size: int, clock: Clock, active) -> np.ndarray:
        """Bytes [lanes, size]."""
        rows, warps = self._rows(address, size), clock.warps[active]
        stored, by = self.stored.reshape(-1, size)[rows], self.by.reshape(-1, size)[rows]
        if self._unordered(stored, by, clock, warps[:, None]).any():
            raise Fault(f"{self.name}: loaded without a barrier after another warp's store")
        self.loaded.reshape(len(self.loaded), -1, size)[warps, rows] = clock.interval
        return self.data.reshape(-1, size)[rows]

    def store(self, address: np.ndarray, data: np.ndarray, clock: Clock, active) -> None:
        """Store bytes [lanes, size]; a byte that is there already counts as not stored."""
        size = data.shape[1]
        rows, warps = self._rows(address, size), clock.warps[active][:, None]
        memory = self.data.reshape(-1, size)
        stored, by = self.stored.reshape(-1, size), self.by.reshape(-1, size)
        changed = memory[rows] != data
        loaded = self.loaded.reshape(len(self.loaded), -1, size)[:, rows]
        readers = np.arange(len(loaded))[:, None, None]
        early = self._unordered(loaded, readers, clock, warps).any(0)
        early |= self._unordered(stored[rows], by[rows], clock, warps)
        if (early & changed).any():
            raise Fault(f"{self.name}: stored without a barrier after another warp's use")
        turn = slice(None, None, self.turn)  # of the lanes that store in one place the last wins
        memory[rows[turn]] = data[turn]
        before = by[rows]
        by[rows[turn]] = warps[turn]
        if ((memory[rows] != data) & (by[rows] != warps)).any():
            raise Fault(f"{self.name}: warps store different values in one place")
        by[rows[turn]] = np.where(changed, warps, before)[turn]
        stored[rows] = np.where(changed, clock.interval, stored[rows])
        self.shown.reshape(-1, size)[rows] = False

    def show(self, clock: Clock) -> None:
        """Let wgmma see what these warps have stored, and all that barriers put before."""
        self.shown |= (self.stored != clock.interval) | np.isin(self.by, clock.warps)

    def load_shown(self, address: np.ndarray, clock: Clock, active) -> np.ndarray:
        """Load bytes [lanes, 16] as wgmma does."""
        if not self.shown.reshape(-1, 16)[self._rows(address, 16)].all():
            raise Fault(f"{self.name}: a product without a fence after a store")
        return self.load(address, 16, clock, active)


# --- programs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    """A register or parameter, and an offset."""

    base: str
    offset: int


@dataclass(frozen=True)
class Instruction:
    """One instruction: what carries it out, with the parts of its name, its operands and guard."""

    text: str
    operation: Callable
    parts: tuple
    operands: list
    guard: str | None
    negated: bool


@dataclass
class Program:
    """An entry: its parameters and types, its instructions, and where its labels stand."""

    parameters: list[tuple[str, str]] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


OPERATIONS: list[tuple[re.Pattern, Callable]] = []
TOGETHER: set[Callable] = set()  # carried out by all lanes at once: who comes first waits


def operation(pattern: str, together: bool = False):
    """Register what carries out the instructions whose name matches; it gets the groups."""

    def register(function):
        OPERATIONS.append((re.compile(pattern), function))
        TOGETHER.update([function] * together)
        return function

    return register


@cache
def known(name: str) -> tuple[Callable, tuple]:
    for pattern, function in OPERATIONS:
        if match := pattern.fullmatch(name):
            return function, match.groups()
    raise Fault(f"unknown instruction {name}")


def operand(text: str):
    """A register or label as text, an immediate as an int, an address, or a vector as a tuple."""
    text = text.strip()
    if text.startswith("{"):
        return tuple(operand(x) for x in text.strip("{} ").split(","))
    if text.startswith("["):
        base, _, offset = text.strip("[] ").partition("+")
        return Address(base.strip(), int(offset or "0"))
    if re.match(r"0[fd][0-9A-F]+$", text):
        return int(text[2:], 16)
    return int(text.rstrip("U"), 0) if re.match(r"-?\d", text) else text


def instruction(text: str) -> Instruction:
    guard, name, operands = re.fullmatch(r"(?:@(!?%p\d+)\s+)?(\S+)\s*(.*)", text).groups()
    function, parts = known(name)
    if guard and function in TOGETHER:
        raise Fault(f"some lanes alone: {text}")
    operands = [operand(x) for x in re.findall(r"(?:\{.*?\}|\[.*?\]|[^,{[]+)+", operands)]
    negated = guard is not None and guard.startswith("!")
    return Instruction(text, function, parts, operands, guard and guard.lstrip("!"), negated)


def parse(ptx: str) -> Program:
    """The one entry of a module."""
    program = Program()
    ptx = re.sub(r"//.*", "", ptx)
    head, body = re.search(r"\.entry \w+\(\n(.*?)\)\n[^{]*\n\{\n(.*?)\n\}\n", ptx, re.S).groups()
    program.parameters = re.findall(r"\.param \.(\w+).*?(\w+)(?:,|\n|$)", head)
    for line in body.splitlines():
        inner = re.fullmatch(r"\s*\{ (\.reg.*) \}\s*", line)  # a scope in one line
        for statement in (inner[1] if inner else line).split(";"):
            text = statement.strip()
            if label := re.fullmatch(r"(\$\w+):", text):
                program.labels[label[1]] = len(program.instructions)
            elif register := re.fullmatch(r"\.reg \.(\w+)\s+([%\w]+)(<\d+>)?", text):
                program.registers[register[2]] = register[1]
            elif text and not text.startswith((".loc", ".pragma")):
                program.instructions.append(instruction(text))
    return program


# --- threads -----------------------------------------------------------------------------------


@cache
def immediate(bits: int, kind: str) -> np.ndarray:
    size = np.dtype(TYPES[kind]).itemsize
    if kind == "pred":
        return np.array([bits != 0])
    return np.array([bits % (1 << 8 * size)], np.uint64).astype(BITS[size])


class Threads:
    """Threads of one block that run in lockstep: whole warps, their registers, where they are."""

    def __init__(
        self, launch: Launch, lanes: np.ndarray, block: tuple, number: int, shared: Memory
    ):
        self.program = launch.program
        self.memory = {"global": launch.memory, "shared": shared}
        self.clock = Clock((lanes // WARP).astype(np.int8), number)
        self.count, self.at = len(lanes), 0
        self.here: np.ndarray | None = None  # the lanes that are at this place, or all
        self.elsewhere: dict[int, np.ndarray] = {}  # other lanes, by their place
        self.guard: np.ndarray | None = None  # the lanes for which an instruction holds, or all
        self.products: dict[str, tuple] = {}  # registers that a later sum may be fused with
        self.copies: list[list] = []  # committed groups of asynchronous copies
        self.issued: list[Callable] = []
        self.multiplying: list[Callable] = []  # products of wgmma that nobody has waited for
        self.sums: dict[str, np.ndarray] = {}  # the registers that they add to
        self.committed = 0
        self.touched: set[str] = set()  # registers written since the last fence of wgmma
        self.registers = {x: np.repeat(y, self.count) for x, y in launch.arguments.items()}
        self.registers["%tid.x"] = lanes.astype(np.uint32)
        self.registers["global_smem"] = np.zeros(self.count, np.uint32)
        for axis, here, all_ in zip("xyz", block, launch.grid, strict=True):
            self.registers[f"%ctaid.{axis}"] = np.full(self.count, here, np.uint32)
            self.registers[f"%nctaid.{axis}"] = np.full(self.count, all_, np.uint32)

    def bits(self, name: str) -> np.ndarray:
        """A register's bits; all are 1 before the first write."""
        if name not in self.registers:
            kind = self.program.registers[name.rstrip("0123456789")]
            self.registers[name] = np.full(self.count, -1).astype(TYPES[kind])
        return self.registers[name]

    def read(self, source, kind: str) -> np.ndarray:
        """An operand as numbers of a type, [lanes] or [1]; of packed types [lanes, 2]."""
        bits = immediate(source, kind) if isinstance(source, int) else self.bits(source)
        if kind in ("bf16x2", "f16x2"):
            bits, kind = bits.view(np.uint16).reshape(-1, 2), kind[:-2]
        if bits.itemsize != np.dtype(TYPES[kind]).itemsize:
            bits = bits.astype(BITS[np.dtype(TYPES[kind]).itemsize])
        return numbers(bits, kind)

    def write(self, name: str, kind: str, value: np.ndarray) -> None:
        """Round numbers to a type, and set a register where the guard holds."""
        if name == "_":
            return
        packed, kind = kind.endswith("x2"), kind.removesuffix("x2")
        value = to_bf16(value.astype(np.float64)) if kind == "bf16" else value.astype(TYPES[kind])
        if packed:
            value = np.ascontiguousarray(value).view(np.uint32)[:, 0]
        old = self.bits(name)
        if value.itemsize != old.itemsize:  # with the sign, if the type has one
            value = value.astype(old.dtype)
        value = value.view(old.dtype)
        if len(value) != self.count:
            value = np.repeat(value, self.count)
        self.registers[name] = value if self.guard is None else np.where(self.guard, value, old)
        self.products.pop(name, None)
        self.touched.add(name)

    def active(self):
        """What selects the lanes where the guard holds."""
        return slice(None) if self.guard is None else np.flatnonzero(self.guard)

    def address(self, place: Address) -> np.ndarray:
        """Addresses of the active lanes."""
        base = self.bits(place.base)[self.active()]
        return base + base.dtype.type(place.offset)

    def go(self, place: int) -> None:
        """Let the lanes for which the guard holds go on at another place."""
        if self.guard is None or self.guard.all():
            self.at = place
        elif self.guard.any():
            self.elsewhere[place] = self.guard | self.elsewhere.get(place, False)
            self.here = ~self.guard if self.here is None else self.here & ~self.guard

    def meet(self) -> None:
        """Go on with the lanes that are furthest behind and need not wait for others."""
        if self.here.any():
            self.elsewhere[self.at] = self.here | self.elsewhere.get(self.at, False)
        steps = self.program.instructions
        free = [
            place
            for place, lanes in self.elsewhere.items()
            if lanes.all() or (place < len(steps) and steps[place].operation not in TOGETHER)
        ]
        if not free:
            raise Fault("lanes wait for each other in different places")
        self.at = min(free)
        self.here = self.elsewhere.pop(self.at)
        if self.here.all():
            self.here = None

    def run(self) -> Iterator[None]:
        """Run to the end, stopping at every barrier."""
        while True:
            if self.here is not None:
                self.meet()
            if self.at == len(self.program.instructions):
                return
            step = self.program.instructions[self.at]
            self.at += 1
            self.guard = self.here
            if step.guard:
                holds = self.bits(step.guard) != step.negated
                self.guard = holds if self.here is None else holds & self.here
            try:
                stop = step.operation(self, *step.parts, *step.operands)
            except Fault as fault:
                raise Fault(f"{fault}: {step.text}") from None
            if stop:
                yield
                self.clock.barriers += 1


# --- instructions ------------------------------------------------------------------------------

FLOAT = "(f16|f16x2|bf16|bf16x2|f32|f64)"
INTEGER = "([bus](?:16|32|64))"
BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "mul.lo": np.multiply, "min": np.fmin,
    "max": np.fmax, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
UNARY = {"neg": np.negative, "abs": np.abs, "not": np.invert}
COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "nan": lambda x, y: np.isnan(x) | np.isnan(y),
}  # fmt: skip


@operation(rf"(add|sub|mul|min|max)(\.rn)?(\.ftz)?\.{FLOAT}")
def float_arithmetic(threads, name, rounded, ftz, kind, d, a, b):
    x, y = threads.read(a, kind), threads.read(b, kind)
    sum_ = name in ("add", "sub") and not rounded
    if sum_ and (a in threads.products or b in threads.products):
        value = fused(threads, name, x, y, a, b)
    elif ftz:
        value = flush(BINARY[name](flush(x), flush(y)))
    else:
        value = BINARY[name](x, y)
    threads.write(d, kind, value)
    if name == "mul" and not rounded and not ftz:
        threads.products[d] = x, y


def fused(threads, name, x, y, a, b):
    """A sum with the product behind one of its operands, as ptxas may compute it."""
    sign = -1 if name == "sub" else 1
    if a in threads.products:
        return fma(*threads.products[a], sign * y)
    p, q = threads.products[b]
    return fma(sign * p, q, x)


@operation(rf"fma\.rn(\.ftz)?\.{FLOAT}")
def fused_multiply_add(threads, ftz, kind, d, *operands):
    a, b, c = (threads.read(x, kind) for x in operands)
    if ftz:
        threads.write(d, kind, flush(fma(flush(a), flush(b), flush(c)).astype(np.float32)))
    else:
        threads.write(d, kind, fma(a, b, c))


@operation(rf"(neg|abs|not)(\.ftz)?\.({FLOAT[1:-1]}|{INTEGER[1:-1]}|pred)")
def unary(threads, name, ftz, kind, d, a):
    value = UNARY[name](threads.read(a, kind))
    threads.write(d, kind, flush(value) if ftz else value)


@operation(r"min\.xorsign\.abs\.f32")
def smaller_with_both_signs(threads, d, a, b):
    """The smaller size, with the product of the signs: how numbers are clamped on sm_90."""
    x, y = threads.read(a, "f32"), threads.read(b, "f32")
    negative = np.signbit(x) != np.signbit(y)
    threads.write(d, "f32", np.where(negative, -1, 1) * np.fmin(np.abs(x), np.abs(y)))


@operation(r"(ex2)\.approx(\.ftz)?\.f32")
def exponential(threads, _name, ftz, d, a):
    x = threads.read(a, "f32")
    value = approximate(np.exp2((flush(x) if ftz else x).astype(np.float64)))
    threads.write(d, "f32", flush(value) if ftz else value)


@operation(r"div\.full\.f32")
def divide(threads, d, a, b):
    quotient = threads.read(a, "f32").astype(np.float64) / threads.read(b, "f32")
    threads.write(d, "f32", approximate(quotient))


@operation(rf"(add|sub|min|max|mul\.lo|and|or|xor)\.({INTEGER[1:-1]}|pred)")
def integer_arithmetic(threads, name, kind, d, a, b):
    threads.write(d, kind, BINARY[name](threads.read(a, kind), threads.read(b, kind)))


@operation(rf"mad\.lo\.{INTEGER}")
def multiply_add(threads, kind, d, a, b, c):
    x, y, z = (threads.read(x, kind) for x in (a, b, c))
    threads.write(d, kind, x * y + z)


@operation(r"(mul|mad)\.wide\.([us])(16|32)")
def multiply_wide(threads, _name, sign, size, d, a, b, *c):
    kind, wide = sign + size, f"{sign}{2 * int(size)}"
    value = threads.read(a, kind).astype(TYPES[wide]) * threads.read(b, kind)
    threads.write(d, wide, sum((threads.read(x, wide) for x in c), value))


@operation(r"mul\.hi\.([us])32")
def multiply_high(threads, sign, d, a, b):
    x, y = threads.read(a, f"{sign}32"), threads.read(b, f"{sign}32")
    threads.write(d, "b32", x.astype(TYPES[f"{sign}64"]) * y >> 32)


@operation(rf"(shl|shr)\.{INTEGER}")
def shift(threads, name, kind, d, a, b):
    """Shifts past the end leave 0, or the sign."""
    x, by, bits = threads.read(a, kind), threads.read(b, "u32"), int(kind[1:])
    if name == "shl":
        value = np.where(by < bits, x << np.minimum(by, bits - 1).astype(x.dtype), 0)
    elif kind[0] == "s":
        value = x >> np.minimum(by, bits - 1).astype(x.dtype)
    else:
        value = np.where(by < bits, x >> np.minimum(by, bits - 1).astype(x.dtype), 0)
    threads.write(d, kind, value)


@operation(r"bfe\.([us]32)")
def extract_bits(threads, kind, d, a, start, length):
    x, start, length = (threads.read(y, "u32").astype(np.int64) for y in (a, start, length))
    value = x >> start & (1 << length) - 1
    if kind == "s32":
        top = np.minimum(start + length - 1, 31)
        value = np.where((x >> top & 1).astype(bool), value | -1 << (top - start + 1), value)
    threads.write(d, "b32", value)


@operation(r"bfe\.u64")
def extract_wide_bits(threads, d, a, start, length):
    start, length = (threads.read(y, "u32").astype(np.uint64) for y in (start, length))
    below = (np.uint64(1) << length) - np.uint64(1)
    threads.write(d, "b64", threads.read(a, "u64") >> start & below)


@operation(r"prmt\.b32")
def permute_bytes(threads, d, a, b, selector):
    both = threads.read(a, "u32") | threads.read(b, "u32").astype(np.uint64) << np.uint64(32)
    choice, value = threads.read(selector, "u32"), 0
    for i in range(4):
        one = choice >> np.uint32(4 * i)
        byte = (both >> (8 * (one & 7)).astype(np.uint64)).astype(np.uint8)
        byte = np.where(one & 8, (byte.view(np.int8) >> 7).view(np.uint8), byte)
        value = value | byte.astype(np.uint32) << np.uint32(8 * i)
    threads.write(d, "b32", value)


@operation(rf"setp\.(eq|ne|lt|le|gt|ge|nan)(u?)\.({FLOAT[1:-1]}|{INTEGER[1:-1]})")
def compare(threads, name, unordered, kind, d, a, b):
    """Compare; of packed numbers the lower ones give the first of two predicates."""
    x, y = threads.read(a, kind), threads.read(b, kind)
    value = COMPARE[name](x, y)
    if "f" in kind:
        nan = np.isnan(x) | np.isnan(y)
        value = value | nan if unordered or name == "nan" else value & ~nan
    parts = value.T if value.ndim == 2 else [value]
    for predicate, part in zip(d.split("|"), parts, strict=True):
        threads.write(predicate, "pred", part)


@operation(r"selp\.(\w+)")
def select(threads, kind, d, a, b, condition):
    kind = kind.replace("f", "b")
    chosen = threads.bits(condition)
    threads.write(d, kind, np.where(chosen, threads.read(a, kind), threads.read(b, kind)))


@operation(r"(?:mov|ld\.param)\.(\w+)")
def move(threads, kind, d, a):
    """Move, also between a vector of registers and one that holds all of it."""
    if isinstance(d, tuple):
        parts = threads.read(a, kind).view(BITS[np.dtype(TYPES[kind]).itemsize // len(d)])
        for name, part in zip(d, parts.reshape(threads.count, -1).T, strict=True):
            threads.write(name, f"b{8 * part.itemsize}", part)
    elif isinstance(a, tuple):
        part = f"b{8 * np.dtype(TYPES[kind]).itemsize // len(a)}"
        parts = [np.broadcast_to(threads.read(x, part), threads.count) for x in a]
        threads.write(d, kind, np.stack(parts, 1).view(TYPES[kind])[:, 0])
    else:
        threads.write(d, kind, threads.read(a.base if isinstance(a, Address) else a, kind))


@operation(r"cvt(\.rn)?\.(\w+)\.(\w+)")
def convert(threads, rounded, to, of, d, *sources):
    """Convert; of two sources the first is the upper half."""
    if "f" in of and "f" not in to:
        raise Fault("a float to an integer")
    values = [threads.read(x, of) for x in reversed(sources)]
    threads.write(d, to, np.stack(values, 1) if len(values) > 1 else values[0])


@operation(r"ld\.(global|shared)(?:::cta)?(?:\.v[24])?\.(\w+)")
def load(threads, space, kind, into, place):
    into, active = into if isinstance(into, tuple) else (into,), threads.active()
    kind, address = f"b{kind[1:]}", threads.address(place)
    if len(address):
        size = np.dtype(TYPES[kind]).itemsize
        data = threads.memory[space].load(address, size * len(into), threads.clock, active)
        for name, part in zip(into, data.view(TYPES[kind]).T, strict=True):
            value = np.zeros(threads.count, TYPES[kind])
            value[active] = part
            threads.write(name, kind, value)


@operation(r"st\.(global|shared)(?:::cta)?(?:\.v[24])?\.(\w+)")
def store(threads, space, kind, place, source):
    source, active = source if isinstance(source, tuple) else (source,), threads.active()
    kind, address = f"b{kind[1:]}", threads.address(place)
    if len(address):
        parts = [np.broadcast_to(threads.read(x, kind), threads.count)[active] for x in source]
        data = np.stack(parts, 1).view(np.uint8)
        threads.memory[space].store(address, data, threads.clock, active)


@operation(r"cp\.async\.c[ag]\.shared\.global")
def copy(threads, to, of, size, *length):
    """Copy `length` of `size` bytes, and zeros; here as late as is allowed, and NaN before."""
    active, to, of = threads.active(), threads.address(to), threads.address(of)
    if not len(to):
        return
    length = np.broadcast_to(threads.read(length[0] if length else size, "u32"), threads.count)
    full = length[active] == size
    if not (full | (length[active] == 0)).all():
        raise Fault("a part of a copy")
    lanes = np.arange(threads.count)[active]

    def carry_out():
        data = np.zeros((len(to), size), np.uint8)
        if full.any():
            source = threads.memory["global"]
            data[full] = source.load(of[full], size, threads.clock, lanes[full])
        threads.memory["shared"].store(to, data, threads.clock, lanes)

    nothing_yet = np.full((len(to), size), 255, np.uint8)
    threads.memory["shared"].store(to, nothing_yet, threads.clock, lanes)
    threads.issued.append(carry_out)


@operation(r"cp\.async\.commit_group")
def commit(threads):
    threads.copies.append(threads.issued)
    threads.issued = []


@operation(r"cp\.async\.wait_group")
def wait(threads, remaining):
    while len(threads.copies) > remaining:
        for carry_out in threads.copies.pop(0):
            carry_out()


@operation(r"shfl\.sync\.(up|down|bfly|idx)\.b32", together=True)
def shuffle(threads, mode, d, a, b, clamp, _members):
    lane = np.arange(threads.count) % WARP
    b, c = (threads.read(x, "u32").astype(np.int64) for x in (b, clamp))
    segment, own = c >> 8 & 31, c & 31
    first, last = lane & segment, (lane & segment) | (own & ~segment)
    source = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": first | (b & ~segment)}
    inside = source[mode] >= last if mode == "up" else source[mode] <= last
    source = np.where(inside, source[mode], lane) + np.arange(threads.count) // WARP * WARP
    threads.write(d, "b32", threads.read(a, "b32")[source])


@operation(r"redux\.sync\.(min|max|add)\.([su]32)", together=True)
def reduce_warps(threads, which, kind, d, a, _members):
    """What every lane gets of its warp; Triton 3.9 reduces integers so."""
    function = {"min": np.minimum, "max": np.maximum, "add": np.add}[which]
    warps = threads.read(a, kind).reshape(-1, WARP)
    threads.write(d, kind, np.repeat(function.reduce(warps, 1, warps.dtype), WARP))


@operation(r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16", together=True)
def load_matrices(threads, count, transposed, into, place):
    """Matrices [8, 8] of 16 bits: lane 8 j + i has the address of row i of matrix j."""
    rows = np.arange(threads.count).reshape(-1, WARP)[:, : 8 * int(count)].ravel()
    address = threads.address(place)[rows]
    data = threads.memory["shared"].load(address, 16, threads.clock, rows)
    data = data.view(np.uint16).reshape(-1, int(count), 8, 8)
    data = np.ascontiguousarray(data.swapaxes(2, 3) if transposed else data).view(np.uint32)
    for name, part in zip(into, data.reshape(-1, int(count), WARP).swapaxes(0, 1), strict=True):
        threads.write(name, "b32", part.ravel())


@operation(r"stmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16", together=True)
def store_matrices(threads, count, transposed, place, source):
    """The reverse of `load_matrices`."""
    rows = np.arange(threads.count).reshape(-1, WARP)[:, : 8 * int(count)].ravel()
    data = np.stack([threads.read(x, "b32") for x in source]).reshape(int(count), -1, WARP)
    data = np.ascontiguousarray(data.swapaxes(0, 1)).view(np.uint16).reshape(-1, 8, 8)
    data = np.ascontiguousarray(data.swapaxes(1, 2) if transposed else data).view(np.uint8)
    address = threads.address(place)[rows]
    threads.memory["shared"].store(address, data.reshape(-1, 16), threads.clock, rows)


@operation(
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.(bf16|f16)\.(?:bf16|f16)\.f32", together=True
)
def multiply_matrices(threads, kind, d, a, b, c):
    """D = A B + C of every warp; lane 4 i + j has two numbers a register, of row or column i."""

    def words(names, packed):
        parts = [threads.read(x, packed) for x in names]
        return np.stack(parts, 1).reshape(-1, 8, 4, len(names), 2)  # warp, i, j, register, number

    A = words(a, f"{kind}x2").astype(np.float64).reshape(-1, 8, 4, 2, 2, 2)
    A = A.transpose(0, 4, 1, 3, 2, 5).reshape(-1, 16, 16)
    B = words(b, f"{kind}x2").astype(np.float64).transpose(0, 3, 2, 4, 1).reshape(-1, 16, 8)
    C = np.stack([threads.read(x, "f32") for x in c], 1).reshape(-1, 8, 4, 2, 2)
    C = C.transpose(0, 3, 1, 2, 4).reshape(-1, 16, 8)
    D = (A @ B + C).astype(np.float32).reshape(-1, 2, 8, 4, 2)
    for name, part in zip(d, D.transpose(1, 4, 0, 2, 3).reshape(4, -1), strict=True):
        threads.write(name, "f32", part)


def places(threads, descriptor, transposed, rows) -> np.ndarray:
    """Where wgmma finds the numbers of these rows, [warps, rows, 16], by pieces of 16 bytes.

    Eight rows of 32, 64 or 128 bytes are a tile, whose pieces are swizzled. Transposed, a row of a
    tile is a column of the matrix.
    """
    word = threads.read(descriptor, "u64")[::WARP].astype(np.int64)[:, None, None]
    start, leading, stride = ((word >> at & 0x3FFF) << 4 for at in (0, 16, 32))
    width = np.array([0, 128, 64, 32])[word >> 62 & 3]
    if not width.all():
        raise Fault("a matrix without a swizzle")
    row, piece = rows, np.arange(2)
    if transposed:
        row, piece = np.arange(16)[:, None], rows.swapaxes(1, 2)[..., ::8] // 8
    address = start + row // 8 * stride + row % 8 * width
    address = address + piece // (width // 16) * leading + piece % (width // 16) * 16
    return address ^ (address >> 7 & width // 16 - 1) << 4


@operation(
    r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16\.f32\.(bf16|f16)\.(?:bf16|f16)",
    together=True,
)
def multiply_shared(threads, columns, kind, d, a, b, add, *scales):
    """D = A Bᵀ + D, 16 rows a warp; here as late as is allowed, and NaN before."""
    *signs, a_transposed, b_transposed = scales
    if signs != [1, 1] or threads.touched & {*d}:
        raise Fault("a sign, or a sum that no fence has shown to wgmma")
    warp = threads.clock.warps[::WARP].astype(int)[:, None, None]
    where = (
        places(threads, a, a_transposed, np.arange(16)[:, None] + warp % 4 * 16),
        places(threads, b, b_transposed, np.arange(int(columns))[None, :, None]),
    )

    def operands():
        for x, transposed in zip(where, (a_transposed, b_transposed), strict=True):
            lanes = np.repeat(np.arange(len(x)) * WARP, x[0].size)
            data = threads.memory["shared"].load_shown(x.ravel(), threads.clock, lanes)
            data = data.view(np.uint16).reshape(*x.shape[:2], -1)
            yield data.swapaxes(1, 2) if transposed else data

    before, added = [*operands()], threads.read(add, "pred")
    for name in d:
        threads.sums.setdefault(name, threads.read(name, "f32"))
        threads.registers[name] = np.full(threads.count, -1).astype(np.uint32)

    def carry_out():
        now = [*operands()]
        if not all(map(np.array_equal, before, now)):
            raise Fault("an operand changes before the product is waited for")
        A, B = (numbers(np.ascontiguousarray(x), kind).astype(np.float64) for x in now)
        C = np.stack([np.where(added, threads.sums[x], 0) for x in d], 1)
        C = C.reshape(-1, 8, 4, len(d) // 4, 2, 2).transpose(0, 4, 1, 3, 2, 5)
        D = (A @ B.swapaxes(1, 2) + C.reshape(-1, 16, int(columns))).astype(np.float32)
        D = D.reshape(-1, 2, 8, len(d) // 4, 4, 2).transpose(0, 2, 4, 3, 1, 5)
        threads.sums.update(zip(d, D.reshape(threads.count, -1).T, strict=True))

    threads.multiplying.append(carry_out)


@operation(r"wgmma\.fence\.sync\.aligned", together=True)
def show_registers(threads):
    threads.touched.clear()


@operation(r"fence\.proxy\.async\.shared::cta", together=True)
def show_memory(threads):
    threads.memory["shared"].show(threads.clock)


@operation(r"wgmma\.commit_group\.sync\.aligned", together=True)
def commit_products(threads):
    threads.committed = len(threads.multiplying)


@operation(r"wgmma\.wait_group\.sync\.aligned", together=True)
def wait_for_products(threads, remaining):
    if remaining or threads.committed < len(threads.multiplying):
        raise Fault("a wait for a part of the products")
    for carry_out in threads.multiplying:
        carry_out()
    for name, value in threads.sums.items():
        threads.registers[name] = np.ascontiguousarray(value).view(np.uint32)
    threads.multiplying, threads.sums, threads.committed = [], {}, 0


@operation(r"bra(?:\.uni)?")
def branch(threads, label):
    threads.go(threads.program.labels[label])


@operation(r"ret")
def end(threads):
    threads.go(len(threads.program.instructions))


@operation(r"bar\.sync", together=True)
def barrier(threads, number):
    if number:
        raise Fault("a barrier of a part of the block")
    return True


@operation(r"bar\.warp\.sync", together=True)
def barrier_of_a_warp(_threads, _members):
    pass


# --- launches ----------------------------------------------------------------------------------


@dataclass
class Launch:
    """A program, its arguments, grid and memory."""

    program: Program
    arguments: dict[str, np.ndarray]
    grid: tuple[int, int, int]
    memory: Memory
    warps: int
    shared: int
    order: str

    def run(self) -> None:
        """Run all blocks, one after the other."""
        with np.errstate(all="ignore"):
            for number, block in enumerate(product(*map(range, reversed(self.grid)))):
                self._run_block(number, block[::-1])

    def _run_block(self, number: int, block: tuple) -> None:
        size = -(-self.shared // 16) * 16
        shared = Memory(
            "shared memory",
            np.full(size, 255, np.uint8),
            np.ones(size, bool),
            self.warps,
            self.memory.turn,
        )
        lanes = np.arange(self.warps * WARP)
        groups = [lanes] if self.order == "lockstep" else list(lanes.reshape(-1, WARP))
        if self.order == "descending":
            groups.reverse()
        running = [Threads(self, group, block, number, shared).run() for group in groups]
        while running:
            waiting = [x for x in running if next(x, "end") is None]
            if waiting and len(waiting) < len(running):
                raise Fault("warps end while others wait at a barrier")
            running = waiting


def in_memory(tensors: list[torch.Tensor], warps: int, turn: int) -> tuple[Memory, list[int]]:
    """Global memory with gaps between the tensors, and their addresses, as aligned as theirs."""
    places, end = {}, 256
    for x in tensors:
        key = x.data_ptr(), x.nbytes
        if key not in places:
            places[key] = end + x.data_ptr() % 16
            end = (places[key] + x.nbytes) // 256 * 256 + 512
    memory = Memory("global memory", np.zeros(end, np.uint8), np.zeros(end, bool), warps, turn)
    addresses = [places[x.data_ptr(), x.nbytes] for x in tensors]
    for x, start in zip(tensors, addresses, strict=True):
        memory.data[start : start + x.nbytes] = in_bytes(x)
        memory.usable[start : start + x.nbytes] = True
    return memory, addresses


def in_bytes(x: torch.Tensor) -> np.ndarray:
    """A contiguous tensor's own memory."""
    return x.detach().view(-1).view(torch.uint8).numpy()


@dataclass
class Emulated:
    """Stands for a Triton kernel: a launch compiles it, as for a GPU, and runs its PTX here."""

    kernel: triton.JITFunction
    order: str = "lockstep"  # or "ascending" or "descending": warp after warp
    architecture: int = 80
    compiled: dict = field(default_factory=dict)

    def __getitem__(self, grid):
        return partial(self.launch, grid)

    @property
    def __name__(self) -> str:
        return self.kernel.__name__

    def launch(self, grid: tuple[int, ...], *args, num_warps: int, **kwargs):
        options = {"num_warps": num_warps}
        options |= {x: kwargs.pop(x) for x in set(kwargs).difference(self.kernel.arg_names)}
        named = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs
        key = *((x, self.specialized(x, y)) for x, y in named.items()), *sorted(options.items())
        if key not in self.compiled:
            self.compiled[key] = self.compile(named, options)
        program, shared = self.compiled[key]
        passed = [y for x, y in named.items() if self.specialized(x, y)[0] != "constexpr"]
        tensors = [x for x in passed if isinstance(x, torch.Tensor)]
        memory, addresses = in_memory(tensors, num_warps, -1 if self.order == "descending" else 1)
        values = iter(addresses)
        passed = [next(values) if isinstance(x, torch.Tensor) else x for x in passed]
        passed += [0] * (len(program.parameters) - len(passed))  # Triton's own, not used
        arguments = {
            name: np.array([x], TYPES[kind]).view(BITS[np.dtype(TYPES[kind]).itemsize])
            for (kind, name), x in zip(program.parameters, passed, strict=True)
        }
        grid = (*grid, 1, 1)[:3]
        Launch(program, arguments, grid, memory, num_warps, shared, self.order).run()
        for x, start in zip(tensors, addresses, strict=True):
            in_bytes(x)[:] = memory.data[start : start + x.nbytes]

    def specialized(self, name: str, x) -> tuple:
        """The type of an argument, whether 16 divides it, and its value if it is compiled in."""
        parameter = self.kernel.params[self.kernel.arg_names.index(name)]
        free = not parameter.do_not_specialize
        if parameter.is_constexpr or x is None or (free and type(x) is int and x == 1):
            return "constexpr", False, x
        if isinstance(x, torch.Tensor):
            kind = {torch.int64: "i64", torch.bfloat16: "bf16"}.get(x.dtype)
            return f"*{kind or f'fp{8 * x.itemsize}'}", x.data_ptr() % 16 == 0, None
        if isinstance(x, int):
            return "i32", free and x % 16 == 0, None
        return "fp32", False, None

    def compile(self, named: dict, options: dict) -> tuple[Program, int]:
        """The program, and its bytes of shared memory."""
        kinds = {name: self.specialized(name, x) for name, x in named.items()}
        source = ASTSource(
            self.kernel,
            {name: kind for name, (kind, _, _) in kinds.items()},
            {name: x for name, (kind, _, x) in kinds.items() if kind == "constexpr"},
            {
                (self.kernel.arg_names.index(name),): [["tt.divisibility", 16]]
                for name, (_, divisible, _) in kinds.items()
                if divisible
            },
        )
        target = GPUTarget("cuda", self.architecture, WARP)
        compiled = triton.compile(source, target=target, options=options)
        return parse(compiled.asm["ptx"]), compiled.metadata.shared
