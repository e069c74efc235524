"""The greedy pass: who survives, judged where the candidates lie and not in priority order.

A verdict depends on the verdicts of those that come before in priority, and on nothing else, so the
order of the walk does not matter. Rivals are judged as they are needed, depth first, on a stack of
our own. What runs once a candidate counts no references (`jit.inlined`): passing the arrays of a
scene on cost more than all pair tests of small stars. So arrays grow in `greedy` alone, between two
calls of `_advance`, which stops where one is too small and goes on there::

    greedy  --  _advance: until everyone is judged, or a room is too small
                  _choose        who is next in the walk
                  _list_rivals   put him on the stack, with whom he has to ask
                  _judge_top     ask them; perhaps one of them first
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.gauge import invert
from anystar_batch.stars.jit import inlined, kernel
from anystar_batch.stars.neighbours import Grid, fill
from anystar_batch.stars.overlap import Scene, Stars, limit_of, overlap_of

UNKNOWN, SUPPRESSED, UNDECIDED, KEPT = -1, 0, 1, 2
"""`suppress.Status` for kernels, and not judged yet."""


class Verdicts(NamedTuple):
    """What the judging knows, and where it stands.

    Parameters
    ----------
    status : int8 [n]
        Verdicts so far.
    rank, walk : int64 [n]
        Place of each in the priority order; who is asked about, one after the other.
    certain : bool [n]
        Who has no candidate unseen in his way.
    state : int64 [4]
        Place in `walk`; depth of the stack; length of `near`; who is to be judged next, or -1.
    """

    status: NDArray[np.int8]
    rank: NDArray[np.int64]
    walk: NDArray[np.int64]
    certain: NDArray[np.bool_]
    state: NDArray[np.int64]


class Rooms(NamedTuple):
    """Arrays that grow.

    Parameters
    ----------
    rivals : int64
        Of one candidate, as the grid lists them.
    near : int64
        Rivals of all on the stack.
    stack : int64
        Four numbers each: who; first, next and last of his rivals in `near`.
    pool : uint64
        Rendered stars.
    """

    rivals: NDArray[np.int64]
    near: NDArray[np.int64]
    stack: NDArray[np.int64]
    pool: NDArray[np.uint64]


@inlined
def _square(points: NDArray[np.int64], i: int, j: int) -> int:
    """Squared distance of two centres."""
    z, y, x = points[i, 0] - points[j, 0], points[i, 1] - points[j, 1], points[i, 2] - points[j, 2]
    return int(z * z + y * y + x * x)


@inlined
def _rivals(
    rivals: NDArray[np.int64],
    count: int,
    j: int,
    verdicts: Verdicts,
    stars: Stars,
    nms_thresh: float,
) -> int:
    """Keep who comes before j, may overlap it and is not suppressed; return how many.

    The nearest come first, as they likeliest suppress: only speed depends on that.
    """
    kept, rank, status = 0, verdicts.rank, verdicts.status
    for a in range(count):
        i = rivals[a]
        if rank[i] >= rank[j] or status[i] == SUPPRESSED:
            continue
        if limit_of(i, j, stars, nms_thresh) == np.inf:
            continue
        square = _square(stars.points, i, j)
        b = kept - 1
        while b >= 0 and _square(stars.points, rivals[b], j) > square:
            rivals[b + 1] = rivals[b]
            b -= 1
        rivals[b + 1] = i
        kept += 1
    return kept


@inlined
def _next(
    near: NDArray[np.int64], at: int, last: int, status: NDArray[np.int8], target_status: int
) -> int:
    """Return the first place in [at, last) of one of that status or not judged, else `last`."""
    while at < last and status[near[at]] != target_status and status[near[at]] != UNKNOWN:
        at += 1
    return at


@inlined
def _scan(  # noqa: PLR0913
    j: int,
    near: NDArray[np.int64],
    at: int,
    last: int,
    status: NDArray[np.int8],
    target_status: int,
    scene: Scene,
    nms_thresh: float,
    pool: NDArray[np.uint64],
    pool_words: int,
) -> int:
    """Ask j's rivals of one status from `at` on whether they overlap it.

    Returns
    -------
    int
        Place of the first that does, or that has to be judged before; `last` without any. Where the
        pool has no room, the place of whom to ask again.
    """
    at = _next(near, at, last, status, target_status)
    if at < last and status[near[at]] == target_status:
        invert(j, scene.stars.dist, scene.own)
    while at < last and status[near[at]] == target_status:
        if overlap_of(near[at], j, scene, nms_thresh, pool, pool_words) != 0:
            break
        at = _next(near, at + 1, last, status, target_status)
    return at


@inlined
def _list_rivals(
    who: int, scene: Scene, grid: Grid, verdicts: Verdicts, rooms: Rooms, nms_thresh: float
) -> bool:
    """Put one more to judge on the stack, with his rivals; False where there is no room."""
    stars, state = scene.stars, verdicts.state
    count = fill(grid, stars.low, stars.high, who, rooms.rivals)
    depth, used = state[1], state[2]
    if count >= len(rooms.rivals):
        return False
    if used + count > len(rooms.near) or depth + 4 > len(rooms.stack):
        return False
    count = _rivals(rooms.rivals, count, who, verdicts, stars, nms_thresh)
    for k in range(count):
        rooms.near[used + k] = rooms.rivals[k]
    rooms.stack[depth], rooms.stack[depth + 1] = who, used
    rooms.stack[depth + 2], rooms.stack[depth + 3] = used, used + count
    state[1], state[2], state[3] = depth + 4, used + count, -1
    return True


@inlined
def _choose(verdicts: Verdicts) -> bool:
    """Say who is to be judged next, where nobody is on the stack; False if everyone is judged."""
    state, walk = verdicts.state, verdicts.walk
    if state[1] == 0 and state[3] < 0:
        while state[0] < len(walk) and verdicts.status[walk[state[0]]] != UNKNOWN:
            state[0] += 1
        if state[0] == len(walk):
            return False
        state[3] = walk[state[0]]
    return True


@inlined
def _judge_top(
    scene: Scene, verdicts: Verdicts, rooms: Rooms, nms_thresh: float, pool_words: int
) -> bool:
    """Judge who is on top of the stack, or say who is to be judged before; False without room."""
    status, state, near, pool = verdicts.status, verdicts.state, rooms.near, rooms.pool
    top = rooms.stack[state[1] - 4 : state[1]]
    j, last = top[0], top[3]
    at = _scan(j, near, top[2], last, status, KEPT, scene, nms_thresh, pool, pool_words)
    top[2] = at
    if scene.pool_state[2] > 0:
        return False
    if at < last and status[near[at]] == UNKNOWN:
        state[3] = near[at]
        return True
    verdict = SUPPRESSED if at < last else UNDECIDED
    if at == last and verdicts.certain[j]:
        at = _scan(j, near, top[1], last, status, UNDECIDED, scene, nms_thresh, pool, pool_words)
        if scene.pool_state[2] > 0:
            return False
        verdict = KEPT if at == last else UNDECIDED
    status[j] = verdict
    state[1], state[2] = state[1] - 4, top[1]
    return True


@inlined
def _advance(
    scene: Scene, grid: Grid, verdicts: Verdicts, rooms: Rooms, nms_thresh: float, pool_words: int
) -> bool:
    """Judge on, until everyone is (True) or a room is too small (False): then it goes on there."""
    while _choose(verdicts):
        who = verdicts.state[3]
        if who >= 0 and not _list_rivals(who, scene, grid, verdicts, rooms, nms_thresh):
            return False
        if not _judge_top(scene, verdicts, rooms, nms_thresh, pool_words):
            return False
    return True


@kernel
def _room(array: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the array, or a longer copy where it has not so many items."""
    if size <= len(array):
        return array
    grown = np.empty(max(2 * len(array), size), np.int64)
    grown[: len(array)] = array
    return grown


