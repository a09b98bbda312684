"""A set of KEY_BITS-bit keys as a file, in the order and nearly the size that the set needs at least (Elias-Fano).

A key is cut into a high part of about log2(n) bits and a low part, the rest. For n sorted keys the file holds

    n, 4 bytes, little-endian | n low parts of `low` bits each | bits, a one for each key | zeros up to a byte

The low parts are as random as digests are and stand as they are. Of the high parts, which only rise, each key i sets
the bit number (its high part + i): between the ones a zero for each step of the high part. Keys of 3 bits, two of them
low:

    keys    001 011 110      low parts   01 11 10
    high      0   0   1      bits         1  1  0  1  0      (0 + 0, 0 + 1, 1 + 2)

Source: P. Elias, Efficient storage and retrieval by content and address of static files, J. ACM 21 (1974).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]  # of ones and zeros

# A false match leaves out a clip that was not learnt from. A foreign digest meets one of n keys with a chance of
# n / 2**40: 6.6e-8 for the 72,839 keys of all shipped models. A clip is looked up by three digests, so 0.2 % of the
# evaluations of 10,000 foreign clips leave out one of them.
KEY_BITS = 40
_COUNT_BYTES = 4


def key_of(digest: str) -> int:
    """The key of a digest in hexadecimal: its first KEY_BITS bits."""
    return int(digest[: KEY_BITS // 4], 16)


def pack_keys(keys: Iterable[int]) -> bytes:
    """The file of these keys in [0, 2**KEY_BITS), whatever their order; the same set gives the same bytes."""
    values = np.array(sorted(set(keys)), np.uint64)
    n, low = len(values), _low_bits(len(values))
    highs = np.zeros(_n_high_bits(n, low), np.uint8)
    highs[(values >> np.uint64(low)).astype(np.int64) + np.arange(n)] = 1
    bits = np.unpackbits(values.astype(">u8").view(np.uint8).reshape(n, 8), axis=1)  # (n, 64), the highest bit first
    return (
        n.to_bytes(_COUNT_BYTES, "little") + np.packbits(np.concatenate([bits[:, 64 - low :].ravel(), highs])).tobytes()
    )


def unpack_keys(content: bytes) -> Collection[int]:
    """The keys of a file that `pack_keys` made, ascending. Raises ValueError where it cannot have."""
    n = int.from_bytes(content[:_COUNT_BYTES], "little")
    low = _low_bits(n)
    n_low = n * low
    wanted = _COUNT_BYTES + -(-(n_low + _n_high_bits(n, low)) // 8)
    if len(content) != wanted:
        raise ValueError(f"found {len(content)} bytes, wanted {wanted} for {n} keys")
    bits = np.unpackbits(np.frombuffer(content, np.uint8, offset=_COUNT_BYTES))
    ones = np.flatnonzero(bits[n_low:])
    if len(ones) != n:
        raise ValueError(f"found {len(ones)} keys, wanted {n}")
    padded = np.zeros((n, 64), np.uint8)
    padded[:, 64 - low :] = bits[:n_low].reshape(n, low)
    lows = np.packbits(padded, axis=1).view(">u8").ravel().astype(np.int64)
    values: list[int] = ((ones - np.arange(n) << low) | lows).tolist()
    return values


def _low_bits(n: int) -> int:
    """Bits of a low part: what the high part, as long as n itself, leaves of KEY_BITS."""
    return KEY_BITS - n.bit_length()


def _n_high_bits(n: int, low: int) -> int:
    """A one for each key, and a zero for each value that a high part can have."""
    return n + (1 << KEY_BITS - low)
