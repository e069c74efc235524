"""A network's parts without Keras: its graphs, kept by an earlier process beside the kernels.

Keras builds and traces a network for seconds; what it arrives at are a few small graphs, and the
weights. Who had to build keeps them (`keep`), who comes later takes them (`kept_parts`) and runs
them by TensorFlow's own library (`graph_session`). Weights stay inputs of the graphs, as variables
are: were they constants, TensorFlow would fold and merge them, and bits would change.

A file holds, besides, a small window and what the network said of it under Keras. Both who keeps
and who takes must arrive at those bits, or Keras is used. So is it where anything is missing, of
another version, damaged, or where there may be a GPU: no run ends, and no bit changes, for this.

File: a line of its own, SHA-256 of what follows, length of the head, the head (JSON), arrays.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ModelError
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.kernel_cache import kept_in, sources_of
from anystar_batch.network.devices import cpu_flags, may_have_accelerator
from anystar_batch.network.graph_session import (
    BFLOAT16,
    FLOAT,
    TYPES,
    GraphError,
    GraphSession,
    Part,
    library_files,
    load_library,
)
from anystar_batch.network.imports import silent_stderr, stable_kernels
from anystar_batch.network.model import WEIGHTS, Model
from anystar_batch.network.parts import Function, KerasParts, Tensor
from anystar_batch.network.slabs import SlabNetwork

logger = logging.getLogger(__name__)

MAGIC = b"anystar-batch graph 1\n"
NAMES = ("stem", "down", "body", "up", "features", "prob", "dist")

SWITCH = "ANYSTAR_BATCH_KEPT_GRAPHS"
"""Variable of the environment: 0 always builds the network anew, under Keras."""

EDGE = 16
"""Least edge of the window on which the two ways are compared, voxels."""

_UNUSABLE = (
    *(OSError, ImportError, ValueError, KeyError, TypeError, AttributeError, IndexError),
    *(GraphError, MemoryError, ModelError),
)
"""What reading, trying or keeping may answer: Keras is used."""


class KeptParts:
    """A network's parts, run by TensorFlow's own library.

    Parameters
    ----------
    session : GraphSession
        With all parts that the network has, named as in `NAMES`.
    names : iterable of str
        Of these parts.
    bias : float32 (n_rays,)
        Of the distances.
    """

    def __init__(
        self,
        session: GraphSession,
        names: Iterable[str],
        bias: NDArray[np.float32],
    ) -> None:
        self._session, self._bias = session, bias
        given: dict[str, Function] = {name: self._function(name) for name in names}
        self.stem, self.body = given.get("stem"), given.get("body")
        self.down, self.up = given.get("down"), given.get("up")
        self.features, self.prob = given.get("features"), given["prob"]

    def tensor(self, array: NDArray[np.float32]) -> Tensor:
        """Return an array as the first part takes it."""
        return array

    def joined(self, pieces: Iterable[Tensor], planes: int) -> Tensor:
        """Return slabs as one, along z; together they have so many planes."""
        whole, start = None, 0
        for piece in pieces:
            if piece.shape[1] == planes:
                return piece
            if whole is None:
                whole = self._session.empty((1, planes, *piece.shape[2:]), piece.dtype)
            whole[:, start : start + piece.shape[1]] = piece
            start += piece.shape[1]
            del piece  # or it stays while the next one is made
        return whole

    def dist(self, features: Tensor, chosen: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the distances (n, n_rays) of some outputs, which are numbered with z slowest."""
        rows = features.reshape(-1, features.shape[-1])[chosen]
        if rows.dtype == TYPES[BFLOAT16]:
            rows = (rows.astype(np.uint32) << 16).view(np.float32)
        dist: NDArray[np.float32] = self._session.run("dist", rows) + self._bias
        return dist

    def _function(self, name: str) -> Function:
        return lambda *arrays: self._session.run(name, *arrays)


