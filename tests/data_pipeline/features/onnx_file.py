"""ONNX files of small networks, written field by field (onnx.proto3), for want of the package."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FLOAT, INT64 = 1, 7
"""Of `TensorProto.DataType`."""


def write_yunet(
    box: Sequence[float], points: Sequence[float], scores: Sequence[str] = ("cls", "obj")
) -> bytes:
    """A network of YuNet's form to which a cell of 16 x 16 pixels is a face if it is white.

    Args:
        box: of each face: its centre's x and y in cells from the cell's corner, and the logarithm
            of its width and height in cells.
        points: x and y of its five points, in cells from the cell's corner.
        scores: their names, `cls` and `obj` to OpenCV.
    """
    nodes, weights, names = [], {}, []
    for stride in (8, 16, 32):
        sides, mean = [stride, stride], f"mean_{stride}"
        nodes.append(_node("AveragePool", ["input"], mean, kernel_shape=sides, strides=sides))
        white = np.full((1, 3, 1, 1), (stride == 16) / (255 * 3))
        for kind, bias in (
            *((name, [0.0]) for name in scores),
            ("bbox", list(box)),
            ("kps", list(points)),
        ):
            name, count = f"{kind}_{stride}", len(bias)
            names.append(name)
            weights[f"{name}.weight"] = white if count == 1 else np.zeros((count, 3, 1, 1))
            weights[f"{name}.bias"] = np.array(bias)
            weights[f"{name}.shape"] = np.array([1, -1, count])
            inputs = [mean, f"{name}.weight", f"{name}.bias"]
            nodes += [
                _node("Conv", inputs, f"{name}.map", kernel_shape=[1, 1]),
                _node("Transpose", [f"{name}.map"], f"{name}.last", perm=[0, 2, 3, 1]),
                _node("Reshape", [f"{name}.last", f"{name}.shape"], name),
            ]
    return _model(nodes, weights, sorted(names))


def _model(
    nodes: Iterable[bytes], weights: Mapping[str, NDArray[np.generic]], names: Sequence[str]
) -> bytes:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"small")
    graph += b"".join(_field(5, _tensor(name, one)) for name, one in weights.items())
    graph += _field(11, _value("input", [1, 3, 32, 32]))
    graph += b"".join(_field(12, _value(name, [])) for name in names)
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 13))


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Sequence[int]) -> bytes:
    content = b"".join(_field(1, one.encode()) for one in inputs)
    content += _field(2, output.encode()) + _field(3, output.encode()) + _field(4, kind.encode())
    for name, numbers in attributes.items():
        values = b"".join(_field(8, number) for number in numbers)
        content += _field(5, _field(1, name.encode()) + values + _field(20, 7))  # INTS
    return content


def _tensor(name: str, values: NDArray[np.generic]) -> bytes:
    whole = np.issubdtype(values.dtype, np.integer)
    raw = values.astype(np.int64 if whole else np.float32).tobytes()
    sizes = b"".join(_field(1, side) for side in values.shape)
    return sizes + _field(2, INT64 if whole else FLOAT) + _field(8, name.encode()) + _field(9, raw)


def _value(name: str, sides: Sequence[int]) -> bytes:
    shape = b"".join(_field(1, _field(1, side)) for side in sides)
    kind = _field(1, FLOAT) + _field(2, shape)
    return _field(1, name.encode()) + _field(2, _field(1, kind))


def _field(number: int, value: int | bytes) -> bytes:
    """A field of protobuf: a number, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
