"""The second look's inner loops: a layer on long rows, its sums in registers, and means of rows.

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

from anystar_batch.kernel_cache import compiled

STRIP = 32
"""Columns of a strip: rows have a multiple of them."""

OUTPUTS = 4
"""Outputs of a strip: a layer has a multiple of them."""

EIGHT = 8
"""Rows and columns of a square that is turned at once, and terms of a mean that go together."""


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
        place = _address(builder, self._rows, builder.add(first, m), column)
        seen = builder.load(builder.bitcast(place, vector.as_pointer()), align=4)
        added = []
        for j, total in zip(outputs, sums, strict=True):
            factor = builder.load(_address(builder, self._kernel, builder.add(o, j), m))
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
            place = _address(builder, self._out, builder.add(at, j), column)
            answer = builder.select(builder.fcmp_ordered("<", one, zeros), zeros, one)
            builder.store(answer, builder.bitcast(place, vector.as_pointer()), align=4)

    def _all(self, value: Any, width: int) -> Any:  # noqa: ANN401
        """A vector of one value."""
        builder, vector = self._builder, ir.VectorType(ir.FloatType(), width)
        nothing = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        return builder.shuffle_vector(one, nothing, zeros)


def turn_as_loop(  # noqa: PLR0913
    rows: NDArray[np.float32],
    first: int,
    step: int,
    column: int,
    out: NDArray[np.float32],
    at: int,
    out_step: int,
    out_column: int,
) -> None:
    """Write a square of `EIGHT` by `EIGHT` with rows for columns.

    Parameters
    ----------
    rows : float32 [., .]
        Row i of the square lies in row `first + i * step`, from `column` on.
    first, step, column : int
    out : float32 [., .]
        Written: row j of the turned square lies in row `at + j * out_step`, from `out_column` on.
    at, out_step, out_column : int
    """
    for i in range(EIGHT):
        for j in range(EIGHT):
            out[at + j * out_step, out_column + i] = rows[first + i * step, column + j]


def mean_of_six_as_loop(
    rows: NDArray[np.float32],
    six: NDArray[np.int64],
    which: int,
    column: int,
    out: NDArray[np.float32],
) -> None:
    """Write `EIGHT` columns of a row of `out`: means of six rows, summed three and three.

    Parameters
    ----------
    rows : float32 [., .]
    six : int64 [., 6]
        Numbers of rows.
    which : int
        Row of `six`, and of `out`.
    column : int
    out : float32 [., .]
        Another array than `rows`.
    """
    sixth = np.float32(1.0 / 6.0)
    for k in range(column, column + EIGHT):
        half = (rows[six[which, 0], k] + rows[six[which, 1], k]) + rows[six[which, 2], k]
        other = (rows[six[which, 3], k] + rows[six[which, 4], k]) + rows[six[which, 5], k]
        out[which, k] = (half + other) * sixth


@intrinsic
def _turn_in_registers(  # noqa: PLR0913
    _context: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    first: Any,  # noqa: ANN401, ARG001
    step: Any,  # noqa: ANN401, ARG001
    column: Any,  # noqa: ANN401, ARG001
    out: Any,  # noqa: ANN401
    at: Any,  # noqa: ANN401, ARG001
    out_step: Any,  # noqa: ANN401, ARG001
    out_column: Any,  # noqa: ANN401, ARG001
) -> Any:  # noqa: ANN401
    """As `turn_as_loop`; arrays of float32 without gaps."""
    if any(not isinstance(one, types.Array) or one.layout != "C" for one in (rows, out)):
        return None
    number = types.intp
    signature = types.void(rows, number, number, number, out, number, number, number)

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        source, target = (
            context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 4)
        )
        _, first, step, column, _, at, out_step, out_column = arguments
        vector = ir.VectorType(ir.FloatType(), EIGHT)
        lines = []
        for i in range(EIGHT):
            row = builder.add(first, builder.mul(step, ir.Constant(step.type, i)))
            place = _address(builder, source, row, column)
            lines.append(builder.load(builder.bitcast(place, vector.as_pointer()), align=4))
        # Thrice two lines become two: first pairs of numbers, then of pairs, then of fours.
        for reach in (1, 2, 4):
            turned = list(lines)
            for i in range(EIGHT):
                if i & reach == 0:
                    low, high = _woven(reach)
                    a, b = lines[i], lines[i + reach]
                    turned[i] = builder.shuffle_vector(a, b, low)
                    turned[i + reach] = builder.shuffle_vector(a, b, high)
            lines = turned
        for j, line in enumerate(lines):
            row = builder.add(at, builder.mul(out_step, ir.Constant(step.type, j)))
            place = _address(builder, target, row, out_column)
            builder.store(line, builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generated


def _woven(reach: int) -> tuple[Any, Any]:
    """Masks that swap the upper half of each group of one line with the lower of the other's."""
    kind = ir.VectorType(ir.IntType(32), EIGHT)
    low = [c if c & reach == 0 else EIGHT + c - reach for c in range(EIGHT)]
    high = [c + reach if c & reach == 0 else EIGHT + c for c in range(EIGHT)]
    return ir.Constant(kind, low), ir.Constant(kind, high)


