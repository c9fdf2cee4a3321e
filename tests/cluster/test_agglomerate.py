"""The tree: its order by edges and by likelihood, where it is cut by default, and what it says of each split."""

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.sparse import csr_matrix
from scipy.stats import norm, t

from mixvi.cluster.agglomerate import EVEN, MIN_WORTH, Tree, agglomerate, most_confused
from mixvi.cluster.evidence import SPLIT_LEVEL
from mixvi.cluster.graph import shared_neighbors
from tests.cluster.populations import draw, evidence_of, on_a_line, profiles

N, G = 300, 60


@pytest.fixture
def three(rng):
    """Evidence, graph and population of cells of three populations; and six parts, the random halves of these."""
    y = np.repeat([0, 1, 2], [150, 100, 50])
    counts = draw(rng, 100 * profiles(rng, 3, G)[y])
    evidence = evidence_of(counts)
    graph = shared_neighbors(np.log1p(evidence.halves.seen.toarray()))
    return evidence, graph, y, 2 * y + rng.integers(2, size=N)


def check(tree, part):
    """What holds of every tree."""
    k = tree.n_leaves
    assert tree.pairs.shape == tree.cells.shape == (k - 1, 2)
    assert sorted(tree.pairs.ravel().tolist()) == list(range(2 * k - 2))  # each node but the top is joined once
    below = tree.leaves()
    assert below[-1] == list(range(k)) or sorted(below[-1]) == list(range(k))
    size = np.bincount(part[part >= 0], minlength=k)
    for j, (a, b) in enumerate(tree.pairs):
        assert max(a, b) < k + j
        assert tree.cells[j].tolist() == [size[below[a]].sum(), size[below[b]].sum()]
    finer = None
    for n in range(k, 0, -1):
        cut, nodes = tree.cut(n), tree.nodes(n)
        assert sorted(np.unique(cut)) == list(range(n))
        assert len(nodes) == n
        for group, node in enumerate(nodes):
            assert np.flatnonzero(cut == group).tolist() == sorted(below[node])
        if finer is not None:  # nested: no group of the finer cut is torn
            assert all(len(set(cut[finer == g])) == 1 for g in range(n + 1))
        finer = cut
    for wrong in (0, -1, k + 1):
        with pytest.raises(ValueError, match=f"n_clusters={wrong}; this tree can be cut into 1 to {k} clusters"):
            tree.cut(wrong)


