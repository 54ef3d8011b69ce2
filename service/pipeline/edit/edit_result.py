"""The result of an edit plan: the decoded images, what the encoder finds in them, and the answer.

The answer can be had as JSON, as one contact sheet, or as files in a zip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.api.schemas import Distances, Picture, PicturesResponse, ScoredContext
from service.bundle.store import Bundle
from service.core.detect import posterior
from service.core.types import IndexArray
from service.images.pictures import contact_sheet, png, zip_writer
from service.images.spec import Uint8Array
from service.pipeline import record_sizes, responses
from service.pipeline.batch import DecodedImages
from service.pipeline.chunked_response import ChunkedResponse, cut
from service.pipeline.edit.edit_plan import EditPlan

# Latents that differ by less are the same: a rounding error is no edit.
UNCHANGED = 1e-6


@dataclass(frozen=True)
class EditResult:
    """The answer of an endpoint that draws pictures.

    response       the answer, its pictures still without their pixels
    images         (k, H, W, C)
    picture_bytes  of JSON, that one picture takes at most
    """

    plan: EditPlan
    response: PicturesResponse
    images: Uint8Array
    picture_bytes: int

    def as_json(self) -> ChunkedResponse[PicturesResponse]:
        """Return the answer with each picture as base64 of a PNG."""
        ids = [picture.id for picture in self.response.pictures]
        weights = record_sizes.longest_texts(ids) + self.picture_bytes

        def records() -> Iterator[list[Picture]]:
            for places in cut(weights):
                yield [
                    picture.model_copy(update={"image": png.to_base64(image)})
                    for picture, image in zip(self.response.pictures[places], self.images[places], strict=True)
                ]

        return ChunkedResponse(self.response.model_copy(update={"pictures": []}), "pictures", records)

    def as_sheet(self) -> bytes:
        """Return all pictures on one sheet, as PNG; an edited image stands to the right of its original.

        Without pictures the sheet says why there are none.
        """
        plan = self.plan
        if not len(self.images):
            return contact_sheet.note_png(plan.note)
        tiles = self.images
        if plan.originals is not None:
            tiles = np.stack([plan.originals, self.images], axis=1).reshape(-1, *self.images.shape[1:])
        rows = [tiles[at : at + plan.columns] for at in range(0, len(tiles), plan.columns)]
        return contact_sheet.sheet_png(rows, plan.row_captions, plan.column_captions)

    def as_zip(self) -> Iterator[bytes]:
        """Yield a zip: a PNG for each picture, named by its place and id, and answer.json with everything else."""
        return zip_writer.zip_pieces(self._iterate_files())

    def _iterate_files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        digits = len(str(max(len(self.images) - 1, 0)))
        for place, image in enumerate(self.images):
            name = f"{place:0{digits}}_{zip_writer.file_stem(self.plan.ids[place])}.png"
            yield name, iter([png.to_png(image)])
        yield "answer.json", iter([self.response.model_dump_json(exclude_unset=True, indent=2).encode()])


def find_missed(plan: EditPlan, decoded: DecodedImages, bundle: Bundle) -> IndexArray:
    """Return the rows of the counterfactuals whose picture, encoded again, does not fit the context."""
    if plan.repaired is None or plan.context is None:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(~posterior.inside(decoded.reencoded, plan.context, bundle.population))


def keep_nearer(
    plan: EditPlan, first: DecodedImages, rows: IndexArray, second: DecodedImages, bundle: Bundle
) -> DecodedImages:
    """Return `first` with its `rows` (m,) replaced by those of `second` (m, ...) that lie nearer to the context."""
    assert plan.context is not None, "only counterfactuals are decoded again"
    first_distances, second_distances = (
        posterior.mahalanobis(reencoded, plan.context, bundle.population)
        for reencoded in (first.reencoded[rows], second.reencoded)
    )
    is_nearer = second_distances < first_distances
    result = DecodedImages(first.latents.copy(), first.images.copy(), first.reencoded.copy())
    for all_rows, replacements in (
        (result.latents, second.latents),
        (result.images, second.images),
        (result.reencoded, second.reencoded),
    ):
        all_rows[rows[is_nearer]] = replacements[is_nearer]
    return result


def build_result(plan: EditPlan, decoded: DecodedImages, bundle: Bundle) -> EditResult:
    """Return the answer, with the distance of each picture to the context and the latents that were changed."""
    plan, images, reencoded = replace(plan, latents=decoded.latents), decoded.images, decoded.reencoded
    context, population, names = plan.context, bundle.population, [latent.name for latent in bundle.manifest.latents]
    distances: list[Distances | None] = [None] * len(images)
    fits: list[bool | None] = [None] * len(images)
    if context is not None:
        after = posterior.mahalanobis(plan.latents, context, population).tolist()
        again = posterior.mahalanobis(reencoded, context, population).tolist()
        before: list[float | None] = [None] * len(images)
        if plan.start is not None:
            before = posterior.mahalanobis(plan.start, context, population).tolist()
        distances = [Distances(before=b, after=a, reencoded=r) for b, a, r in zip(before, after, again, strict=True)]
        fits = posterior.inside(reencoded, context, population).tolist()
    changed_names: list[list[str]] = [[] for _ in images]
    if plan.start is not None:
        is_changed = np.abs(plan.latents - plan.start) > UNCHANGED
        changed_names = [[names[dim] for dim in population.live_dims if row[dim]] for row in is_changed]
    shown: Sequence[dict[str, str]] = [{} for _ in images]
    if plan.exemplars is not None:
        shown = [{"exemplar": id_} for id_ in plan.exemplars]
    pictures = [
        Picture(
            id=id_,
            index=source if source >= 0 else None,
            changed=changed,
            latents=latents,
            mahalanobis_squared=distance,
            inside=fit,
            **exemplar,
        )
        for id_, source, changed, latents, distance, fit, exemplar in zip(
            plan.ids, plan.sources, changed_names, plan.latents.tolist(), distances, fits, shown, strict=True
        )
    ]
    scored_context: ScoredContext | None = None if context is None else responses.build_scored_context(context)
    response = PicturesResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        context=scored_context,
        latents=names,
        pictures=pictures,
        errors=plan.errors,
    )
    return EditResult(plan, response, images, record_sizes.picture_item(bundle))
