import numpy as np
import pytest
from edit_context import CONTEXT, COVARIANCE, LOCATION

from service.core.edit import sampling, traversal
from service.errors import InvalidOption


def test_counts_out_of_range_are_refused_with_the_range():
    rng = np.random.default_rng(0)
    for count in (-1, 0, 1, 1001, 10**12):
        with pytest.raises(InvalidOption, match=f"{count} frames asked for; expected 2 to 1000"):
            traversal.interpolate(LOCATION, LOCATION, count)
        with pytest.raises(InvalidOption, match="expected 2 to 500"):
            traversal.traverse(LOCATION, [0, 2], count, LOCATION, COVARIANCE)
        with pytest.raises(InvalidOption, match="expected 2 to 31"):
            traversal.traverse_plane(LOCATION, (0, 2), count, LOCATION, COVARIANCE)
    for count in (-1, 0, 1001):
        with pytest.raises(InvalidOption, match="expected 1 to 1000"):
            sampling.sample_gaussian(count, *CONTEXT, 1.0, rng)
        with pytest.raises(InvalidOption, match="expected 1 to 1000"):
            sampling.sample_empirical(np.zeros((3, 2, 5)), count, rng)
