"""What several views agree on, and which of their partitions is taken."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score

from mixvi import classes, cluster, consensus, datasets


@pytest.fixture(scope="module")
def views():
    """One view that tells four blobs apart, one that tells only two, one of noise; and the blobs."""
    sharp, y = make_blobs(300, 5, centers=4, cluster_std=0.8, random_state=1)
    blurred, _ = make_blobs([np.sum(y % 2 == 0), np.sum(y % 2 == 1)], 5, cluster_std=0.8, shuffle=False, random_state=2)
    half = np.empty_like(blurred)
    half[np.argsort(y % 2, kind="stable")] = blurred
    noise = np.random.default_rng(0).normal(size=(300, 5))
    return [sharp, half, noise], y


def test_the_partition_that_stands_apart_most_is_taken(views):
    (sharp, half, noise), y = views
    graphs = [cluster.neighbor_graph(view) for view in (noise, half, sharp)]
    part, _ = consensus.consensus([noise, half, sharp], graphs, [sharp], 4)
    assert adjusted_rand_score(part, y) == 1
    by_noise, _ = consensus.consensus([noise, half, sharp], graphs, [noise], 4)
    assert silhouette_score(noise, by_noise) >= silhouette_score(noise, part)
    assert (np.diff(np.bincount(part)) <= 0).all()


def test_as_many_parts_as_asked_for_come_before_wide_silhouettes(views, monkeypatch):
    (sharp, *_), y = views
    graph = cluster.neighbor_graph(sharp)
    answers = iter([y, cluster.partition(graph, 5), cluster.partition(graph, 5)])
    monkeypatch.setattr(consensus, "partition", lambda *_: next(answers))
    part, _ = consensus.consensus([sharp, sharp], [graph, graph], [sharp], 5)
    assert part.max() + 1 == 5


def test_partitions_agree_as_far_as_they_match_one_to_one():
    part = np.repeat([0, 1], 50)
    renamed, finer, off = 1 - part, np.repeat([0, 1, 2, 3], 25), np.where(np.arange(100) < 20, 1, part)
    assert consensus.agreement(part, [finer]) == 0.5
    assert consensus.agreement(part, [off]) == 0.8
    assert consensus.agreement(part, [off, finer]) == pytest.approx(0.65)
    assert consensus.agreement(part, [renamed]) == 1.0
    assert consensus.agreement(part, []) is None
    assert consensus.agreement(part, [np.full(100, -1)]) is None
    assert consensus.agreement(part, [np.where(np.arange(100) < 40, off, -1)]) == 0.5  # of those that were asked


@pytest.mark.parametrize("n_clusters", [4, None])
@pytest.mark.parametrize("chosen", [1, 6])
def test_other_partitions_have_as_many_parts_and_are_not_the_one_that_was_taken(views, n_clusters, chosen, monkeypatch):
    """Of two views of counts and the latent space, by Leiden and by k-means each."""
    consent = consensus.consensus

    def takes(*args):
        best, others = consent(*args)
        return (
            (best, [other for other in others if other is not best][:5] + [best])
            if chosen == 1
            else (best.copy(), others)
        )

    monkeypatch.setattr(consensus, "consensus", takes)
    (sharp, *_), y = views
    cells = datasets.blobs(300, 40, n_clusters=4, kind="count")
    placed = consensus.place(sharp, csr_matrix(cells.X), np.full(300, -1), 0, n_clusters)
    assert len(placed.others) == (5 if chosen == 1 else 6)
    assert {other.max() for other in placed.others} == {placed.part.max()}


def test_an_open_number_of_parts_of_a_latent_space_is_compared_with_islands_of_some_cells(views, monkeypatch):
    (sharp, *_), y = views
    monkeypatch.setattr(consensus, "MAX_JUDGED", 200)
    part, _, (some,), _ = consensus.place(sharp, None, np.full(300, -1), 0)
    asked = some >= 0
    assert asked.sum() == 200
    assert adjusted_rand_score(y[asked], some[asked]) == 1
    assert consensus.agreement(part, [some]) == 1
    _, _, (few,), _ = consensus.place(sharp[:50], None, np.full(50, -1), 0)
    assert (few == -1).all()


def test_how_many_labels_are_found_is_handed_on(views):
    (sharp, *_), y = views
    labels = np.where(np.arange(300) % 6, -1, y)
    labels[0] = (y[0] + 1) % 4
    found = consensus.place(sharp, None, labels, 4)
    assert found.share_found == 50 / 52  # of fifty, all but the wrong one
    assert found.share_found == classes.partition_with_classes(found.graph, labels, 4)[1]


def test_an_open_number_of_parts_is_found(views):
    (sharp, half, _), _ = views
    graphs = [cluster.neighbor_graph(view) for view in (sharp, half)]
    part, _ = consensus.consensus([sharp, half], graphs, [sharp], None)
    assert 1 < part.max() + 1 < 20


def test_where_leiden_fails_communities_merged_by_distance_are_taken(views, monkeypatch):
    (sharp, *_), y = views
    graph = cluster.neighbor_graph(sharp)
    monkeypatch.setattr(consensus, "partition", lambda *_: np.random.default_rng(0).integers(4, size=300))
    part, _ = consensus.consensus([sharp, sharp], [graph, graph], [sharp], 4)
    assert adjusted_rand_score(y, part) > 0.95


def test_more_parts_than_small_communities_are_delivered(views, monkeypatch):
    """However wide the silhouettes of the communities are."""
    (sharp, *_), y = views
    graph = cluster.neighbor_graph(sharp)
    monkeypatch.setattr(consensus, "communities", lambda *_: y)
    part, _ = consensus.consensus([sharp, sharp], [graph, graph], [sharp], 7)
    assert silhouette_score(sharp, y) > silhouette_score(sharp, part)
    assert part.max() + 1 == 7


def test_communities_merged_by_distance_make_up_for_parts_that_leiden_lacks(views, monkeypatch):
    (sharp, *_), y = views
    graph = cluster.neighbor_graph(sharp)
    monkeypatch.setattr(consensus, "partition", lambda *_: y // 2)
    assert consensus.consensus([sharp, sharp], [graph, graph], [sharp], 7)[0].max() + 1 == 7


@pytest.mark.parametrize(
    ("other", "judges", "taken"),
    [("half", 2, "by communities"), ("half", 1, "by distance"), ("sharp", 2, "by distance")],
)
def test_communities_merged_by_distance_are_taken_if_no_judge_objects(views, monkeypatch, other, judges, taken):
    """Four blobs that one view shows stand against a cut that the other view shows, three to one."""
    (sharp, half, _), y = views
    second = {"half": half, "sharp": sharp}[other]
    cut = np.where(y % 2, np.arange(300) % 3, 3)
    graph = cluster.neighbor_graph(sharp)
    monkeypatch.setattr(consensus, "partition", lambda *_: cut)
    monkeypatch.setattr(consensus, "merge_by_distance", lambda *_: y)
    part, _ = consensus.consensus([sharp, second], [graph, graph], [sharp, second][:judges], 4)
    wide = [silhouette_score(second, each) for each in (cut, y)]
    assert (wide[0] > wide[1]) == (other == "half")
    np.testing.assert_array_equal(part, cut if taken == "by communities" else y)


@pytest.mark.parametrize(
    ("author", "width", "taken"),
    [(0, (0.25, 0.45), "by communities"), (1, (0.25, 0.45), "by distance"), (2, (0.25, 0.45), "by communities"),
     (1, (0.15, 0.4), "by communities"), (1, (0.05, 0.9), "by communities"), (1, (0.2, 0.6), "by distance")],
)  # fmt: skip
def test_a_view_is_not_asked_about_its_own_communities(views, monkeypatch, author, width, taken):
    """Communities are of one of two views, or what both agree on, and have widths 0.1 and 0.5; others stand against."""
    (sharp, half, _), y = views
    cut, worse = np.where(y % 2, np.arange(300) % 3, 3), np.arange(300) % 4
    found = [cut if k == author else worse for k in range(3)]
    monkeypatch.setattr(consensus, "partition", lambda *_: found.pop(0))
    monkeypatch.setattr(consensus, "merge_by_distance", lambda *_: y)
    widths = {id(cut): (0.1, 0.5), id(worse): (0.0, 0.0), id(y): width}
    monkeypatch.setattr(consensus, "silhouettes", lambda part, judges, seed: list(widths[id(part)]))
    graph = cluster.neighbor_graph(sharp)
    part, _ = consensus.consensus([sharp, half], [graph, graph], [sharp, half], 4)
    np.testing.assert_array_equal(part, cut if taken == "by communities" else y)


def test_views_of_counts_are_those_of_scanpy():
    cells = datasets.pbmc68k_reduced()
    counts = csr_matrix(cells.X)
    log, residuals = consensus.count_components(counts)
    assert log.shape == residuals.shape == (cells.n_obs, consensus.N_COMPONENTS)
    x = counts.toarray().astype(float)
    x = x[:, x.sum(0) > 0]
    total, bound = x.sum(1, keepdims=True), len(x) ** 0.5
    mean = total * x.sum(0) / x.sum()
    by_hand = (
        np.log1p(1e4 * x / total),
        np.clip((x - mean) / np.sqrt(mean + mean**2 / consensus.THETA), -bound, bound),
    )
    for values, found in zip(by_hand, (log, residuals), strict=True):
        expected = PCA(5, svd_solver="full").fit_transform(values)
        for k in range(5):
            assert abs(np.corrcoef(expected[:, k], found[:, k])[0, 1]) > 0.999


def test_cells_and_genes_without_a_count_do_no_harm(monkeypatch):
    counts = np.random.default_rng(0).poisson(1.0, (200, 40)).astype(float)
    counts[3] = 0
    counts[:, 7] = 0
    found = consensus.count_components(csr_matrix(counts))
    assert len(found) == 2
    assert all(np.isfinite(view).all() for view in found)
    monkeypatch.setattr(consensus, "MAX_VALUES", 100)
    assert consensus.count_components(csr_matrix(counts)) == []


@pytest.mark.parametrize("most", [1, 8, 400])
def test_views_in_which_all_cells_are_alike_are_left_out(views, most):
    """The same genes in the same parts, but more or less of them: not quite alike in single precision."""
    (sharp, *_), y = views
    counts = csr_matrix(np.outer(np.random.default_rng(0).integers(1, most, 300, endpoint=True), np.arange(40) % 5))
    assert consensus.count_components(counts) == []
    part, *_ = consensus.place(sharp, counts, np.full(300, -1), 0, 4)
    assert adjusted_rand_score(part, y) == 1


def test_a_view_in_which_all_cells_are_alike_is_left_out_alone(monkeypatch):
    counts = csr_matrix(np.random.default_rng(0).poisson(1.0, (200, 40)))
    log, residuals = consensus.count_components(counts)
    monkeypatch.setattr("scanpy.pp.log1p", lambda cells: cells.X.data.fill(0.0))
    (left,) = consensus.count_components(counts)
    np.testing.assert_array_equal(left, residuals)


def test_without_counts_it_is_the_partition_of_the_latent_space(views):
    (sharp, *_), _ = views
    nothing = np.full(300, -1)
    part, graph, *_ = consensus.place(sharp, None, nothing, 0, 4, seed=3)
    np.testing.assert_array_equal(part, cluster.partition(graph, 4, 3))
    assert abs(graph - cluster.neighbor_graph(sharp, 3)).sum() == 0


def test_islands_of_the_layout_are_the_blobs(views):
    (sharp, *_), y = views
    part = consensus.islands(sharp, cluster.neighbor_graph(sharp), 4)
    assert adjusted_rand_score(part, y) == 1
    assert (np.diff(np.bincount(part)) <= 0).all()


def test_islands_are_what_mixtures_agree_on(views, monkeypatch):
    """Each mixture joins two of the four blobs, never all the same two, and cuts the others at will."""
    (sharp, *_), y = views
    rng = np.random.default_rng(0)

    class Mixture:
        def __init__(self, n_components, **_):
            self.n_components = n_components

        def fit_predict(self, layout):
            joined, pieces = y.copy(), rng.integers(2, size=300)
            joined[y == rng.integers(4)] = rng.integers(4)
            asked.append(self.n_components)
            return np.unique(2 * joined + pieces * (joined == rng.integers(4)), return_inverse=True)[1]

    asked = []
    monkeypatch.setattr(consensus, "GaussianMixture", Mixture)
    np.testing.assert_array_equal(consensus.islands(sharp, cluster.neighbor_graph(sharp), 4), cluster.by_size(y))
    assert sorted(asked) == [3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("right", ["islands", "partition"])
def test_without_counts_communities_stand_against_islands(views, monkeypatch, right):
    (sharp, _, noise), y = views
    wrong = np.random.default_rng(0).integers(4, size=300)
    for name in ("islands", "partition"):
        monkeypatch.setattr(consensus, name, lambda *_, found=y if name == right else wrong: found)
    part, *_ = consensus.place(sharp, None, np.full(300, -1), 0, 4)
    np.testing.assert_array_equal(part, cluster.by_size(y))


def test_without_counts_what_the_latent_space_is_of_judges(views, monkeypatch):
    """The latent space may itself show what is not in the values."""
    (_, half, _), y = views
    in_latent, in_values = y % 2, y // 2
    for name, found in (("islands", in_latent), ("partition", in_values)):
        monkeypatch.setattr(consensus, name, lambda *_, found=found: found)
    blobs, _ = make_blobs([np.sum(y // 2 == 0), np.sum(y // 2 == 1)], 5, cluster_std=0.8, shuffle=False, random_state=3)
    values = np.empty_like(blobs)
    values[np.argsort(y // 2, kind="stable")] = blobs
    nothing = np.full(300, -1)
    np.testing.assert_array_equal(consensus.place(half, None, nothing, 0, 2)[0], cluster.by_size(in_latent))
    np.testing.assert_array_equal(
        consensus.place(half, None, nothing, 0, 2, values=values)[0], cluster.by_size(in_values)
    )


@pytest.mark.parametrize("even", ["islands", "partition"])
def test_without_counts_variance_between_parts_counts_not_silhouettes(monkeypatch, even):
    """Five cells beside a cloud, which stand apart as two halves of it do not."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3)) + np.outer(np.arange(300) >= 295, [0, 0, 5])
    halves, few = values[:, 0] > 0, np.arange(300) >= 295
    assert silhouette_score(values, few) > silhouette_score(values, halves)
    for name in ("islands", "partition"):
        monkeypatch.setattr(consensus, name, lambda *_, found=(halves if name == even else few).astype(int): found)
    part, *_ = consensus.place(values, None, np.full(300, -1), 0, 2)
    np.testing.assert_array_equal(part, cluster.by_size(halves.astype(int)))


