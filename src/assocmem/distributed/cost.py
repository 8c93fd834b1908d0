"""What it costs to split a sequence over R ranks: bytes, seconds, and when it pays.

A rank sends each of the R − 1 others the same bytes. For a scan they do not depend on the number of
tokens, for softmax attention they are the piece's keys and values. Times assume a ring: in R − 1
steps every rank hands on what came last, over its own link and at the same time as all others, so
that b bytes per pair of ranks take (R − 1) (latency + b / bandwidth). Nothing else is done
meanwhile.

A rank scans its piece twice, once with K columns more (`scan.py` says why), so that splitting takes
more work than it divides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from assocmem.arguments import (
    check_count,
    check_counts,
    check_fraction,
    check_number,
    check_positive,
)

LENGTH = 8  # bytes of a piece's number of tokens


class Traffic(NamedTuple):
    """Bytes that a rank sends to each of the others in one layer.

    Args:
        forward: on the way forward.
        backward: on the way back.
    """

    forward: int
    backward: int


@dataclass(frozen=True)
class Link:
    """What connects a rank to the next one.

    Args:
        bandwidth: bytes per second in one direction.
        latency: seconds that a message takes however short it is.

    Raises:
        TypeError: when one is not a number.
        ValueError: when the bandwidth is not finite and above 0, or the latency not finite and at
            least 0.

    Example:
        >>> from assocmem.distributed import Link
        >>> link = Link(bandwidth=50e9, latency=10e-6)
        >>> round(link.seconds(8_388_608, ranks=8) * 1e6)  # microseconds
        1244
    """

    bandwidth: float
    latency: float = 0.0

    def __post_init__(self) -> None:
        check_positive("bandwidth", self.bandwidth)
        check_not_negative("latency", self.latency)

    def seconds(self, size: float, ranks: int) -> float:
        """(R − 1) (latency + size / bandwidth): every rank gets `size` bytes from every other.

        Args:
            size: bytes per pair of ranks in one exchange, forward or backward in a `Traffic`.
            ranks: number of ranks R.

        Returns:
            Seconds.

        Raises:
            TypeError, ValueError: when size is not finite and >= 0, or ranks not an integer >= 1.
        """
        check_not_negative("size", size)
        check_count("ranks", ranks)
        return (ranks - 1) * (self.latency + size / self.bandwidth)


def scan_traffic(
    n_heads: int, d_key: int, d_value: int, *, batch: int = 1, itemsize: int = 4
) -> Traffic:
    """Bytes of a scan per pair of ranks: N H K (K + V) numbers forward, 2 N H K V backward.

    Args:
        n_heads: number of heads H.
        d_key: size K of a head's keys.
        d_value: size V of a head's values; one more where the read-out is normalised.
        batch: number of sequences N.
        itemsize: bytes of a number of the state, 4 but for float64 inputs.

    Raises:
        TypeError, ValueError: when an argument is not an integer >= 1.

    Example:
        >>> from assocmem.distributed import scan_traffic
        >>> scan_traffic(n_heads=16, d_key=128, d_value=128)  # of any length
        Traffic(forward=2097152, backward=2097152)
    """
    check_counts(n_heads=n_heads, d_key=d_key, d_value=d_value, batch=batch, itemsize=itemsize)
    states = batch * n_heads * d_key * itemsize
    return Traffic(states * (d_key + d_value), states * 2 * d_value)


def convolution_traffic(
    channels: int, width: int = 4, *, batch: int = 1, itemsize: int = 4
) -> Traffic:
    """Bytes of a `ShortConvolution` per pair of ranks: the last width − 1 tokens of a piece.

    Backward the gradients of all ranks are added, which a ring does in two rounds: twice as many.

    Args:
        channels: size C of the tokens.
        width: how many tokens a filter sees.
        batch: number of sequences.
        itemsize: bytes of a number.

    Raises:
        TypeError, ValueError: when an argument is not an integer >= 1.

    Example:
        >>> from assocmem.distributed import convolution_traffic
        >>> convolution_traffic(channels=6144)
        Traffic(forward=73736, backward=147456)
    """
    check_counts(channels=channels, width=width, batch=batch, itemsize=itemsize)
    tokens = batch * (width - 1) * channels * itemsize
    return Traffic(tokens + LENGTH, 2 * tokens)


def attention_traffic(
    tokens: int, n_heads: int, d_key: int, d_value: int, *, batch: int = 1, itemsize: int = 4
) -> Traffic:
    """Bytes of `SoftmaxAttention` per pair of ranks: the keys and values of a piece.

    Backward the gradients of all ranks are added, which a ring does in two rounds: twice as many.

    Args:
        tokens: of the longest piece.
        n_heads: number of heads of keys and values.
        d_key: size K of a head's keys.
        d_value: size V of a head's values.
        batch: number of sequences.
        itemsize: bytes of a number.

    Raises:
        TypeError, ValueError: when an argument is not an integer >= 1.

    Example:
        >>> from assocmem.distributed import attention_traffic
        >>> attention_traffic(8192, n_heads=16, d_key=128, d_value=128, itemsize=2)
        Traffic(forward=67108872, backward=134217728)
    """
    check_counts(
        tokens=tokens, n_heads=n_heads, d_key=d_key, d_value=d_value, batch=batch, itemsize=itemsize
    )
    numbers = batch * tokens * n_heads * (d_key + d_value) * itemsize
    return Traffic(numbers + LENGTH, 2 * numbers)


def scan_work(d_key: int, d_value: int) -> float:
    """The work of the two scans that a split sequence takes, in units of one scan: at most 2 + K/V.

    One has V columns in its state, the other V + K; what does not depend on the columns is done
    twice.

    Args:
        d_key: size K of a head's keys.
        d_value: size V of a head's values.

    Raises:
        TypeError, ValueError: when an argument is not an integer >= 1.

    Example:
        >>> from assocmem.distributed import scan_work
        >>> scan_work(d_key=128, d_value=128)
        3.0
    """
    check_counts(d_key=d_key, d_value=d_value)
    return 2 + d_key / d_value


def split_seconds(
    tokens: int,
    ranks: int,
    *,
    token_seconds: float,
    exchange: float,
    scan_share: float,
    work: float,
) -> float:
    """Time of T tokens on R ranks: (T / R) t (1 + σ (w − 1)) + e, and T t on a single one.

    Args:
        tokens: length T of the sequence.
        ranks: number of ranks R.
        token_seconds: time t that a token takes on one rank, in a layer or in a model.
        exchange: time e of all exchanges, from `Link.seconds`.
        scan_share: the part σ of t that is scans.
        work: w, from `scan_work`.

    Raises:
        TypeError, ValueError: when tokens or ranks is not an integer >= 1, token_seconds or work
            not finite and > 0, exchange not finite and >= 0, or scan_share not in [0, 1].

    Example:
        >>> from assocmem.distributed import split_seconds
        >>> cost = dict(token_seconds=1e-6, exchange=1e-3, scan_share=0.25, work=3.0)
        >>> [round(split_seconds(8192, R, **cost) * 1e3, 2) for R in (1, 2, 4, 8)]  # milliseconds
        [8.19, 7.14, 4.07, 2.54]
    """
    check_counts(tokens=tokens, ranks=ranks)
    check_times(token_seconds, exchange, scan_share, work)
    if ranks == 1:
        return tokens * token_seconds
    return tokens / ranks * token_seconds * (1 + scan_share * (work - 1)) + exchange


def break_even(
    ranks: int, *, token_seconds: float, exchange: float, scan_share: float, work: float
) -> float:
    """The length T from which R ranks are faster than one: e / (t (1 − (1 + σ (w − 1)) / R)).

    It is infinite where R ranks do more work than R times that of one. A sequence that no single
    rank holds is split however long that takes.

    Args:
        ranks: number of ranks R, 2 or more.
        token_seconds: time t that a token takes on one rank.
        exchange: time e of all exchanges, from `Link.seconds`.
        scan_share: the part σ of t that is scans.
        work: w, from `scan_work`.

    Raises:
        TypeError, ValueError: when ranks is not an integer >= 2, token_seconds or work not finite
            and > 0, exchange not finite and >= 0, or scan_share not in [0, 1].

    Example:
        >>> from assocmem.distributed import break_even
        >>> cost = dict(token_seconds=1e-6, exchange=1e-3, scan_share=0.25, work=3.0)
        >>> [round(break_even(R, **cost)) for R in (2, 4, 8)]
        [4000, 1600, 1231]
    """
    check_count("ranks", ranks, at_least=2)
    check_times(token_seconds, exchange, scan_share, work)
    saved = 1 - (1 + scan_share * (work - 1)) / ranks
    return exchange / (token_seconds * saved) if saved > 0 else float("inf")


def check_times(token_seconds: float, exchange: float, scan_share: float, work: float) -> None:
    """Raise unless the time and the work of a token are above 0, that of exchanges is not below,
    and the part of scans lies in [0, 1].
    """
    check_positive("token_seconds", token_seconds)
    check_not_negative("exchange", exchange)
    check_fraction("scan_share", scan_share)
    check_positive("work", work)


def check_not_negative(name: str, value: float) -> None:
    """Raise unless `value` is a finite number of at least 0."""
    check_number(name, value)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