def kept_network(model: Model, precision: str, threads: int) -> SlabNetwork | None:
    """Return the network that an earlier process kept; None where Keras has to build it.

    Parameters
    ----------
    model : Model
    precision : {"float32", "bfloat16"}
    threads : int
        Threads for the network's operations; of the first network in a process.
    """
    try:
        path, key = _place(model, precision)
        data = _read(path)
        with silent_stderr():
            network, facts = _opened(data, model, key, threads)
            answer = _answer(network, model)
    except _UNUSABLE as error:
        logger.debug("no kept graph: %s: %s", type(error).__name__, error)
        return None
    if facts.get("answer") != answer:
        logger.debug("%s does not say what Keras said", path)
        return None
    return network


def keep(parts: KerasParts, model: Model, precision: str, threads: int) -> Path | None:
    """Keep a network's parts for later processes, if they say the same without Keras.

    Parameters
    ----------
    parts : KerasParts
        Under TensorFlow.
    model : Model
        From whose files they were built.
    precision : {"float32", "bfloat16"}
    threads : int
        Threads for the network's operations.

    Returns
    -------
    Path or None
        Of the file; None where none is kept.
    """
    try:
        path, key = _place(model, precision)
        answer = _answer(SlabNetwork(parts, model.unet), model)
        data = _packed(*_taken(parts), {"key": key, "answer": answer})
        network, _ = _opened(data, model, key, threads)
        if _answer(network, model) != answer:
            logger.debug("kept no graph: TensorFlow's library says something else than Keras")
            return None
        _write(path, data)
    except _UNUSABLE as error:
        logger.debug("kept no graph: %s: %s", type(error).__name__, error)
        return None
    return path


def _place(model: Model, precision: str) -> tuple[Path, str]:
    """Where a network is kept, and all that decides its bits, as text."""
    if os.environ.get(SWITCH) == "0" or may_have_accelerator():
        message = "they are not wanted here"
        raise GraphError(message)
    folder, files = kept_in(), library_files()
    if folder is None or files is None:
        message = "there is no place for graphs, or no library of TensorFlow's"
        raise GraphError(message)
    stable_kernels()
    told = ("TF_", "DNNL_", "ONEDNN_", "OMP_", "XLA_")
    machine = [platform.machine(), sorted(cpu_flags())]
    machine += sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith(told) and not name.startswith("TF_CPP_")
    )
    with (Path(model.folder) / WEIGHTS).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    code = [
        repr(model.unet),
        sources_of(str(Path(__file__).parent)),
        importlib.metadata.version("keras"),
    ]
    code += [f"{one.stat().st_size} {one.stat().st_mtime_ns}" for one in files]
    here, made = (hashlib.sha256(repr(one).encode()).hexdigest() for one in (machine, code))
    name = f"network-{weights[:16]}-{precision}-{here[:8]}-{made[:16]}.graph"
    return folder / name, f"{weights} {precision} {here} {made}"


