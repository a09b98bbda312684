"""Protobuf's wire format, as far as ONNX files need it: read without copying, and written."""

from __future__ import annotations

from collections.abc import Iterator

Value = int | memoryview

MAX_TAG = 2**32 - 1
"""Protobuf's own readers drop what is above: to them such a tag is another field than to one who does not."""


class NotOnnx(ValueError):
    """The bytes are not an ONNX model, or one that a service does not load."""


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Field numbers and values of a protobuf message: int for varints, bytes for everything else."""
    at, end = 0, len(data)
    while at < end:
        tag, at = varint(data, at)
        if tag > MAX_TAG:
            raise NotOnnx(f"found a tag of more than 32 bits before byte {at}, wanted an ONNX model")
        wire = tag & 7
        if wire == 0:
            value, at = varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise NotOnnx(f"found wire type {wire} at byte {at}, wanted an ONNX model")
        if size > end - at:
            raise NotOnnx("found a file cut short or no ONNX model, wanted a whole ONNX model")
        yield tag >> 3, data[at : at + size]
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The integer at `at` and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise NotOnnx("found a file cut short or no ONNX model, wanted a whole ONNX model")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise NotOnnx(f"found no varint at byte {at}, wanted an ONNX model")


def integers(value: Value) -> list[int]:
    """The signed integers of a repeated field: one, or packed ones."""
    found: list[int] = []
    at = 0
    if isinstance(value, int):
        found.append(value)
    else:
        while at < len(value):
            whole, at = varint(value, at)
            found.append(whole)
    return [whole - (1 << 64) if whole >> 63 else whole for whole in found]


def message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise NotOnnx("found a number where a message is due, wanted an ONNX model")
    return value


def decoded(value: Value) -> str:
    return bytes(message(value)).decode("utf-8", "replace")


def text_field(data: Value, number: int) -> str:
    """Text field `number` of a message; empty where it has none."""
    return next((decoded(v) for n, v in fields(message(data)) if n == number), "")


def written_varint(value: int) -> bytes:
    """`value` >= 0 in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def written(number: int, value: int | str | bytes | memoryview) -> bytes:
    """One field of a message: a varint, or anything that has a length."""
    if isinstance(value, int):
        return written_varint(number << 3) + written_varint(value)
    data = value.encode() if isinstance(value, str) else bytes(value)
    return written_varint(number << 3 | 2) + written_varint(len(data)) + data