def test_variance_ratio_is_that_of_the_sums_of_squares(rng):
    part, view = np.repeat([0, 1, 2], [5, 7, 8]), rng.normal(size=(20, 3))
    mean = np.array([view[part == k].mean(0) for k in range(3)])[part]
    between, within = ((mean - view.mean(0)) ** 2).sum(), ((view - mean) ** 2).sum()
    assert consensus.variance_ratio(part, view) == pytest.approx(between / 2 / (within / 17))
    assert consensus.variance_ratio(np.zeros(20), view) == consensus.variance_ratio(np.arange(20), view) == 0


def test_a_part_that_the_judged_cells_miss_is_not_taken(views, monkeypatch):
    (sharp, *_), y = views
    monkeypatch.setattr(consensus, "MAX_JUDGED", 50)
    lonely = np.zeros(300, dtype=int)
    lonely[np.setdiff1d(np.arange(300), np.random.default_rng(0).permutation(300)[:50])[0]] = 1
    assert consensus.widest([lonely, y % 2], [sharp], 2) is not lonely


def test_an_open_number_and_few_cells_go_without_islands(views, monkeypatch):
    (sharp, *_), _ = views
    monkeypatch.setattr(consensus, "islands", lambda latent, *_: np.arange(len(latent)) % 2)
    part, graph, *_ = consensus.place(sharp, None, np.full(300, -1), 0)
    np.testing.assert_array_equal(part, cluster.merge(cluster.partition(graph), graph))
    monkeypatch.setattr(consensus, "islands", None)
    assert consensus.place(sharp[:50], None, np.full(50, -1), 0, 3)[0].max() == 2


def test_counts_tell_apart_what_the_latent_space_has_lost():
    cells = datasets.blobs(400, 60, n_clusters=3, kind="count")
    truth, lost = cells.obs["cluster"], np.random.default_rng(0).normal(size=(400, 5))
    part, *_ = consensus.place(lost, csr_matrix(cells.X), np.full(400, -1), 0, 3)
    assert adjusted_rand_score(truth, part) > 0.95
    alone, *_ = consensus.place(lost, None, np.full(400, -1), 0, 3)
    assert adjusted_rand_score(truth, alone) < 0.1