@intrinsic
def _mean_of_six_in_registers(
    _context: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    six: Any,  # noqa: ANN401
    which: Any,  # noqa: ANN401, ARG001
    column: Any,  # noqa: ANN401, ARG001
    out: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """As `mean_of_six_as_loop`; arrays without gaps."""
    if any(not isinstance(one, types.Array) or one.layout != "C" for one in (rows, six, out)):
        return None
    number = types.intp
    signature = types.void(rows, six, number, number, out)

    def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        source, names, target = (
            context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 1, 4)
        )
        _, _, which, column, _ = arguments
        vector = ir.VectorType(ir.FloatType(), EIGHT)
        terms = []
        for k in range(6):
            row = builder.load(_address(builder, names, which, ir.Constant(column.type, k)))
            place = _address(builder, source, row, column)
            terms.append(builder.load(builder.bitcast(place, vector.as_pointer()), align=4))
        half = builder.fadd(builder.fadd(terms[0], terms[1]), terms[2])
        other = builder.fadd(builder.fadd(terms[3], terms[4]), terms[5])
        sixth = ir.Constant(vector, [float(np.float32(1.0 / 6.0))] * EIGHT)
        mean = builder.fmul(builder.fadd(half, other), sixth)
        place = _address(builder, target, which, column)
        builder.store(mean, builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generated


def _address(builder: Any, array: Any, row: Any, column: Any) -> Any:  # noqa: ANN401
    """Where an element of a matrix lies."""
    columns = builder.extract_value(array.shape, 1)
    return builder.gep(array.data, [builder.add(builder.mul(row, columns), column)])


_is_disabled = bool(getattr(config, "DISABLE_JIT", 0))
layer_strip: Any = layer_strip_as_loop if _is_disabled else _layer_strip_in_registers
"""For kernels: as `layer_strip_as_loop`."""

turn: Any = turn_as_loop if _is_disabled else _turn_in_registers
"""For kernels: as `turn_as_loop`."""

mean_of_six: Any = mean_of_six_as_loop if _is_disabled else _mean_of_six_in_registers
"""For kernels: as `mean_of_six_as_loop`."""


@compiled(error_model="numpy", _nrt=False)
def turn_rows(  # noqa: PLR0913
    rows: NDArray[np.float32],
    first: int,
    step: int,
    n_rows: int,
    out: NDArray[np.float32],
    at: int,
    out_step: int,
    n_columns: int,
) -> None:
    """Write rows as columns: out[at + j * out_step, i] = rows[first + i * step, j].

    Parameters
    ----------
    rows : float32 [., .]
    first, step, n_rows : int
        Which rows.
    out : float32 [., .]
        Written.
    at, out_step, n_columns : int
        To which rows of `out`, as many as columns that are read.
    """
    # Squares are turned in registers, what is left one by one.
    whole_rows, whole_columns = n_rows - n_rows % EIGHT, n_columns - n_columns % EIGHT
    for i in range(0, whole_rows, EIGHT):
        for j in range(0, whole_columns, EIGHT):
            turn(rows, first + i * step, step, j, out, at + j * out_step, out_step, i)
    for i in range(n_rows):
        for j in range(whole_columns if i < whole_rows else 0, n_columns):
            out[at + j * out_step, i] = rows[first + i * step, j]
