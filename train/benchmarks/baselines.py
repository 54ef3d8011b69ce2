"""The methods that the benchmark compares: each maps the held-out images and one context to outlier scores (n,).

ensemble, ...          the service's estimators
knn                    mean distance to the nearest images of the context, in population units
isolation_forest       Liu, Ting & Zhou (2008), on the latents in population units
reconstruction         squared error of the decoded image; independent of the context
pixel_pca              leave-one-out distance on principal components of the pixels; no network
oracle                 log odds of a Gaussian with the moments of all images that follow the context's rule
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from sklearn.ensemble import IsolationForest

from service.core.detect.estimators.classical import leave_one_out_distances
from service.core.detect.scoring import score
from service.core.detect.standardize import PopulationUnits
from service.core.population import Population
from service.core.types import EstimatorName
from train.benchmarks.contexts import FloatArray, IntArray, LabelledContext, oracle_odds

NEIGHBOURS = 5
# Added to every component, as a share of the widest one's variance: images may be fewer than components.
PIXEL_FLOOR = 1e-3


class Material(NamedTuple):
    """The held-out images as input of the methods.

    latents               (N, 2, L)
    factors               (N, K)
    reconstruction_error  (N,)       as the service measures it, for the check for out-of-distribution images
    components            (N, c)     the pixels' principal components
    latent_factors        (L,)       index of the factor that each latent is named after, -1 for none
    held_out              (N,)       the images that the model was not trained on; None where that holds for all
    """

    latents: FloatArray
    factors: IntArray
    population: Population
    reconstruction_error: FloatArray
    components: FloatArray
    latent_factors: IntArray
    held_out: NDArray[np.bool_] | None = None


Method = Callable[[Material, LabelledContext], FloatArray]


def _service(estimator: EstimatorName) -> Method:
    def scores(material: Material, context: LabelledContext) -> FloatArray:
        return score(material.latents[context.rows], material.population, estimator=estimator).outlier_score

    return scores


def _points(material: Material, context: LabelledContext) -> NDArray[np.float64]:
    return PopulationUnits.of(material.population).points(material.latents[context.rows])


def _knn(material: Material, context: LabelledContext) -> FloatArray:
    points = _points(material, context)
    distances, _ = KDTree(points).query(points, NEIGHBOURS + 1)  # the nearest is the point itself
    return np.asarray(distances[:, 1:].mean(axis=1))


def _isolation_forest(material: Material, context: LabelledContext) -> FloatArray:
    points = _points(material, context)
    return np.asarray(-IsolationForest(random_state=0).fit(points).score_samples(points))


def _reconstruction(material: Material, context: LabelledContext) -> FloatArray:
    return material.reconstruction_error[context.rows]


def _pixel_pca(material: Material, context: LabelledContext) -> FloatArray:
    components = material.components[context.rows].astype(np.float64)
    floor = np.full(components.shape[1], PIXEL_FLOOR * components.var(axis=0).max())
    return leave_one_out_distances(components, floor)


def _oracle(material: Material, context: LabelledContext) -> FloatArray:
    return oracle_odds(material.latents, context, material.population)


ESTIMATORS: tuple[EstimatorName, ...] = get_args(EstimatorName)
METHODS: dict[str, Method] = {
    **{name: _service(name) for name in ESTIMATORS},
    "knn": _knn,
    "isolation_forest": _isolation_forest,
    "reconstruction": _reconstruction,
    "pixel_pca": _pixel_pca,
    "oracle": _oracle,
}
# The estimators whose flags are counted.
FLAGGING: tuple[EstimatorName, ...] = ("ensemble", "density_ratio", "mixture", "robust")
# These take a hundred times as long as the others.
SLOW = ("mcd", "isolation_forest")
