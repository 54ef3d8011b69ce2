"""The latents that an edit, traversal, interpolation or sample decodes, and what the answer says about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.api import latent_names
from service.api.image_names import ImageNames
from service.api.options import (
    EditOptions,
    ImageChoice,
    InterpolateOptions,
    SampleOptions,
    TraverseOptions,
    most_pictures,
)
from service.api.schemas import ErrorDetail
from service.bundle.store import Bundle
from service.core.detect.context import Context
from service.core.edit import latent_edits, sampling, traversal
from service.core.explain import attribution, minimal_sets
from service.core.types import BoolArray, Float64Array
from service.errors import InvalidOption, quoted
from service.images.spec import Uint8Array
from service.pipeline import responses
from service.pipeline.batch import Batch


@dataclass(frozen=True)
class EditPlan:
    """k pictures to be decoded.

    latents     (k, L)
    start       (k, L)  the latents that each starts from, or None
    sources     (k,)    the position of the request's image that each starts from, -1 for none
    originals   (k, H, W, C)  those images, shown beside the pictures, or None
    ids         (k,)
    columns             pictures in a row of the contact sheet
    row_captions, column_captions  of the contact sheet
    repaired    (k, L)  of counterfactuals, the latents that were changed so that the image fits
    exemplars   (k,)    ids of the images that are shown because the model cannot draw, or None
    note                why there is nothing to draw, where k is 0
    """

    latents: Float64Array
    start: Float64Array | None
    sources: Sequence[int]
    ids: Sequence[str]
    columns: int
    row_captions: Sequence[str]
    column_captions: Sequence[str]
    context: Context | None
    errors: dict[str, ErrorDetail]
    warnings: tuple[str, ...] = ()
    originals: Uint8Array | None = None
    repaired: BoolArray | None = None
    exemplars: Sequence[str] | None = None
    note: str = ""


def check_count(count: int, bundle: Bundle) -> None:
    """Raise InvalidOption where one answer may not hold `count` pictures."""
    image = bundle.manifest.image
    if count > (limit := most_pictures(image)):
        raise InvalidOption(
            f"{count} pictures of {image.width} x {image.height} pixels; at most {limit} are drawn at a time.",
            "Ask for fewer.",
        )


def plan_edit(batch: Batch, options: EditOptions, bundle: Bundle) -> EditPlan:
    """Plan the edit of the images that the options name. There may be none: in a batch where nothing is flagged.

    Raises InvalidOption where there is no such image, UnknownLatent, and what `latent_edits` raises.
    """
    scores, context, latents = batch.require_scores(), batch.context, bundle.manifest.latents
    live = bundle.population.live_dims
    positions = batch.positions
    if options.which == "all":
        rows = np.arange(len(positions))
    elif options.which == "flagged":
        rows = np.flatnonzero(scores.is_outlier)
    else:
        rows = np.array(_find_rows(options.which, batch), dtype=np.intp)
    note = ""
    if len(rows) == 0:
        none = f"None of the {len(positions)} images is flagged" if options.which == "flagged" else "No image is named"
        note = f'{none}, so there is nothing to edit. Name images with which=all or which=["a.png", "index:3"].'
        batch = batch.with_warnings(note)
        context = batch.context
    if len(rows) > (limit := most_pictures(bundle.manifest.image)):
        raise InvalidOption(
            f"{len(rows)} images are to be edited; at most {limit} are at a time.", "Name fewer in which."
        )
    start = batch.images.latents[rows, 0].astype(np.float64)
    repaired = None
    if options.edit == "counterfactual":
        if options.latents is None:
            repaired = minimal_sets.minimal_sets(batch.images.latents[rows], context, bundle.population)
            # An image that already fits has no such set. Change the latent that is most to blame.
            terms = attribution.attribute(batch.images.latents[rows], context, bundle.population)
            most_to_blame = np.arange(len(latents)) == attribution.order(terms, context)[:, :1]
            repaired = np.where(repaired.any(axis=1, keepdims=True), repaired, most_to_blame)
        else:
            dims = [latent_names.resolve(latent, latents) for latent in options.latents]
            repaired = np.isin(np.arange(len(latents)), dims)[None].repeat(len(rows), axis=0)
        edited = latent_edits.counterfactual(start, repaired, context.location, context.covariance, live)
    elif options.edit == "project":
        edited = latent_edits.project(start, context.location, context.covariance, live, context.radius_squared)
    else:
        values = latent_names.resolve_values(options.values, latents)
        edited = latent_edits.move(
            start, values, options.unit, options.edit == "shift", context.location, context.covariance
        )
    ids = [batch.images.ids[positions[row]] for row in rows]
    return EditPlan(
        latents=edited,
        start=start,
        sources=[positions[row] for row in rows],
        ids=ids,
        columns=2,
        row_captions=ids,
        column_captions=("as sent", options.edit),
        context=context,
        errors=responses.errors_by_id(batch.images),
        repaired=None if repaired is None else repaired & np.isin(np.arange(len(latents)), live),
        note=note,
    )


def plan_traverse(batch: Batch, options: TraverseOptions, bundle: Bundle) -> EditPlan:
    """Plan a grid of pictures along the latents that the options name.

    Raises UnknownLatent, and InvalidOption for a plane of other than two latents and for too many pictures.
    """
    context, latents, population = batch.context, bundle.manifest.latents, bundle.population
    if options.latents is None:
        dims = population.live_dims.tolist()
    else:
        dims = [latent_names.resolve(latent, latents) for latent in options.latents]
    # Not from the middle if there are images: a mean of several modes may look like nothing at all.
    row = batch.typical if options.start is None else _find_rows([options.start], batch)[0]
    start = context.location if row is None else batch.images.latents[row, 0].astype(np.float64)
    moments = (
        (context.location, context.covariance)
        if options.span_of == "context"
        else (population.location, population.covariance)
    )
    # Adding 0 makes -0 a 0.
    steps = [f"{step + 0:.2g} sd" for step in np.linspace(-options.span, options.span, options.steps).round(6)]
    if options.plane:
        if len(dims) != 2:
            count = f"the model has {len(dims)}" if options.latents is None else f"{len(dims)} are given"
            raise InvalidOption(f"A plane takes two latents, {count}.", "Name the two in latents, or leave plane.")
        grid = traversal.traverse_plane(start, (dims[0], dims[1]), options.steps, *moments, span=options.span)
        names = [latents[dims[0]].name] * options.steps
        row_captions = [
            f"{names[0]} {step:+.1f} sd" for step in np.linspace(-options.span, options.span, options.steps)
        ]
    else:
        if len(dims) * options.steps > (limit := most_pictures(bundle.manifest.image)):
            raise InvalidOption(
                f"{len(dims)} latents in {options.steps} steps are {len(dims) * options.steps} pictures; at most "
                f"{limit} are drawn at a time.",
                "Name fewer latents, or take fewer steps.",
            )
        grid = traversal.traverse(start, dims, options.steps, *moments, span=options.span)
        row_captions = names = [latents[dim].name for dim in dims]
    return _plan_from_one(
        batch,
        grid.reshape(-1, grid.shape[-1]),
        start if row is not None else None,
        row,
        ids=[f"{name}_{down}_{across}" for down, name in enumerate(names) for across in range(options.steps)],
        columns=options.steps,
        row_captions=row_captions,
        column_captions=steps,
    )


def plan_interpolate(batch: Batch, options: InterpolateOptions, bundle: Bundle) -> EditPlan:
    """Plan the path between two images. Raise InvalidOption where start or end is no image of the request."""
    rows = _find_rows([options.start, options.end], batch)
    first, last = (batch.images.latents[row, 0] for row in rows)
    path = traversal.interpolate(first.astype(np.float64), last.astype(np.float64), options.frames)
    return _plan_from_one(
        batch,
        path,
        path[0],
        rows[0],
        ids=[f"frame_{frame:03}" for frame in range(options.frames)],
        columns=min(options.frames, 10),
    )


def plan_sample(batch: Batch, options: SampleOptions, bundle: Bundle) -> EditPlan:
    """Plan samples of the context. Raise ContextTooSmall where there is no normal image to draw from."""
    context, rng = batch.context, np.random.default_rng(options.seed)
    sources = [-1] * options.count
    if options.method == "empirical":
        normal = np.flatnonzero(~batch.scores.is_outlier) if batch.scores is not None else np.empty(0, np.intp)
        samples, sampled_rows = sampling.sample_empirical(batch.images.latents[normal], options.count, rng)
        positions = batch.positions
        sources = [positions[normal[row]] for row in sampled_rows]
    else:
        live = bundle.population.live_dims
        samples = sampling.sample_gaussian(
            options.count, context.location, context.covariance, live, context.radius_squared, rng
        )
    ids = [f"sample_{number:03}" for number in range(options.count)]
    errors = responses.errors_by_id(batch.images)
    return EditPlan(samples, None, sources, ids, min(options.count, 10), (), (), context, errors)


def plan_decode(latents: Float64Array) -> EditPlan:
    """Plan the decoding of latents (n, L) as they came, without a context."""
    count = len(latents)
    return EditPlan(latents, None, [-1] * count, [str(row) for row in range(count)], min(count, 10), (), (), None, {})


def _plan_from_one(
    batch: Batch,
    latents: Float64Array,
    start: Float64Array | None,
    row: int | None,
    *,
    ids: Sequence[str],
    columns: int,
    row_captions: Sequence[str] = (),
    column_captions: Sequence[str] = (),
) -> EditPlan:
    """Return a plan whose pictures all start from the usable image `row`, or from none."""
    source = -1 if row is None else batch.positions[row]
    return EditPlan(
        latents=latents,
        start=None if start is None else np.broadcast_to(start, latents.shape),
        sources=[source] * len(latents),
        ids=ids,
        columns=columns,
        row_captions=row_captions,
        column_captions=column_captions,
        context=batch.context,
        errors=responses.errors_by_id(batch.images),
    )


def _find_rows(choices: Sequence[ImageChoice], batch: Batch) -> list[int]:
    """Return the rows of the usable images that the choices name. Raise InvalidOption."""
    names, positions, errors = ImageNames(batch.images.ids), batch.positions, batch.images.errors
    rows = []
    for choice in choices:
        position = names.find(choice)
        if position in errors:
            raise InvalidOption(
                f"The image {quoted(choice)} could not be used: {errors[position].message}", "Send it again."
            )
        rows.append(positions.index(position))
    return rows
