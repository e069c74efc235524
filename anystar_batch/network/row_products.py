"""A layer on long rows, its sums kept in registers: the second look's inner loop.

A loop in plain numba loads and stores every sum once for each few terms, and checks each time that
rows do not overlap. Here the instructions of one strip are written out (LLVM, through numba's
`intrinsic`): `OUTPUTS` outputs of `STRIP` columns are held while all terms pass by, then stored.
Every column has its own sum, terms in order, each product and each sum rounded: the bits are those
of `layer_strip_as_loop`, on any processor. How many columns go at once is the processor's affair.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import config, types
from numba.extending import intrinsic
from numpy.typing import NDArray

STRIP = 32
"""Columns of a strip: rows have a multiple of them."""

OUTPUTS = 4
"""Outputs of a strip: a layer has a multiple of them."""


def layer_strip_as_loop(  # noqa: PLR0913
    rows: NDArray[np.float32],
    first: int,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
    o: int,
    out: NDArray[np.float32],
    at: int,
    column: int,
) -> None:
    """Fill a strip of `OUTPUTS` rows of `out`: bias, and what a matrix makes of a strip of rows.

    Parameters
    ----------
    rows : float32 [., columns]
        The first input is row `first`.
    first : int
    kernel : float32 [outputs, inputs]
    bias : float32 [outputs]
    o : int
        First output of the strip.
    out : float32 [., columns]
        Written from row `at` on; negative sums become 0.
    at : int
    column : int
        First column of the strip.
    """
    zero = np.float32(0.0)
    for j in range(OUTPUTS):
        for c in range(column, column + STRIP):
            total = bias[o + j]
            for m in range(kernel.shape[1]):
                total += kernel[o + j, m] * rows[first + m, c]
            out[at + j, c] = max(total, zero)


@intrinsic
def _layer_strip_in_registers(  # noqa: PLR0913
    _context: Any,  # noqa: ANN401  (numba has no types)
    rows: Any,  # noqa: ANN401
    first: Any,  # noqa: ANN401, ARG001
    kernel: Any,  # noqa: ANN401
    bias: Any,  # noqa: ANN401
    o: Any,  # noqa: ANN401, ARG001
    out: Any,  # noqa: ANN401
    at: Any,  # noqa: ANN401, ARG001
    column: Any,  # noqa: ANN401, ARG001
) -> Any:  # noqa: ANN401
    """As `layer_strip_as_loop`; arrays of float32 without gaps."""
    matrices = (rows, kernel, out)
    if any(not isinstance(one, types.Array) or one.layout != "C" for one in (*matrices, bias)):
        return None
    number = types.intp
    signature = types.void(rows, number, kernel, bias, number, out, number, number)

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        arrays = [
            context.make_array(signature.args[k])(context, builder, arguments[k])
            for k in (0, 2, 3, 5)
        ]
        strip = _Strip(builder, *arrays)
        _, first, _, _, o, _, at, column = arguments
        # As many sums as there are registers for: 16 of eight values, or 32 of sixteen.
        is_wide = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
        width = STRIP if is_wide else STRIP // 2
        for part in range(0, STRIP, width):
            strip.fill(first, o, at, builder.add(column, ir.Constant(column.type, part)), width)
        return context.get_dummy_value()

    return signature, generated


class _Strip:
    """Writes a strip's instructions; rows, kernel, bias and out are numba's arrays."""

    def __init__(self, builder: Any, rows: Any, kernel: Any, bias: Any, out: Any) -> None:  # noqa: ANN401
        self._builder = builder
        self._rows, self._kernel, self._bias, self._out = rows, kernel, bias, out
        self._terms = builder.extract_value(kernel.shape, 1)

    def fill(self, first: Any, o: Any, at: Any, column: Any, width: int) -> None:  # noqa: ANN401
        """Begin with the bias, add all terms in order, store what is not negative."""
        builder, vector = self._builder, ir.VectorType(ir.FloatType(), width)
        number = first.type
        outputs = [ir.Constant(number, j) for j in range(OUTPUTS)]
        begun = [
            self._all(builder.load(builder.gep(self._bias.data, [builder.add(o, j)])), width)
            for j in outputs
        ]
        before = builder.block
        loop, after = builder.append_basic_block("terms"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        m, sums = builder.phi(number), [builder.phi(vector) for _ in outputs]
        place = self._address(self._rows, builder.add(first, m), column)
        seen = builder.load(builder.bitcast(place, vector.as_pointer()), align=4)
        added = []
        for j, total in zip(outputs, sums, strict=True):
            factor = builder.load(self._address(self._kernel, builder.add(o, j), m))
            added.append(builder.fadd(total, builder.fmul(self._all(factor, width), seen)))
        following = builder.add(m, ir.Constant(number, 1))
        m.add_incoming(ir.Constant(number, 0), before)
        m.add_incoming(following, loop)
        for total, start, one in zip(sums, begun, added, strict=True):
            total.add_incoming(start, before)
            total.add_incoming(one, loop)
        builder.cbranch(builder.icmp_signed("<", following, self._terms), loop, after)
        builder.position_at_end(after)
        zeros = ir.Constant(vector, [0.0] * width)
        for j, one in zip(outputs, added, strict=True):
            place = self._address(self._out, builder.add(at, j), column)
            answer = builder.select(builder.fcmp_ordered("<", one, zeros), zeros, one)
            builder.store(answer, builder.bitcast(place, vector.as_pointer()), align=4)

    def _address(self, array: Any, row: Any, column: Any) -> Any:  # noqa: ANN401
        """Where an element lies."""
        builder = self._builder
        columns = builder.extract_value(array.shape, 1)
        return builder.gep(array.data, [builder.add(builder.mul(row, columns), column)])

    def _all(self, value: Any, width: int) -> Any:  # noqa: ANN401
        """A vector of one value."""
        builder, vector = self._builder, ir.VectorType(ir.FloatType(), width)
        nothing = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        return builder.shuffle_vector(one, nothing, zeros)


_is_disabled = bool(getattr(config, "DISABLE_JIT", 0))
layer_strip: Any = layer_strip_as_loop if _is_disabled else _layer_strip_in_registers
"""For kernels: as `layer_strip_as_loop`."""
