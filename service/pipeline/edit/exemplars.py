"""Exemplars: where a model cannot draw, the image of the batch that is nearest to what would be drawn.

On photographs a real neighbour says more than a blurred drawing: what the image would look like if it belonged is shown
by one that does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from service.bundle.store import Bundle
from service.core.detect.standardize import PopulationUnits
from service.core.types import IndexArray
from service.errors import InvalidInput
from service.pipeline.batch import Batch
from service.pipeline.edit.edit_plan import EditPlan

WARNING = "This model cannot draw: each picture is the image of the batch that is nearest to it, named in `exemplar`."


def choose(plan: EditPlan, batch: Batch, bundle: Bundle) -> IndexArray:
    """Return the row (k,) among the batch's usable images that is nearest to each of the k planned latents.

    Images that fit are preferred to flagged ones, and never is an image its own exemplar.
    Raises InvalidInput where no image is left to choose from.
    """
    from scipy.spatial import KDTree

    units = PopulationUnits.of(bundle.population)
    points = units.points(batch.images.latents)
    fits = np.ones(len(points), dtype=bool) if batch.scores is None else ~batch.scores.is_outlier
    candidates = np.flatnonzero(fits if fits.sum() > 1 else np.ones(len(points), dtype=bool))
    if len(candidates) < 2:
        raise InvalidInput(
            f"The model {bundle.manifest.model} has no decoder, and {len(points)} usable images leave nothing to show "
            "instead of a drawing.",
            "Send some images that belong together, or serve a bundle with decoder.onnx.",
        )
    _, nearest = KDTree(points[candidates]).query(units.points(plan.latents), k=[1, 2])
    rows = candidates[nearest]
    sources = np.array(plan.sources)
    own = np.searchsorted(batch.positions, sources)
    is_own = (sources >= 0) & (rows[:, 0] == own) & (plan.originals is not None)
    return np.asarray(np.where(is_own, rows[:, 1], rows[:, 0]))


def named(plan: EditPlan, rows: IndexArray, batch: Batch) -> EditPlan:
    """Return the plan with the ids of the images in `rows` (k,), and a warning that they are no drawings."""
    positions = batch.positions
    ids = tuple(batch.images.ids[positions[row]] for row in rows)
    context = batch.with_warnings(WARNING).context if plan.context is not None else None
    return replace(plan, exemplars=ids, context=context)
