"""The answer of /explain with its heat maps: as JSON, as one contact sheet, or as files in a zip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.api.options import ExplainOptions, maps_of_image, most_pictures
from service.api.schemas import ScoreResponse
from service.bundle.store import Bundle
from service.core.types import Float64Array
from service.errors import InvalidOption
from service.images.pictures import contact_sheet, heat_map, png, zip_writer
from service.images.spec import Uint8Array
from service.pipeline import record_sizes, responses
from service.pipeline.batch import Batch
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.explain.item_details import ExplanationWithoutMaps, Record


@dataclass(frozen=True)
class Explanation:
    """The answer of /explain. Its m images `explained.mapped` get t heat maps each, drawn when they are asked for.

    pixels    (m, H, W, C)  those images
    evidence  (m, t, h, w)  where in the image each map's latents get their deviation from
    """

    batch: Batch
    explained: ExplanationWithoutMaps
    bundle: Bundle
    pixels: Uint8Array
    evidence: Float64Array

    def as_json(self) -> ChunkedResponse[ScoreResponse]:
        """Return the answer with each heat map as base64 of a PNG, over its image."""
        places = {int(row): number for number, row in enumerate(self.explained.mapped)}

        def details(rows: slice) -> list[Record]:
            records = self.explained.details(rows)
            for row, record in enumerate(records, start=rows.start):
                if row in places:
                    names, overlays = self._draw_maps(places[row])
                    record["heat_maps"] = [
                        {"latent": name, "image": png.to_base64(overlay)}
                        for name, overlay in zip(names, overlays, strict=True)
                    ]
            return records

        sizes = self._estimate_sizes()
        sizes[self.explained.mapped] += self.explained.maps.shown.shape[1] * record_sizes.heat_map(self.bundle)
        return responses.build_chunked_score_response(self.batch, self.bundle, details, sizes)

    def without_maps(self) -> ChunkedResponse[ScoreResponse]:
        """Return the answer without heat maps."""
        return responses.build_chunked_score_response(
            self.batch, self.bundle, self.explained.details, self._estimate_sizes()
        )

    def as_sheet(self) -> bytes:
        """Return one sheet as PNG: a row for each image with heat maps, the image first, the most outlying on top.

        There is a column for each latent that is in the minimal set of any of these images. An image's row has the heat
        maps of its own set, as far as they were drawn. Where there is no such image, the sheet says why.
        """
        explained, maps = self.explained, self.explained.maps
        if not len(explained.mapped):
            return contact_sheet.note_png(self._say_why_nothing_is_shown())
        columns = np.unique(maps.shown[maps.in_set])
        height, width = self.pixels.shape[1:3]
        count = contact_sheet.count_rows(len(columns) + 1, height, width)
        rows, captions, rank = [], [], self.batch.require_scores().rank
        for number, row in enumerate(explained.mapped[:count]):
            tiles = np.full((len(columns) + 1, height, width, 3), contact_sheet.WHITE, dtype=np.uint8)
            tiles[0] = self.pixels[number]
            in_set, shown = maps.in_set[number], maps.shown[number]
            if in_set.any():
                drawn = heat_map.overlays(self.pixels[number], self.evidence[number, in_set])
                tiles[1 + np.searchsorted(columns, shown[in_set])] = drawn
            rows.append(tiles)
            captions.append(f"{rank[row]}. {self._get_id(row)}: {explained.reasons[number]}")
        if left_out := len(explained.mapped) - len(rows):
            captions[-1] += f" ({left_out} more images are in the answers as JSON and as a zip)"
        return contact_sheet.sheet_png(rows, captions, ("as sent", *(maps.names[place] for place in columns)))

    def _say_why_nothing_is_shown(self) -> str:
        scores = self.batch.require_scores()
        if not scores.is_outlier.any():
            return (
                f"None of the {len(scores.rank)} images is flagged, so there is nothing to explain. "
                "heat_maps=all shows where the model looks in every image."
            )
        flagged = int(scores.is_outlier.sum())
        return (
            f"{flagged} of the {len(scores.rank)} images {'is' if flagged == 1 else 'are'} flagged, and no heat map "
            "was drawn: heat_maps is none, or this bundle has no saliency.onnx. POST /score with Accept: image/png "
            "shows the images with their reasons."
        )

    def as_zip(self) -> Iterator[bytes]:
        """Yield a zip: a PNG for each heat map, named by its image's rank and id and its latent, and answer.json."""
        return zip_writer.zip_pieces(self._iterate_files())

    def _iterate_files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        places: dict[str, tuple[int, int]] = {}  # of two maps of one name, the last
        maps = self.explained.maps
        for number, (row, shown) in enumerate(zip(self.explained.mapped, maps.shown, strict=True)):
            rank, image = self.batch.require_scores().rank[row], zip_writer.file_stem(self._get_id(row))
            for place, what in enumerate(shown):
                name = zip_writer.file_stem(maps.names[what])
                places[f"{rank:04}_{image}_{name}.png"] = number, place
        for name, (number, place) in places.items():
            (overlay,) = heat_map.overlays(self.pixels[number], self.evidence[number, place : place + 1])
            yield name, iter([png.to_png(overlay)])
        yield "answer.json", self.without_maps().json(indent=2)

    def _draw_maps(self, number: int) -> tuple[list[str], Uint8Array]:
        """Return what the maps show and the overlays (t, H, W, 3) of the image `explained.mapped[number]`."""
        maps, overlays = self.explained.maps, heat_map.overlays(self.pixels[number], self.evidence[number])
        return [maps.names[what] for what in maps.shown[number]], overlays

    def _get_id(self, row: np.intp) -> str:
        return self.batch.images.ids[self.batch.positions[row]]

    def _estimate_sizes(self) -> NDArray[np.int64]:
        return np.full(len(self.batch.positions), self.explained.record_bytes)


def limit_mapped_images(images: int, options: ExplainOptions, bundle: Bundle) -> int:
    """Return how many of a request's images may get heat maps, at least one.

    Raises InvalidOption where `options` want more of them than one answer may hold.
    """
    maps, limit = maps_of_image(options, bundle), most_pictures(bundle.manifest.image)
    if options.heat_maps == "all" and bundle.manifest.capabilities.has_saliency and images * maps > limit:
        raise InvalidOption(
            f"{images} images with {maps} heat maps each are {images * maps} maps; at most {limit} are drawn at a "
            "time.",
            "Ask for heat_maps=flagged or for a smaller top, or send fewer images, with a context or a reference set "
            "so that they are still compared with the same.",
        )
    return max(1, limit // max(maps, 1))


def warn_of_unmapped(batch: Batch, mapped: int) -> str | None:
    """Return a warning where no more than `mapped` of the flagged images get heat maps, else None."""
    if (flagged := int(batch.require_scores().is_outlier.sum())) <= mapped:
        return None
    return (
        f"{flagged} images are flagged, more than get heat maps at a time: they are of the {mapped} most outlying. "
        "A smaller top leaves room for more images."
    )
