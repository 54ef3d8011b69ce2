"""How many bytes a request takes beside its body, from what it asks for: `service.admission` counts them.

The estimates are upper bounds of what was measured (`make worst`): bytes for each image, latent, pixel and byte of the
answer. They are of what is resident at one time: an answer's records and its JSON exist in pieces only, but a gRPC
message is one.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from service import pictures, record_sizes
from service.bundle import Bundle
from service.images import Upload
from service.options import (
    EditOptions,
    ExplainOptions,
    FitOptions,
    Options,
    ScoreOptions,
    ScoringOptions,
    TraverseOptions,
    most_pictures,
)
from service.pieces import PIECE_BYTES
from service.requests import ImagesRequest
from service.settings import Settings

# An image that waits to be read: its Upload, its id and what reads it.
UPLOAD = 1024
# An image of a stream that has been read, beside its arrays.
STREAMED = 200
# Arrays of float64 over the latents that statistics hold of every image at a time, and those that reasons add.
STATISTICS, REASONS = 24, 16
# Chunks of a request under way at a time, of so many rows: each in its process, pickled, and in the networks' one.
ROWS_UNDER_WAY, COPIES = 4 * 128, 4
# A piece as dicts and models is some times its JSON; a few follow each other before they are freed.
PIECE_OBJECTS = 24
# A picture as drawn, drawn again and copied, as sent, and as PNG; a heat map waits for its image, and for the
# sheet.
PICTURE_COPIES, MAP_COPIES = 6, 4
# A sheet holds every pixel while it is drawn, and as PNG; small pictures are enlarged on it as far as it has room.
SHEET_PIXEL_BYTES, SHEET_SIDE, SHEET_PIXELS = 8, pictures.SHOWN_SIDE + pictures.GAP, int(1.3 * pictures.MOST_PIXELS)
# A message in its parts, joined, and as gRPC copies it.
MESSAGE_COPIES = 3
# A context that was sent, as JSON's values, models and arrays.
CONTEXT_VALUE = 100

# How an answer is held: JSON in pieces, files one at a time, a contact sheet or a gRPC message whole.
Form = Literal["pieces", "files", "sheet", "message"]
# Of the JSON in a zip, which is one file, deflated.
DEFLATED = 0.5


def of_request(request: ImagesRequest[Any], bundle: Bundle, form: Form = "pieces") -> int:
    """Return the bytes that `request` takes beside its body, at most, until its answer is sent."""
    manifest, options = bundle.manifest, request.options
    images = len(request.images) + len(request.reference or ())
    values = manifest.latent_dim * 8
    size = images * (UPLOAD + STATISTICS * values)
    size += min(images, ROWS_UNDER_WAY) * _image_bytes(bundle) * COPIES
    # The sum of outer products, the kernel's images: what a context of this bundle is made of.
    size += len(request.contexts) * CONTEXT_VALUE * (2 * manifest.latent_dim**2 + 200 * (manifest.latent_dim + 1))
    if isinstance(options, ScoreOptions | ExplainOptions):
        size += len(request.images) * (REASONS * values + record_sizes.SENTENCE)
    count = pictures_of(request, bundle)
    size += count * _image_bytes(bundle) * (MAP_COPIES if isinstance(options, ExplainOptions) else PICTURE_COPIES)
    return size + _answer(answer_bytes(request, bundle), count, bundle, form)


def of_latents(count: int, bundle: Bundle, form: Form = "pieces") -> int:
    """Return the bytes that it takes to decode so many latents, beside their body, until the pictures are sent."""
    size = count * (UPLOAD + _image_bytes(bundle) * PICTURE_COPIES)
    return size + _answer(count * record_sizes.picture_item(bundle), count, bundle, form)


def check_full_request(settings: Settings, bundle: Bundle) -> None:
    """Raises ValueError unless a request as large as the settings permit fits what may be in flight."""
    upload = Upload(str(settings.max_images), bytes)
    full = ImagesRequest([upload] * settings.max_images, None, (), ScoreOptions())
    needed = settings.max_body_bytes + of_request(full, bundle, "message")
    if settings.max_bytes_in_flight < needed:
        raise ValueError(
            f"MISFIT_MAX_BYTES_IN_FLIGHT is {settings.max_bytes_in_flight}, but one request of MISFIT_MAX_IMAGES and "
            f"MISFIT_MAX_BODY_BYTES takes about {needed}: raise the first, or lower one of the others."
        )


def of_chunk(chunk: ImagesRequest[Any], bundle: Bundle) -> int:
    """Return the bytes that a chunk of a stream leaves behind until the stream ends: latents, scores and ids."""
    texts = int(record_sizes.longest_texts([upload.id for upload in chunk.images]).sum()) // record_sizes.CHARACTER
    return texts + len(chunk.images) * (STREAMED + STATISTICS * bundle.manifest.latent_dim * 8)


def _answer(size: int, count: int, bundle: Bundle, form: Form) -> int:
    """Return what an answer of that many bytes, and with so many pictures, takes in that form."""
    if form == "message":
        return PIECE_OBJECTS * min(size, PIECE_BYTES) + MESSAGE_COPIES * size
    if form == "sheet":
        image = bundle.manifest.image
        shown = 2 * count * (image.height + pictures.GAP) * (image.width + pictures.GAP)  # each beside what it was
        return SHEET_PIXEL_BYTES * min(2 * count * SHEET_SIDE**2, max(shown, SHEET_PIXELS))
    return PIECE_OBJECTS * min(size, PIECE_BYTES) + (int(DEFLATED * size) if form == "files" else 0)


def _image_bytes(bundle: Bundle) -> int:
    return int(np.prod(bundle.manifest.image.shape))


def answer_bytes(request: ImagesRequest[Any], bundle: Bundle) -> int:
    """Return the bytes of the answer as JSON, at most; as a message it has fewer."""
    options, ids = request.options, [upload.id for upload in request.images]
    images, count = len(ids), pictures_of(request, bundle)
    texts = int(record_sizes.longest_texts(ids).sum())
    if isinstance(options, ExplainOptions):
        return texts + images * record_sizes.explained_item(options, bundle) + count * record_sizes.heat_map(bundle)
    if isinstance(options, ScoreOptions):
        return texts + images * record_sizes.scored_item(options, bundle)
    if isinstance(options, ScoringOptions):
        # The errors of images that cannot be used come in every answer; their text is that of few.
        return texts + images * record_sizes.ITEM + count * record_sizes.picture_item(bundle)
    if isinstance(options, FitOptions):
        return texts + images * record_sizes.ITEM + CONTEXT_VALUE * 200 * (bundle.manifest.latent_dim + 1)
    return texts + images * record_sizes.encoded_item(bundle)


def pictures_of(request: ImagesRequest[Options], bundle: Bundle) -> int:
    """Return how many pictures, or heat maps, the answer has, at most."""
    options, most = request.options, most_pictures(bundle.manifest.image)
    if isinstance(options, ExplainOptions):
        if options.heat_maps == "none" or not bundle.manifest.has_saliency:
            return 0
        return min(len(request.images) * min(options.top, len(bundle.population.live_dims)), most)
    if isinstance(options, EditOptions):
        named = options.which if isinstance(options.which, list) else request.images
        return min(len(named), most)
    if isinstance(options, TraverseOptions) and options.latents is None and not options.plane:
        return min(options.steps * len(bundle.population.live_dims), most)
    return min(options.pictures, most)
