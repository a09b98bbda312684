"""Files of keys: every set comes back, in nearly the least space, and what none of ours is refused."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_models.data.key_file import KEY_BITS, key_of, pack_keys, unpack_keys

KEYS = st.integers(0, 2**KEY_BITS - 1)


@given(st.sets(KEYS | st.integers(0, 20) | st.integers(2**KEY_BITS - 20, 2**KEY_BITS - 1)))
def test_every_set_comes_back(keys: set[int]) -> None:
    assert unpack_keys(pack_keys(keys)) == sorted(keys)


def test_neither_order_nor_repetition_changes_the_file() -> None:
    assert pack_keys([5, 3, 5]) == pack_keys([3, 5])


@pytest.mark.parametrize("n", [1000, 13_000])
def test_a_file_takes_at_most_six_tenths_of_a_bit_a_key_more_than_it_must(n: int) -> None:
    keys = random.Random(n).sample(range(2**KEY_BITS), n)
    least = math.log2(math.comb(2**KEY_BITS, n))
    assert 8 * len(pack_keys(keys)) < least + 0.6 * n


def test_a_key_is_the_beginning_of_a_digest() -> None:
    assert key_of("0123456789abcdef") == 0x0123456789


@given(st.sets(KEYS, min_size=1, max_size=9), st.data())
def test_a_file_of_another_length_or_count_is_refused(keys: set[int], data: st.DataObject) -> None:
    content = pack_keys(keys)
    cut = data.draw(st.integers(0, len(content) - 1))
    for odd in (content[:cut], content + b"\0", content[:-1] + bytes([content[-1] ^ 1])):
        with pytest.raises(ValueError, match=r"found \d+ (bytes|keys), wanted"):
            unpack_keys(odd)
