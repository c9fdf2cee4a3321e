"""The order in which cells are suggested for labels."""

import numpy as np

from mixvi.cluster.suggest import typical_first


def test_components_take_turns_and_the_least_sure_begins():
    r = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0, 0, 1], [0.4, 0.6, 0], [0.1, 0, 0.9]])
    assert typical_first(r, np.array([1.0, 3.0, 2.0])).tolist() == [2, 3, 0, 4, 5, 1]
    assert typical_first(r, np.zeros(3)).tolist() == [0, 2, 3, 1, 4, 5]
