"""TensorFlow's own library without its Python: graphs run through its C interface.

Loading the library takes a quarter of a CPU second, `import tensorflow` four to eight of them. The
interface is the one that TensorFlow keeps stable for other languages; it is called with ctypes, and
nothing is compiled here. What crosses are arrays: bfloat16, which NumPy does not have, as uint16.

Whatever is missing (the library, a symbol of it, an operation that a graph asks for) is one error,
`GraphError`: who asks goes on with Keras.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.network.imports import stable_kernels

FRAMEWORK, WHOLE = "libtensorflow_framework", "libtensorflow_cc"
"""The library's two files, of which the second needs the first."""

ENDINGS = (".so.2", ".2.dylib", ".so", ".dylib")
"""How they end: by their version where they have one, for Linux and macOS."""

FLOAT, BFLOAT16 = 1, 14
"""TensorFlow's numbers for the types of elements (`DataType`)."""

TYPES: dict[int, np.dtype[Any]] = {FLOAT: np.dtype(np.float32), BFLOAT16: np.dtype(np.uint16)}
"""How each of them is seen here."""

HARMLESS = frozenset(
    {
        *("Placeholder", "Const", "Identity", "NoOp", "Conv3D", "BiasAdd", "MaxPool3D", "MatMul"),
        *("Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Softsign"),
        *("Exp", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "Neg", "Rsqrt", "Sqrt"),
        *("Square", "Cast", "ConcatV2", "ExpandDims", "Pack", "Reshape", "Shape", "Squeeze"),
        *("StridedSlice", "Tile"),
    }
)
"""Operations that compute and do nothing else: no other is run from a file (some of TensorFlow's
read and write files)."""

RESOURCE_EXHAUSTED = 8
"""TensorFlow's code for a lack of memory."""

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class GraphError(RuntimeError):
    """TensorFlow's library cannot do what is asked of it."""


class _Output(ctypes.Structure):
    """One output of an operation: `TF_Output`."""

    _fields_ = (("operation", _POINTER), ("index", _INT))


class _Bytes(ctypes.Structure):
    """A piece of memory: `TF_Buffer`."""

    _fields_ = (("data", _POINTER), ("length", _SIZE), ("deallocator", _POINTER))


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_Version": (ctypes.c_char_p, ()),
    "TF_NewStatus": (_POINTER, ()),
    "TF_DeleteStatus": (None, (_POINTER,)),
    "TF_GetCode": (_INT, (_POINTER,)),
    "TF_Message": (ctypes.c_char_p, (_POINTER,)),
    "TF_NewGraph": (_POINTER, ()),
    "TF_DeleteGraph": (None, (_POINTER,)),
    "TF_NewImportGraphDefOptions": (_POINTER, ()),
    "TF_DeleteImportGraphDefOptions": (None, (_POINTER,)),
    "TF_ImportGraphDefOptionsSetPrefix": (None, (_POINTER, ctypes.c_char_p)),
    "TF_GraphImportGraphDef": (None, (_POINTER, _POINTER, _POINTER, _POINTER)),
    "TF_GraphOperationByName": (_POINTER, (_POINTER, ctypes.c_char_p)),
    "TF_GraphNextOperation": (_POINTER, (_POINTER, ctypes.POINTER(_SIZE))),
    "TF_OperationOpType": (ctypes.c_char_p, (_POINTER,)),
    "TF_OperationNumOutputs": (_INT, (_POINTER,)),
    "TF_OperationOutputType": (_INT, (_Output,)),
    "TF_NewSessionOptions": (_POINTER, ()),
    "TF_DeleteSessionOptions": (None, (_POINTER,)),
    "TF_SetConfig": (None, (_POINTER, ctypes.c_char_p, _SIZE, _POINTER)),
    "TF_NewSession": (_POINTER, (_POINTER, _POINTER, _POINTER)),
    "TF_CloseSession": (None, (_POINTER, _POINTER)),
    "TF_DeleteSession": (None, (_POINTER, _POINTER)),
    "TF_SessionRun": (
        None,
        (*(_POINTER,) * 4, _INT, _POINTER, _POINTER, _INT, _POINTER, _INT, _POINTER, _POINTER),
    ),
    "TF_AllocateTensor": (_POINTER, (_INT, _POINTER, _INT, _SIZE)),
    "TF_DeleteTensor": (None, (_POINTER,)),
    "TF_TensorType": (_INT, (_POINTER,)),
    "TF_NumDims": (_INT, (_POINTER,)),
    "TF_Dim": (ctypes.c_int64, (_POINTER, _INT)),
    "TF_TensorData": (_POINTER, (_POINTER,)),
}
"""What is called: results and arguments, as in `tensorflow/c/c_api.h`."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the network: arrays in, one out.

    Parameters
    ----------
    graph : bytes
        A serialised `GraphDef` in which weights are placeholders like the input.
    inputs : tuple of str
        Names of the operations that take the arrays, in their order.
    output : str
        Name of the operation that says the answer.
    weights : mapping
        Placeholder to the name of a weight.
    """

    graph: bytes
    inputs: tuple[str, ...]
    output: str
    weights: Mapping[str, str]


