"""MiniLM as a graph that multiplies in eight bits, made from the packaged file when it is loaded.

The packaged model stores int8 weights and multiplies them out to float32 to run. This graph keeps
them: each token's activations are scaled by their own largest magnitude to eight bits, multiplied
by the int8 weights into 32-bit integers, and scaled back. The weights are exactly those of the
file, and a token's vector depends on no other token's scale, so batches change nothing.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from forage import onnx_wire
from forage.onnx_wire import Array

LAYERS, HEADS, WIDTH = 6, 12, 384
_EPSILON = 1e-12
_MICROSOFT = "com.microsoft"
_ZERO, _LARGEST = 128, 127.0


class Graph:
    """The graph, and the large tensors that it takes from the mapped file instead of a copy."""

    def __init__(self, path: Path) -> None:
        """Read MiniLM as packaged, whose file's hash the caller has checked."""
        with path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        builder = _Builder(onnx_wire.read_tensors(memoryview(self._mapped)))
        self.model = builder.build()
        """The ONNX model: token ids and mask, [batch, tokens], to hidden states."""
        self.external = builder.external
        """What the session must be given besides, by name; to be kept as long as the session."""

    def release(self) -> None:
        """Drop the file's pages that are in memory; those needed again come back by themselves."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


class _Builder:
    """Writes nodes in order; every method returns the name of the tensor that it computes."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights
        # The exporter named the matrices by number only, in the order of their use.
        self._matrices = [
            name.removesuffix("_q")
            for name in weights
            if name.endswith("_q") and not name.startswith("inner.")
        ]
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []
        self.external: dict[str, Array] = {}

    def build(self) -> bytes:
        """Return the whole model."""
        self._constant("one", np.array(1, np.float32))
        self._constant("largest", np.array(_LARGEST, np.float32))
        self._constant("zero", np.array(_ZERO, np.uint8))
        hidden = self._embeddings()
        self._node("Cast", ["attention_mask"], "mask", to=onnx_wire.INT32)
        for layer in range(LAYERS):
            hidden = self._layer(layer, hidden)
        text = (onnx_wire.INT64, ["batch", "tokens"])
        return onnx_wire.model(
            self._nodes,
            self._tensors,
            {"input_ids": text, "attention_mask": text},
            {hidden: (onnx_wire.FLOAT, ["batch", "tokens", WIDTH])},
        )

    def _embeddings(self) -> str:
        prefix = "inner.embeddings."
        positions = self._weights[prefix + "position_embeddings.weight_q"].astype(np.float32)
        positions *= self._float(prefix + "position_embeddings.weight_scale")
        # A single text, never a pair: every token is of type 0.
        positions += self._float(prefix + "token_type_embeddings.weight")[0]
        table = self._mapped(prefix + "word_embeddings.weight_q")
        scales = self._constant("scales", self._float(prefix + "word_embeddings.weight_scale"))
        found = self._node("Gather", [table, "input_ids"], "word_integers")
        found = self._node("Cast", [found], "word_floats", to=onnx_wire.FLOAT)
        scale = self._node("Gather", [scales, "input_ids"], "word_scales")
        found = self._node("Mul", [found, scale], "word_vectors")
        start = self._constant("start", np.zeros(1, np.int64))
        end = self._node("Shape", ["input_ids"], "end", start=1, end=2)
        table = self._constant("positions", positions)
        placed = self._node("Slice", [table, start, end], "placed")
        found = self._node("Add", [found, placed], "embedded")
        return self._normalized(found, prefix + "LayerNorm")

    def _layer(self, layer: int, hidden: str) -> str:
        name = f"inner.encoder.layer.{layer}."
        query, key, value, out, wide, narrow = self._matrices[6 * layer : 6 * layer + 6]
        parts = [name + part for part in ("query", "key", "value")]
        joined = self._product(hidden, [query, key, value], name + "joined")
        self._nodes.append(onnx_wire.node("Split", [joined], parts, {"axis": -1}))
        biases = [self._float(f"{name}attention.self.{p}.bias") for p in ("query", "key", "value")]
        bias = self._constant(name + "biases", np.concatenate(biases))
        attended = self._node(
            "MultiHeadAttention",
            [*parts, bias, "mask"],
            name + "attended",
            domain=_MICROSOFT,
            num_heads=HEADS,
        )
        attended = self._product(attended, [out], name + "out")
        hidden = self._residual(attended, hidden, name + "attention.output.")
        inner = self._product(hidden, [wide], name + "wide")
        bias = self._copied(name + "intermediate.dense.bias")
        inner = self._node("BiasGelu", [inner, bias], name + "gelu", domain=_MICROSOFT)
        inner = self._product(inner, [narrow], name + "narrow")
        return self._residual(inner, hidden, name + "output.")

    def _product(self, given: str, matrices: list[str], name: str) -> str:
        """Multiply by matrices side by side, in integers, with one scale per token and column."""
        scales = np.concatenate([self._float(m + "_scale").ravel() for m in matrices])
        if len(matrices) == 1:
            weights = self._mapped(matrices[0] + "_q")
        else:
            joined = np.concatenate([self._weights[m + "_q"] for m in matrices], axis=1)
            weights = self._constant(name + ".integers", joined)
        columns = self._constant(name + ".scales", scales / np.float32(_LARGEST))
        # No token's activations are all zero: a bias went into every one of them.
        size = self._node("Abs", [given], name + ".sizes")
        size = self._node("ReduceMax", [size], name + ".size", axes=[-1], keepdims=1)
        scale = self._node("Div", ["largest", size], name + ".scale")
        scaled = self._node("Mul", [given, scale], name + ".scaled")
        bytes_ = self._node("QuantizeLinear", [scaled, "one", "zero"], name + ".bytes")
        product = self._node(
            "MatMulIntegerToFloat",
            [bytes_, weights, "one", columns, "zero"],
            name + ".product",
            domain=_MICROSOFT,
        )
        return self._node("Mul", [product, size], name)

    def _residual(self, change: str, hidden: str, prefix: str) -> str:
        # ONNX Runtime's fused SkipLayerNormalization takes twice as long as these three.
        change = self._node("Add", [change, self._copied(prefix + "dense.bias")], prefix + "biased")
        total = self._node("Add", [change, hidden], prefix + "total")
        return self._normalized(total, prefix + "LayerNorm")

    def _normalized(self, given: str, prefix: str) -> str:
        factors = [self._copied(prefix + ".weight"), self._copied(prefix + ".bias")]
        return self._node(
            "LayerNormalization", [given, *factors], prefix, axis=-1, epsilon=_EPSILON
        )

    def _float(self, name: str) -> npt.NDArray[np.float32]:
        return self._weights[name].astype(np.float32)

    def _mapped(self, name: str) -> str:
        self.external[name] = self._weights[name]
        self._tensors.append(onnx_wire.external_tensor(name, self._weights[name]))
        return name

    def _copied(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _constant(self, name: str, array: Array) -> str:
        self._tensors.append(onnx_wire.tensor(name, array))
        return name

    def _node(
        self,
        op: str,
        inputs: list[str],
        output: str,
        *,
        domain: str = "",
        **attributes: int | float | list[int],
    ) -> str:
        self._nodes.append(onnx_wire.node(op, inputs, [output], attributes, domain))
        return output