def _answer(network: SlabNetwork, model: Model) -> str:
    """Digest of what a network says of a small window, all of it but for one layer of outputs."""
    divisor = model.divisor
    # Where a layer's whole input is thinner than its kernel, oneDNN's bfloat16 is not reproducible.
    shape = as_zyx(max(2, -(-EDGE // step)) * step for step in divisor)
    image = np.random.default_rng(0).random(shape, np.float32) * np.float32(1.5)
    out = as_zyx(n // g for n, g in zip(shape, model.unet.grid, strict=True))
    core = Box((1, 0, 0), out) if out[0] > 1 else Box.of_shape(out)
    digest = hashlib.sha256()
    for array in network.find(image, core, -1.0):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _taken(parts: KerasParts) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The graphs of all parts, described, and arrays: graphs as bytes, and weights."""
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    rows = tf.TensorSpec((None, parts.kernel.shape[0]), tf.float32)
    last = tf.function(lambda tensor: keras.ops.matmul(tensor, parts.kernel), [rows])
    functions = {name: getattr(parts, name) for name in NAMES[:-1]} | {"dist": last}
    described: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {"bias": np.asarray(parts.bias)}
    for name, function in functions.items():
        if function is None:
            continue
        traced = function.get_concrete_function()
        given = traced.inputs[: len(traced.inputs) - len(traced.captured_inputs)]
        (answer,) = traced.outputs
        captures = {
            inner.op.name: outer
            for inner, outer in zip(
                traced.graph.internal_captures, traced.graph.external_captures, strict=True
            )
        }
        graph, weights = _with_inputs(traced.graph.as_graph_def(), captures, arrays)
        arrays[f"graph {name}"] = np.frombuffer(graph, np.uint8)
        described[name] = {
            "inputs": [one.op.name for one in given],
            "output": answer.op.name,
            "weights": weights,
        }
    return described, arrays


def _with_inputs(
    document: Any,  # noqa: ANN401  (a GraphDef)
    captures: Mapping[str, Any],
    arrays: dict[str, NDArray[Any]],
) -> tuple[bytes, dict[str, str]]:
    """A graph whose variables are inputs, and which array each of them takes."""
    import tensorflow as tf  # noqa: PLC0415

    if document.library.function:
        message = "a graph with functions of its own"
        raise ValueError(message)
    graph, weights = tf.compat.v1.GraphDef(versions=document.versions), {}
    for node in document.node:
        outer = captures.get(node.input[0] if node.op == "ReadVariableOp" else node.name)
        is_resource = outer is not None and outer.dtype == tf.resource
        if is_resource and node.op != "ReadVariableOp":
            continue
        if outer is None:
            graph.node.append(node)
            continue
        value = (
            tf.raw_ops.ReadVariableOp(resource=outer, dtype=tf.float32) if is_resource else outer
        )
        place = graph.node.add(name=node.name, op="Placeholder")
        place.attr["dtype"].type = FLOAT
        place.attr["shape"].shape.CopyFrom(value.shape.as_proto())
        weights[node.name] = f"weight {len(arrays)}"
        arrays[weights[node.name]] = np.asarray(value, np.float32)
    return graph.SerializeToString(deterministic=True), weights


def _opened(
    data: bytes, model: Model, key: str, threads: int
) -> tuple[SlabNetwork, dict[str, Any]]:
    """The network that a file holds, ready to run, and what else it says."""
    facts, arrays = _unpacked(data)
    if facts["key"] != key or facts["tensorflow"] != load_library().TF_Version().decode():
        message = "it is of another model, machine or version"
        raise ValueError(message)
    described = facts["parts"]
    parts = {
        name: Part(
            arrays[f"graph {name}"].tobytes(), tuple(one["inputs"]), one["output"], one["weights"]
        )
        for name, one in described.items()
    }
    weights = {name: (FLOAT, array) for name, array in arrays.items() if name.startswith("weight")}
    session = GraphSession(parts, weights, threads)
    return SlabNetwork(KeptParts(session, parts, arrays["bias"]), model.unet), facts


def _packed(
    parts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> bytes:
    """A file's bytes, as the module's docstring says."""
    listed = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    version = load_library().TF_Version().decode()
    head = {**facts, "tensorflow": version, "parts": parts, "arrays": listed}
    text = json.dumps(head).encode()
    pieces = [array.tobytes() for array in arrays.values()]
    body = b"".join([len(text).to_bytes(8, "little"), text, *pieces])
    return MAGIC + hashlib.sha256(body).digest() + body


def _unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `_packed` was given; raises ValueError if it is not whole."""
    start = len(MAGIC) + 32
    if (
        data[: len(MAGIC)] != MAGIC
        or hashlib.sha256(data[start:]).digest() != data[start - 32 : start]
    ):
        message = "it is damaged"
        raise ValueError(message)
    place = start + 8 + int.from_bytes(data[start : start + 8], "little")
    facts: dict[str, Any] = json.loads(data[start + 8 : place])
    arrays = {}
    for name, kind, shape in facts["arrays"]:
        array = np.frombuffer(data, np.dtype(kind), int(np.prod(shape)), place).reshape(shape)
        arrays[name], place = array, place + array.nbytes
    return facts, arrays


def _read(path: Path) -> bytes:
    """A file's bytes, if only who could change the program could have written it."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        trusted = {os.getuid(), 0, Path(__file__).stat().st_uid}
        if status.st_uid not in trusted or stat.S_IMODE(status.st_mode) & 0o022:
            message = f"{path} is another user's, or can be written by others"
            raise PermissionError(message)
        return file.read()


def _write(path: Path, data: bytes) -> None:
    """Put a file under its name once it is whole; those of the same network's past make room."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    for old in path.parent.glob(f"{path.stem.rpartition('-')[0]}-*.graph"):
        if old != path:
            with suppress(OSError):
                old.unlink()