class Tensor:
    """Memory of TensorFlow's, freed with the last array that shows it."""

    def __init__(self, library: Any, handle: int) -> None:  # noqa: ANN401  (ctypes has no types)
        self._library, self.handle = library, handle
        kind = library.TF_TensorType(handle)
        shape = tuple(library.TF_Dim(handle, k) for k in range(library.TF_NumDims(handle)))
        address = library.TF_TensorData(handle)
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": TYPES[kind].str,
            "data": (address or 0, False),
        }

    def __del__(self) -> None:
        self._library.TF_DeleteTensor(self.handle)

    @classmethod
    def empty(cls, library: Any, shape: tuple[int, ...], kind: int) -> Tensor:  # noqa: ANN401
        """Return memory for an array, aligned as TensorFlow likes it.

        Raises
        ------
        MemoryError
            If there is none.
        """
        length = math.prod(shape) * TYPES[kind].itemsize
        handle = library.TF_AllocateTensor(
            kind, (ctypes.c_int64 * len(shape))(*shape), len(shape), length
        )
        if not handle or (length and not library.TF_TensorData(handle)):
            message = f"no memory for a tensor of shape {shape}"
            raise MemoryError(message)
        return cls(library, handle)

    @classmethod
    def of(cls, library: Any, array: NDArray[Any], kind: int) -> Tensor:  # noqa: ANN401
        """Return an array's own memory, if it shows all of a tensor of that type; else a copy."""
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, Tensor) and library.TF_TensorType(base.handle) == kind:
            whole = np.asarray(base)
            if array.ctypes.data == whole.ctypes.data and array.shape == whole.shape:
                return base
        tensor = cls.empty(library, array.shape, kind)
        np.copyto(np.asarray(tensor), array)
        return tensor


class GraphSession:
    """Parts of a network, ready to run.

    Parameters
    ----------
    parts : mapping of str to Part
    weights : mapping of str to (int, array)
        Type, as TensorFlow numbers it, and values of every weight.
    threads : int
        Threads of an operation; of the first session in a process.

    Raises
    ------
    GraphError
        If the library is not there, or is not the one that can run these graphs.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        weights: Mapping[str, tuple[int, NDArray[Any]]],
        threads: int,
    ) -> None:
        self._library = library = load_library()
        self._graph, self._session = library.TF_NewGraph(), 0
        for name, part in parts.items():
            self._import(name, part.graph)
        self._check_operations()
        self._session = self._open(threads)
        held = {name: Tensor.of(library, array, kind) for name, (kind, array) in weights.items()}
        self._calls = {}
        for name, part in parts.items():
            feeds = [self._output(f"{name}/{place}") for place in (*part.inputs, *part.weights)]
            kinds = [library.TF_OperationOutputType(feed) for feed in feeds[: len(part.inputs)]]
            tensors = [held[weight] for weight in part.weights.values()]
            answer = self._output(f"{name}/{part.output}")
            self._calls[name] = (kinds, (_Output * len(feeds))(*feeds), tensors, answer)

    def __del__(self) -> None:
        if session := getattr(self, "_session", 0):
            with_status(self._library, "TF_CloseSession", session)
            with_status(self._library, "TF_DeleteSession", session)
        if graph := getattr(self, "_graph", 0):
            self._library.TF_DeleteGraph(graph)

    def run(self, name: str, *arrays: NDArray[Any]) -> NDArray[Any]:
        """Return what a part says of some arrays.

        Parameters
        ----------
        name : str
        *arrays : float32, or uint16 for bfloat16
            As the part's inputs take them.

        Raises
        ------
        MemoryError
            If there is no room for what the part makes on its way.
        GraphError
            Whatever else TensorFlow says.
        """
        library = self._library
        kinds, feeds, weights, output = self._calls[name]
        types = [array.dtype for array in arrays]
        if types != [TYPES.get(kind) for kind in kinds]:
            message = f"{name}: got {', '.join(map(str, types))}, expected types {kinds}"
            raise GraphError(message)
        given = [Tensor.of(library, array, kind) for array, kind in zip(arrays, kinds, strict=True)]
        tensors = [*given, *weights]
        values = (_POINTER * len(tensors))(*(tensor.handle for tensor in tensors))
        answer = (_POINTER * 1)()
        outputs = (_Output * 1)(output)
        with_status(
            library,
            "TF_SessionRun",
            *(self._session, None, feeds, values, len(tensors), outputs, answer, 1),
            *(None, 0, None),
        )
        return np.asarray(Tensor(library, answer[0] or 0))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return memory for an array that no run need copy."""
        kind = next(kind for kind, known in TYPES.items() if known == dtype)
        return np.asarray(Tensor.empty(self._library, shape, kind))

    def _import(self, name: str, graph: bytes) -> None:
        """Take a part's operations in, their names below its own."""
        library = self._library
        data = ctypes.create_string_buffer(graph, len(graph))
        piece = _Bytes(ctypes.cast(data, _POINTER), len(graph), None)
        options = library.TF_NewImportGraphDefOptions()
        library.TF_ImportGraphDefOptionsSetPrefix(options, name.encode())
        try:
            with_status(
                library, "TF_GraphImportGraphDef", self._graph, ctypes.byref(piece), options
            )
        finally:
            library.TF_DeleteImportGraphDefOptions(options)

    def _check_operations(self) -> None:
        """Raise if a graph does more than to compute."""
        place = _SIZE(0)
        while operation := self._library.TF_GraphNextOperation(self._graph, ctypes.byref(place)):
            kind = self._library.TF_OperationOpType(operation).decode()
            if kind not in HARMLESS:
                message = f"graph: operation {kind} is not among those that are run"
                raise GraphError(message)

    def _open(self, threads: int) -> int:
        """Open a session on processors alone, with as many threads as Keras would be given."""
        library = self._library
        options = library.TF_NewSessionOptions()
        config = session_config(threads)
        try:
            with_status(library, "TF_SetConfig", options, config, len(config))
            session: int = with_status(library, "TF_NewSession", self._graph, options)
        finally:
            library.TF_DeleteSessionOptions(options)
        return session

    def _output(self, name: str) -> _Output:
        """The first output of an operation."""
        operation = self._library.TF_GraphOperationByName(self._graph, name.encode())
        if not operation or self._library.TF_OperationNumOutputs(operation) < 1:
            message = f"graph: no operation {name}"
            raise GraphError(message)
        return _Output(operation, 0)


