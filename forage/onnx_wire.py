"""The few messages of the ONNX file format that one graph needs, read and written by hand.

ONNX files are protocol buffers (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). The `onnx`
package would add 0.4 s and 35 MB to the start of every process that encodes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

_TYPES: dict[int, np.dtype[np.generic]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    7: np.dtype("<i8"),
}
_CODES = {dtype: code for code, dtype in _TYPES.items()}
FLOAT, INT32, INT64 = 1, 6, 7
"""Element types, as `Cast` and graph inputs name them."""
_IR_VERSION = 8
_OPSETS = {"": 17, "com.microsoft": 1}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_tensors(model: memoryview) -> dict[str, Array]:
    """Return a model's constant tensors by name, in file order and without copying them.

    Tensors of types other than float32, uint8, int8 and int64, and those not stored as raw bytes,
    are left out. Raises `ValueError` or `IndexError` if the bytes are no protocol buffer.
    """
    found: dict[str, Array] = {}
    for number, graph in _fields(model):
        if number == 7 and isinstance(graph, memoryview):
            for part, tensor in _fields(graph):
                if part == 5 and isinstance(tensor, memoryview):
                    name, array = _read_tensor(tensor)
                    if array is not None:
                        found[name] = array
    return found


def tensor(name: str, array: Array) -> bytes:
    """Return a `TensorProto` with the array's values."""
    dims = b"".join(_field(1, size) for size in array.shape)
    code = _field(2, _CODES[array.dtype])
    return dims + code + _field(8, name) + _field(9, np.ascontiguousarray(array).tobytes())


def external_tensor(name: str, array: Array) -> bytes:
    """Return a `TensorProto` whose values the session options hold."""
    dims = b"".join(_field(1, size) for size in array.shape)
    location = _field(1, "location") + _field(2, name)
    code = _field(2, _CODES[array.dtype])
    return dims + code + _field(8, name) + _field(13, location) + _field(14, 1)


def node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Mapping[str, int | float | Sequence[int]],
    domain: str = "",
) -> bytes:
    """Return a `NodeProto`."""
    parts = [_field(1, name) for name in inputs] + [_field(2, name) for name in outputs]
    parts += [_field(3, outputs[0]), _field(4, op), _field(7, domain)]
    for name, value in attributes.items():
        if isinstance(value, float):
            content = _field(2, value) + _field(20, 1)
        elif isinstance(value, int):
            content = _field(3, value) + _field(20, 2)
        else:
            content = b"".join(_field(8, v) for v in value) + _field(20, 7)
        parts.append(_field(5, _field(1, name) + content))
    return b"".join(parts)


def model(
    nodes: Sequence[bytes],
    tensors: Sequence[bytes],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str]]],
) -> bytes:
    """Return a `ModelProto`; inputs and outputs are (element type, shape) by name."""
    graph = [_field(1, content) for content in nodes] + [_field(2, "forage")]
    graph += [_field(5, content) for content in tensors]
    graph += [_field(11, _value(name, *kind)) for name, kind in inputs.items()]
    graph += [_field(12, _value(name, *kind)) for name, kind in outputs.items()]
    opsets = [_field(8, _field(1, name) + _field(2, v)) for name, v in _OPSETS.items()]
    return _field(1, _IR_VERSION) + b"".join(opsets) + _field(7, b"".join(graph))


def _value(name: str, element: int, shape: Sequence[int | str]) -> bytes:
    sizes = (_field(1 if isinstance(size, int) else 2, size) for size in shape)
    dims = b"".join(_field(1, size) for size in sizes)
    kind = _field(1, _field(1, element) + _field(2, dims))
    return _field(1, name) + _field(2, kind)


def _read_tensor(message: memoryview) -> tuple[str, Array | None]:
    shape: list[int] = []
    name, code, raw = "", 0, None
    for number, value in _fields(message):
        if number == 1 and isinstance(value, memoryview):
            shape += _packed(value)
        elif number == 1 and isinstance(value, int):
            shape.append(value)
        elif number == 2 and isinstance(value, int):
            code = value
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == 9 and isinstance(value, memoryview):
            raw = value
    if raw is None or code not in _TYPES:
        return name, None
    return name, np.frombuffer(raw, _TYPES[code]).reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield a message's fields as (number, integer or bytes); fixed-width ones as bytes."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"a field of {size} bytes ends after the message at byte {at}")
        yield key >> 3, message[at : at + size]
        at += size


def _packed(message: memoryview) -> list[int]:
    values: list[int] = []
    at = 0
    while at < len(message):
        value, at = _read_varint(message, at)
        values.append(value)
    return values


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7


def _field(number: int, value: float | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | _FIXED32) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)
