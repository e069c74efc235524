"""Assign found objects to true ones, one to one, as StarDist does, on a sparse graph.

The graph is bipartite: an edge joins a true and a found object that share voxels, its score is
their IoU. At a threshold `stardist.matching.matching` takes the complete assignment that maximises
the sum of ::

    [score >= threshold] + score / (2 n)        n = the smaller number of objects

over a dense matrix: first the number of pairs at the threshold, then the scores of all assigned
pairs, those below the threshold too. Pairs without an edge add 0, so the best assignment is a best
matching of the graph, and it falls apart without loss:

1. An edge heavier than the heaviest other edges of its two ends together is in every best matching:
   whatever else covers its ends can be exchanged for it. It is taken and its ends leave the graph;
   this repeats while it helps. Among objects that were found at all, nearly all go this way.
2. What is left falls into connected components. One without an edge at the threshold counts
   nothing. The others are solved with SciPy: small ones densely, as StarDist does, large ones
   sparsely.

Step 1 leaves only small components unless most objects of a tissue without gaps are far off. Then
one component may hold half of them, and SciPy's time grows with its square: 4 s for 27,000 objects.

Law: the result is the same for any order of the edges, as long as the best matching is unique.
Among equal ones StarDist's choice depends on the numbering of the objects, and so does this one;
the number of pairs at the threshold never does.

References
----------
StarDist 0.9.2, `stardist/matching.py`. Dense solver: Crouse, IEEE TAES 2016,
doi:10.1109/TAES.2016.140952. Sparse solver: Jonker and Volgenant, Computing 1987,
doi:10.1007/BF02278710.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

ROUNDS = 50
"""Most repetitions of step 1: a long chain of edges, each freed by the last, goes to step 2."""

DENSE = 10**6
"""Largest matrix of a component that is solved densely, entries."""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """True and found objects that share voxels.

    Parameters
    ----------
    n_true, n_found : int
        Objects, those without an edge too.
    true, found : int64 [n]
        Ends of every edge: index of the true and of the found object. No edge is there twice.
    scores : float32 [n]
        IoU of every edge, more than 0 and at most 1. StarDist keeps them so, and a threshold is
        compared with the rounded value.
    """

    n_true: int
    n_found: int
    true: NDArray[np.int64]
    found: NDArray[np.int64]
    scores: NDArray[np.float32]


def assign(graph: Graph, iou: float) -> NDArray[np.int64]:
    """Return the edges of the best assignment that reach a threshold.

    Parameters
    ----------
    graph : Graph
    iou : float
        Threshold on the scores, more than 0 and at most 1.

    Returns
    -------
    int64 [n]
        Indices of edges, ascending; no two share an end.

    Examples
    --------
    The second found object fits the first true one better, but has the other true one to go to:
    a pair below the threshold counts in the choice, not in the result.

    >>> graph = Graph(2, 2, np.array([0, 0, 1]), np.array([0, 1, 1]),
    ...               np.array([0.3, 0.4, 0.2], np.float32))
    >>> assign(graph, 0.25), assign(graph, 0.1)
    (array([0]), array([0, 2]))
    """
    above = graph.scores >= np.float32(iou)
    if not above.any():
        return np.empty(0, np.int64)
    # The scores are divided in float32, as StarDist does: rounding decides between near equals.
    n = min(graph.n_true, graph.n_found)
    weights = above.astype(np.float64) + graph.scores / np.float32(2 * n)
    sure, left = _take_sure(graph, weights)
    parts = [sure, *_take_rest(graph, weights, above, left)]
    taken = np.concatenate(parts)
    return np.sort(taken[above[taken]])


def _take_sure(
    graph: Graph, weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Take every edge that must be in a best matching; return those, and the edges then left."""
    left = np.arange(len(weights))
    by_true = np.lexsort((-weights, graph.true))
    by_found = np.lexsort((-weights, graph.found))
    used_true, used_found = np.zeros(graph.n_true, bool), np.zeros(graph.n_found, bool)
    taken = []
    for _ in range(ROUNDS):
        rival = np.zeros(len(weights))
        rival[by_true] = _heaviest_other(graph.true[by_true], weights[by_true])
        rival[by_found] += _heaviest_other(graph.found[by_found], weights[by_found])
        sure = left[weights[left] > rival[left]]
        if len(sure) == 0:
            break
        taken.append(sure)
        used_true[graph.true[sure]] = True
        used_found[graph.found[sure]] = True
        gone = used_true[graph.true] | used_found[graph.found]
        left, by_true, by_found = (
            left[~gone[left]],
            by_true[~gone[by_true]],
            by_found[~gone[by_found]],
        )
        if len(left) == 0:
            break
    return np.concatenate([np.empty(0, np.int64), *taken]), left


def _heaviest_other(ends: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for every edge the heaviest other weight at its end; sorted by end, heaviest first."""
    starts = np.flatnonzero(np.diff(ends, prepend=-1))
    lengths = np.diff(starts, append=len(ends))
    others = np.repeat(weights[starts], lengths)
    several = starts[lengths > 1]
    others[starts] = 0.0
    others[several] = weights[several + 1]
    return others


def _take_rest(
    graph: Graph,
    weights: NDArray[np.float64],
    above: NDArray[np.bool_],
    left: NDArray[np.int64],
) -> list[NDArray[np.int64]]:
    """Solve the connected components of the edges that are left."""
    if not above[left].any():
        return []
    true, rows = np.unique(graph.true[left], return_inverse=True)
    found, columns = np.unique(graph.found[left], return_inverse=True)
    size = len(true) + len(found)
    adjacency = coo_array((np.ones(len(left), np.int8), (rows, columns + len(true))), (size, size))
    _, component = connected_components(adjacency, directed=False)
    component = component[rows]
    counts = np.bincount(component, above[left])
    inside = counts[component] > 0
    order = np.argsort(component[inside], kind="stable")
    edges, component = left[inside][order], component[inside][order]
    cuts = np.flatnonzero(np.diff(component)) + 1
    return [_solve(graph, weights, e) for e in np.split(edges, cuts)]


def _solve(
    graph: Graph, weights: NDArray[np.float64], edges: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the edges of a best matching of one component."""
    true, rows = np.unique(graph.true[edges], return_inverse=True)
    found, columns = np.unique(graph.found[edges], return_inverse=True)
    shape = (len(true), len(found))
    chosen = np.full(shape[0], -1, np.int64)
    if shape[0] * shape[1] <= DENSE:
        dense = np.zeros(shape)
        dense[rows, columns] = weights[edges]
        at, to = linear_sum_assignment(dense, maximize=True)
        chosen[at] = to
    else:
        # Every row also has a column of its own, of weight 0: to stay alone. No entry may be 0.
        alone = np.arange(shape[0])
        values = np.concatenate([2.0 - weights[edges], np.full(shape[0], 2.0)])
        index = np.concatenate([rows, alone]), np.concatenate([columns, shape[1] + alone])
        costs = csr_array((values, index), (shape[0], shape[1] + shape[0]))
        rest, of = min_weight_full_bipartite_matching(costs)
        chosen[rest] = of
    kept: NDArray[np.int64] = edges[chosen[rows] == columns]
    return kept