@kernel
def greedy(  # noqa: PLR0913
    scene: Scene,
    rank: NDArray[np.int64],
    walk: NDArray[np.int64],
    forced: NDArray[np.bool_],
    certain: NDArray[np.bool_],
    nms_thresh: float,
    grid: Grid,
    pool_words: int,
) -> NDArray[np.int8]:
    """Judge everyone, whoever comes before him first; pull form: each asks the earlier ones near.

    The order of the walk does not matter: a verdict depends on the verdicts of those that come
    before in priority, and on nothing else. They are judged when they are needed, on a stack. What
    is called here counts no references: arrays grow in this function alone.
    """
    status = np.full(len(rank), UNKNOWN, np.int8)
    status[forced] = KEPT
    verdicts = Verdicts(status, rank, walk, certain, np.array([0, 0, 0, -1], np.int64))
    rivals, pool = np.empty(64, np.int64), np.empty(1 << 12, np.uint64)
    near, stack = np.empty(1 << 12, np.int64), np.empty(1 << 10, np.int64)
    while not _advance(
        scene, grid, verdicts, Rooms(rivals, near, stack, pool), nms_thresh, pool_words
    ):
        wanted = scene.pool_state[2]
        if wanted > 0:
            scene.pool_state[2] = 0
            grown = np.empty(max(2 * len(pool), wanted), np.uint64)
            grown[: len(pool)] = pool
            pool = grown
            continue
        who = verdicts.state[3]
        count = fill(grid, scene.stars.low, scene.stars.high, who, rivals)
        if count >= len(rivals):
            rivals = np.empty(2 * count, np.int64)
        near = _room(near, verdicts.state[2] + count)
        stack = _room(stack, verdicts.state[1] + 4)
    return status