@pytest.mark.parametrize("with_evidence", [False, True])
@pytest.mark.parametrize("infer", [False, True])
def test_every_tree_is_nested(three, with_evidence, infer, rng):
    evidence, graph, y, part = three
    part = np.where(rng.random(N) < 0.1, -1, part)  # some cells are in none
    tree = agglomerate(part, graph, evidence if with_evidence else None, infer=infer)
    check(tree, part)
    assert 1 <= tree.n_default <= 6
    assert infer or tree.n_default == 6
    again = agglomerate(part, graph, evidence if with_evidence else None, infer=infer)
    for first, second in zip(tree, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_one_part_is_a_tree():
    tree = agglomerate(np.zeros(5, int), csr_matrix((5, 5)))
    check(tree, np.zeros(5, int))
    assert (tree.n_leaves, tree.n_default, tree.cut(1).tolist(), tree.kind.tolist()) == (1, 1, [0], [])
    check(agglomerate(np.array([0, 1]), csr_matrix((2, 2))), np.array([0, 1]))


def test_parts_without_a_cell_are_leaves_too(three):
    evidence, graph, y, _ = three
    for given in (None, evidence):
        tree = agglomerate(y, graph, given, infer=False, n_parts=5)
        check(tree, y)
        assert (tree.n_leaves, tree.n_default) == (5, 5)


def test_without_counts_parts_join_that_touch_most():
    sizes = (6, 5, 4, 4)
    graph = block_diag(*(np.ones((k, k)) - np.eye(k) for k in sizes))
    for a, b, weight in ((0, 6, 3), (7, 11, 1)):  # the first two touch most, then the second and the third
        graph[a, b] = graph[b, a] = weight
    part = np.repeat([0, 1, 2, 3], sizes)
    tree = agglomerate(part, csr_matrix(graph))
    check(tree, part)
    assert tree.pairs.tolist() == [[0, 1], [2, 4], [3, 5]]
    ends = graph.sum(1)
    expected = ends[part == 0].sum() * ends[part == 1].sum() / ends.sum()
    assert tree.connectivity[0] == pytest.approx(3 / expected)
    assert tree.connectivity[2] == 0
    assert tree.n_default == 4  # no two have more edges than by chance
    assert tree.kind.tolist() == [""] * 3
    assert np.isnan(tree.worth).all()


def test_each_join_without_counts_is_of_the_most_connected_pair(rng):
    part = rng.integers(6, size=40)
    part[:6] = range(6)
    dense = np.triu(rng.random((40, 40)), 1)
    graph = dense + dense.T
    tree, ends = agglomerate(part, csr_matrix(graph)), graph.sum(1)
    most = []
    for n in range(6, 1, -1):
        group = tree.cut(n)[part]

        def connectivity(a, b, group=group):
            both = graph[np.ix_(group == a, group == b)].sum()
            return both * ends.sum() / (ends[group == a].sum() * ends[group == b].sum())

        most.append(max(connectivity(a, b) for a in range(n) for b in range(a)))
    np.testing.assert_allclose(tree.connectivity, most)
    assert tree.n_default == 6 - np.argmax([*(np.array(most) <= 1), True])  # joined while above chance


@pytest.mark.parametrize(("nats", "n_grade", "n_gap"), [(20.0, 1, 2), (60.0, 2, 2)])
def test_a_slight_grade_is_no_default_split(rng, nats, n_grade, n_gap):
    even = rng.random(4000)
    part, graph = (even > 0.5).astype(int), csr_matrix((4000, 4000))
    for place, n_default in ((even, n_grade), (np.where(even > 0.5, 0.75, 0.25), n_gap)):
        tree = agglomerate(part, graph, evidence_of(on_a_line(rng, place, nats)[0]))
        assert tree.worth[0] == pytest.approx(nats, rel=0.2)
        assert tree.n_default == n_default


def test_many_confused_cells_do_not_join_a_pair_that_is_worth_much(rng):
    """Cells on a line; those near the middle are divided at random."""
    place = rng.random(4000)
    part = (place + rng.normal(0, 0.2, 4000) > 0.5).astype(int)
    evidence = evidence_of(on_a_line(rng, place, 80.0)[0])
    tree = agglomerate(part, csr_matrix((4000, 4000)), evidence)
    assert tree.confusion[0] > 0.07
    assert tree.worth[0] > EVEN * MIN_WORTH
    assert tree.n_default == 2
    assert agglomerate(part, csr_matrix((4000, 4000)), evidence, tree.worth[0] / 4).n_default == 1  # below 5.9 times


def test_confused_cells_may_be_at_most_5_percent_unless_the_worth_is_high(three):
    """Below the default of ``min_worth``, as many as at a gap of so many nats. Files of 0.1.0 have no such share."""
    assert most_confused(MIN_WORTH) == pytest.approx(0.05, abs=1e-4)
    assert most_confused(20.0) == 0.05
    assert most_confused(2.0) == pytest.approx(norm.sf(1.0))
    evidence, graph, _, part = three
    tree = agglomerate(part, graph, evidence)
    n, least = len(tree.pairs), MIN_WORTH
    worth = np.array([least, 1.01 * EVEN * least, 0.9 * least, least, 20.0])
    confusion = np.array([0.04, 0.2, 0.0, 0.06, np.nan])
    tree = tree._replace(worth=worth, error=np.full(n, 0.01), confusion=confusion)
    assert tree.clear(least).tolist() == [True, True, False, False, True]
    assert not tree._replace(error=np.full(n, 100.0)).clear(least).any()  # none is significant


def test_default_clusters_are_the_populations(three):
    """Their random halves are joined, they are not; and the order above is that of likelihood."""
    evidence, graph, y, part = three
    tree = agglomerate(part, graph, evidence)
    check(tree, part)
    assert tree.n_default == 3
    assert [set(y[np.isin(part, np.flatnonzero(tree.cut(3) == k))]) for k in range(3)] in (
        [[{a}, {b}, {c}] for a in range(3) for b in range(3) for c in range(3) if len({a, b, c}) == 3]
    )
    assert (tree.supported[-2:]).all()
    assert not tree.supported[:-2].any()
    assert tree.kind.tolist() == ["noise"] * 3 + ["gap"] * 2
    assert np.isnan(tree.between[:3]).all()
    assert tree.n_default - 1 <= tree.supported.sum()
    assert tree.worth[-2:].min() > tree.min_worth == MIN_WORTH
    groups = [evidence.group(np.flatnonzero(y == k)) for k in range(3)]
    losses = {(a, b): evidence.loss(groups[a], groups[b]) for a in range(3) for b in range(a)}
    first = [set(y[np.isin(part, tree.leaves()[node])]) for node in tree.pairs[3]]
    assert set.union(*first) == set(min(losses, key=losses.get))


def test_worth_and_support_are_those_of_the_evidence(three):
    evidence, graph, y, part = three
    tree = agglomerate(part, graph, evidence)
    below = tree.leaves()
    for j, pair in enumerate(tree.pairs):
        gain = evidence.gain(*(evidence.group(np.flatnonzero(np.isin(part, below[node]))) for node in pair))
        np.testing.assert_allclose((tree.worth[j], tree.error[j]), gain)
        limit = t.isf(SPLIT_LEVEL / 5, tree.cells[j].min() - 1) * gain.error
        assert tree.supported[j] == (gain.worth > limit)


def test_a_split_must_be_worth_what_is_asked(three):
    evidence, graph, y, part = three
    tree = agglomerate(part, graph, evidence)
    for k, wanted in ((3, 0.0), (3, tree.worth[-2:].min() * 0.99), (1, tree.worth.max() * 10)):
        found = agglomerate(part, graph, evidence, min_worth=wanted)
        assert (found.n_default, found.min_worth) == (k, wanted)


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_one_population_are_one_cluster(seed):
    rng = np.random.default_rng(seed)
    evidence = evidence_of(draw(rng, 100 * profiles(rng, 1, G).repeat(N, 0)), seed=seed)
    part = rng.integers(8, size=N)
    tree = agglomerate(part, shared_neighbors(rng.normal(size=(N, 3))), evidence)
    assert tree.n_default == 1
    assert set(tree.kind) == {"noise"}
    assert agglomerate(part, csr_matrix((N, N)), evidence, min_worth=-np.inf).n_default == 1  # by significance alone


def test_a_line_is_cut_in_grades(rng):
    ends, place = np.log(profiles(rng, 2, G, 0.5)), rng.random(2000)
    p = np.exp((1 - place)[:, None] * ends[0] + place[:, None] * ends[1])
    evidence = evidence_of(draw(rng, 300 * p / p.sum(1, keepdims=True)))
    part = np.minimum((place * 2).astype(int), 1)
    (kind,) = agglomerate(part, shared_neighbors(place[:, None]), evidence, min_worth=0.0).kind
    assert kind == "grade"


def test_kinds_are_those_of_the_table():
    nan, k = np.full(4, np.nan), 4
    tree = Tree(
        np.arange(8).reshape(4, 2), np.full((4, 2), 50), np.array([5.0, 5, 2, np.nan]), np.ones(4),
        np.array([0.24, 0.26, 0.0, np.nan]), nan, nan, k, 1.0,
    )  # fmt: skip
    assert tree.kind.tolist() == ["gap", "grade", "noise", ""]
    assert tree.supported.tolist() == [True, True, False, False]  # 2 errors are enough for one split, not for four


def test_joins_inside_default_clusters_come_first(rng):
    """However much likelihood a join inside one loses: a large population has parts whose loss is large by their size.

    Of two close populations of few cells, less is lost than by joining noise in a large one."""
    y = np.repeat([0, 1, 2], [2000, 30, 30])
    mean = profiles(rng, 3, G, 0.5)
    evidence = evidence_of(draw(rng, 100 * mean[y]))
    part = np.where(y == 0, rng.integers(6, size=len(y)), y + 5)
    tree = agglomerate(part, csr_matrix((len(y), len(y))), evidence)
    assert tree.n_default == 3
    assert sorted(map(sorted, (tree.leaves()[node] for node in tree.nodes(3)))) == [[0, 1, 2, 3, 4, 5], [6], [7]]


def test_inside_default_clusters_the_pair_of_lowest_worth_joins_first(three):
    """The order below the default cut, by brute force: the worth of all pairs that are one cluster, at each join."""
    evidence, graph, y, part = three
    tree = agglomerate(part, graph, evidence)
    groups = {k: evidence.group(np.flatnonzero(part == k)) for k in range(6)}
    below, home = tree.leaves(), tree.cut(tree.n_default)
    for j, pair in enumerate(tree.pairs[: 6 - tree.n_default]):
        worth = {
            (a, b): evidence.gain(groups[a], groups[b]).worth
            for a in groups
            for b in groups
            if a < b and home[below[a][0]] == home[below[b][0]]
        }
        assert tuple(pair) == min(worth, key=worth.get)
        groups[6 + j] = groups.pop(pair[0]).join(groups.pop(pair[1]))
    assert tree.n_default == 3