def with_status(library: Any, function: str, *arguments: object) -> Any:  # noqa: ANN401
    """Call a function whose last argument is a status; raise what that says.

    Raises
    ------
    MemoryError, GraphError
        By the code of the status.
    """
    status = library.TF_NewStatus()
    try:
        result = getattr(library, function)(*arguments, status)
        code = library.TF_GetCode(status)
        message = library.TF_Message(status).decode(errors="replace") if code else ""
    finally:
        library.TF_DeleteStatus(status)
    if code == RESOURCE_EXHAUSTED:
        raise MemoryError(message)
    if code:
        raise GraphError(message)
    return result


def session_config(threads: int) -> bytes:
    """Return a serialised `ConfigProto`: threads within and between operations, no GPU.

    Examples
    --------
    >>> session_config(300).hex(" ")
    '0a 07 0a 03 47 50 55 10 00 10 ac 02 28 01'
    """
    no_gpu = b"\x0a\x07\x0a\x03GPU\x10\x00"  # field 1, device_count: {"GPU": 0}
    return no_gpu + b"\x10" + _varint(threads) + b"\x28\x01"  # fields 2 and 5


def _varint(value: int) -> bytes:
    """A number as protocol buffers write it, seven bits a byte, the lowest first."""
    pieces = [value >> 7 * k & 0x7F for k in range(max(1, math.ceil(value.bit_length() / 7)))]
    return bytes([piece | 0x80 for piece in pieces[:-1]] + pieces[-1:])


def library_files() -> tuple[Path, Path] | None:
    """Return the library's two files, of the TensorFlow that Python would import; else None."""
    found = importlib.util.find_spec("tensorflow")
    for folder in map(Path, (found and found.submodule_search_locations) or ()):
        for ending in ENDINGS:
            pair = folder / f"{FRAMEWORK}{ending}", folder / f"{WHOLE}{ending}"
            if all(path.is_file() for path in pair):
                return pair
    return None


@cache
def load_library() -> Any:  # noqa: ANN401
    """Return TensorFlow's library, its functions declared.

    Raises
    ------
    GraphError
        If it is not there, cannot be loaded, or lacks a function.
    """
    files = library_files()
    if files is None:
        message = "TensorFlow's library is not there"
        raise GraphError(message)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stable_kernels()
    try:
        ctypes.CDLL(str(files[0]))
        library = ctypes.CDLL(str(files[1]))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        message = f"TensorFlow's library cannot be used: {error}"
        raise GraphError(message) from error
    return library
