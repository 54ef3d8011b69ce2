"""The answer of /explain with its heat maps: as JSON, as one contact sheet, or as files in a zip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service import pictures
from service.answers import Explained
from service.batch import Batch
from service.bundle import Bundle
from service.errors import InvalidOption
from service.schemas import HeatMap, ScoreResponse


@dataclass(frozen=True)
class Explanation:
    """The answer of /explain, and the overlays (m, t, H, W, 3) that its images `explained.mapped` get."""

    batch: Batch
    explained: Explained
    names: Sequence[str]
    overlays: NDArray[np.uint8]

    def with_pictures(self) -> ScoreResponse:
        """Each heat map as base64 of a PNG, with the image that it is of."""
        items = list(self.explained.response.items)
        for row, names, overlays in self._mapped():
            maps = [
                HeatMap(latent=name, image=pictures.to_base64(overlay))
                for name, overlay in zip(names, overlays, strict=True)
            ]
            position = self.batch.positions[row]
            items[position] = items[position].model_copy(update={"heat_maps": maps})
        return self.explained.response.model_copy(update={"items": items})

    def heat_maps(self) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
        """Each heat map, with the request's position of its image and the name of its latent."""
        for row, names, overlays in self._mapped():
            for name, overlay in zip(names, overlays, strict=True):
                yield self.batch.positions[row], name, overlay

    def as_sheet(self) -> bytes:
        """A row for each image that has heat maps, the most outlying first: the image, then its maps; as PNG.

        Raises InvalidOption where there is no heat map to show.
        """
        rows, captions = [], []
        for row, names, overlays in self._mapped():
            image = self.batch.images.pixels[row]
            rows.append(np.stack([np.broadcast_to(image, overlays.shape[1:]), *overlays]))
            item = self.explained.response.items[self.batch.positions[row]]
            captions.append(f"{item.id}: {', '.join(names)}")
        if not rows:
            raise InvalidOption(
                "No image gets a heat map, so there is no sheet to show.",
                "Ask for heat_maps=all, or for JSON; of a bundle without saliency.onnx there are none.",
            )
        columns = ("as sent", *(f"top {place + 1}" for place in range(len(rows[0]) - 1)))
        return pictures.to_png(pictures.contact_sheet(rows, captions, columns))

    def as_zip(self) -> bytes:
        """A PNG for each heat map, called by its image's rank and id and its latent, and answer.json."""
        files = {}
        for row, names, overlays in self._mapped():
            item = self.explained.response.items[self.batch.positions[row]]
            for name, overlay in zip(names, overlays, strict=True):
                stem = f"{item.rank:04}_{pictures.file_stem(item.id)}_{pictures.file_stem(name)}"
                files[f"{stem}.png"] = pictures.to_png(overlay)
        files["answer.json"] = self.explained.response.model_dump_json(exclude_unset=True, indent=2).encode()
        return pictures.zip_files(files)

    def _mapped(self) -> Iterator[tuple[int, list[str], NDArray[np.uint8]]]:
        for row, top, overlays in zip(self.explained.mapped, self.explained.top, self.overlays, strict=True):
            yield int(row), [self.names[dim] for dim in top], overlays


def of(batch: Batch, explained: Explained, maps: NDArray[np.float32], bundle: Bundle) -> Explanation:
    """Overlays of the maps (m, L, h, w) of the images that get some, less the map of a typical one."""
    shape = (*explained.top.shape, bundle.manifest.image.height, bundle.manifest.image.width, 3)
    overlays = np.empty(shape, dtype=np.uint8)
    for number, (row, top, signs) in enumerate(zip(explained.mapped, explained.top, explained.signs, strict=True)):
        # What makes each latent be further up, or further down, than in a typical image.
        evidence = np.maximum(maps[number, top] * signs[:, None, None], 0)
        overlays[number] = pictures.overlays(batch.images.pixels[row], evidence)
    return Explanation(batch, explained, [latent.name for latent in bundle.manifest.latents], overlays)
