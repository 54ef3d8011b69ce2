"""Estimates of the memory that a request takes beside its body. `service.transports.admission` counts them.

The estimates are upper bounds of measurements (`make worst`): bytes for each image, latent, pixel and byte of the
answer that are resident at one time. An answer's records and JSON exist in pieces only; a gRPC message exists whole.
"""

from __future__ import annotations

import math
from math import comb
from typing import Any, Literal

from service.api.options import (
    SHEET_IMAGES,
    ComparingOptions,
    EditOptions,
    ExplainOptions,
    FitOptions,
    Options,
    ScoreOptions,
    ScoringOptions,
    TraverseOptions,
    maps_of_image,
    most_pictures,
)
from service.api.requests import ImagesRequest
from service.bundle.store import Bundle
from service.core.decide.calibration import MOST_KNOTS
from service.core.detect import density_ratio
from service.core.detect.estimators.registry import ESTIMATORS
from service.core.explain import minimal_sets, nearest, shapley_density_ratio
from service.core.population import SAMPLE_SIZE
from service.core.types import Float64Array
from service.images.decode import Upload
from service.images.pictures import contact_sheet, ranked_sheet
from service.pipeline import record_sizes
from service.pipeline.batch_scorer import MOST_KEPT
from service.pipeline.chunked_inference import CHUNK_ROWS, CHUNKS_IN_FLIGHT
from service.pipeline.chunked_response import EARLY_BYTES, PIECE_BYTES
from service.pipeline.pipeline import STREAM_PIECE
from service.settings import Settings

# An image that waits to be read: its Upload, its id and what reads it.
UPLOAD = 1024
# An image of a stream that has been read, beside its arrays.
STREAMED = 200
# Arrays of float64 over the latents that statistics hold of every image at a time, and those that reasons add.
STATISTICS, REASONS = 16, 16
# A neighbour of an image, by its place and its distance, as it is found and as it is kept; an id that is so long needs
# no room of its own where one piece of a stream's answer repeats it as a neighbour's.
NEIGHBOUR, SHORT_ID = 2 * 16, 256
# Rows of a request that are decoded and wait for the networks, once as they are and once on their way.
ROWS_UNDER_WAY, ROW_COPIES = CHUNKS_IN_FLIGHT * CHUNK_ROWS, 2
# A piece as dicts and models is some times its JSON; a few follow each other before they are freed.
PIECE_OBJECTS = 16
# A picture as it is drawn, and once more while the chunks are joined, drawn again, and beside it what was sent.
PICTURE_COPIES = 5
# An image with heat maps, once more while the chunks are joined, and beside the typical one; of each map a cell for so
# many pixels.
MAPPED_COPIES, CELL_PIXELS = 3, 16
# A sheet holds every pixel while it is drawn, and as PNG, and its tiles; small pictures are enlarged as far as it has
# room.
SHEET_PIXEL_BYTES, SHEET_SIDE, SHEET_PIXELS = (
    8,
    contact_sheet.SHOWN_SIDE + contact_sheet.GAP,
    int(1.3 * contact_sheet.MOST_PIXELS),
)
TILE_COPIES = 3
# A message as it came, parsed, and the files or the tensor in it.
RECEIVED_COPIES = 3
# A message in its parts, joined, and as gRPC copies it.
MESSAGE_COPIES = 3
# A context that was sent, as JSON's values, models and arrays.
CONTEXT_VALUE = 100

# How an answer is held: JSON in pieces, files one at a time, a contact sheet or a gRPC message whole.
Form = Literal["pieces", "files", "sheet", "message"]  # a table comes in pieces as well
# Of the JSON in a zip, which is one file, deflated.
DEFLATED = 0.5


def of(request: ImagesRequest[Any] | Float64Array, bundle: Bundle, form: Form) -> int:
    """Return the bytes that a request of images, or of latents (n, L), takes beside its body, until it is answered."""
    if isinstance(request, ImagesRequest):
        return of_request(request, bundle, form)
    return of_latents(len(request), bundle, form)


def of_request(request: ImagesRequest[Any], bundle: Bundle, form: Form = "pieces") -> int:
    """Return the bytes that `request` takes beside its body, at most, until its answer is sent."""
    manifest, options = bundle.manifest, request.options
    images = len(request.images) + len(request.reference or ())
    values, image, shown = manifest.latent_dim * 8, _image_bytes(bundle), pictures_of(request, bundle)
    is_score_sheet = form == "sheet" and isinstance(options, ScoreOptions)
    shown = min(len(request.images), SHEET_IMAGES) if is_score_sheet else shown
    explains = isinstance(options, ExplainOptions | EditOptions) or is_score_sheet
    explains |= isinstance(options, ScoreOptions) and options.attributions != "none"
    # What stays until the end.
    size = images * (UPLOAD + STATISTICS * values) + request.unpacked_bytes
    size += len(request.contexts) * _context(bundle)
    if isinstance(options, ComparingOptions):
        size += len(request.images) * _likeness(options)
        # The neighbours of one item are in one piece of the answer, however long their ids are.
        size += options.nearest * _longest_id(request)
    if explains:
        size += len(request.images) * (REASONS * values + record_sizes.SENTENCE)
    if isinstance(options, EditOptions) or is_score_sheet or (isinstance(options, ExplainOptions) and shown):
        size += 2 * image * images if image * images <= MOST_KEPT else 0
    if isinstance(options, ExplainOptions):
        size += PIECE_OBJECTS * min(images * record_sizes.explained_item(options, bundle), EARLY_BYTES)
        mapped = -(-shown // max(maps_of_image(options, bundle), 1))
        size += mapped * image * MAPPED_COPIES + shown * manifest.image.height * manifest.image.width * 8 // CELL_PIXELS
    else:
        size += shown * image * PICTURE_COPIES
    # What comes one after the other.
    estimator = (options.estimator or manifest.default_estimator) if isinstance(options, FitOptions) else None
    return size + max(
        min(images, ROWS_UNDER_WAY) * image * ROW_COPIES,
        _search(images, bundle) if estimator is not None and ESTIMATORS[estimator].compares_images else 0,
        _reasons(images, bundle) if explains else 0,
        _answer(answer_bytes(request, bundle), shown, bundle, form, options),
    )


def _context(bundle: Bundle) -> int:
    """Return the bytes of a context: covariances, the sum of outer products, the kernel's images, the calibration."""
    dims = bundle.manifest.latent_dim
    return CONTEXT_VALUE * (3 * dims**2 + density_ratio.MOST_IMAGES * (dims + 1) + 2 * MOST_KNOTS)


def of_latents(count: int, bundle: Bundle, form: Form = "pieces") -> int:
    """Return the bytes that it takes to decode so many latents, beside their body, until the pictures are sent."""
    size = count * (UPLOAD + _image_bytes(bundle) * PICTURE_COPIES)
    return size + _answer(count * record_sizes.picture_item(bundle), count, bundle, form)


def of_parsing(content_type: str, body_bytes: int) -> int:
    """Return the bytes that a body takes once more when it is parsed: JSON becomes text, all else is looked at."""
    return body_bytes if content_type.partition(";")[0].strip().lower() == "application/json" else 0


def check_full_request(settings: Settings, bundle: Bundle) -> None:
    """Raise ValueError unless the largest permitted request fits what may be in flight."""
    upload = Upload(str(settings.max_images), bytes)
    full = ImagesRequest([upload] * settings.max_images, None, (), ScoreOptions())
    copies = RECEIVED_COPIES if settings.grpc_port else 1
    needed = copies * settings.max_body_bytes + of_request(full, bundle, "message")
    if settings.max_bytes_in_flight < needed:
        raise ValueError(
            f"MISFIT_MAX_BYTES_IN_FLIGHT is {settings.max_bytes_in_flight}, but one request of MISFIT_MAX_IMAGES and "
            f"MISFIT_MAX_BODY_BYTES takes about {needed}: raise the first, or lower one of the others."
        )


def of_chunk(chunk: ImagesRequest[Any], bundle: Bundle, options: ComparingOptions) -> int:
    """Return the bytes that a chunk of a stream leaves behind until the stream ends: latents, scores and ids.

    options  those of the stream
    """
    texts = int(record_sizes.longest_texts([upload.id for upload in chunk.images]).sum()) // record_sizes.CHARACTER
    # Every image of a piece may have the longest id among its neighbours' ids.
    long = max(0, _longest_id(chunk) // record_sizes.CHARACTER - SHORT_ID)
    texts += MESSAGE_COPIES * STREAM_PIECE * options.nearest * long
    each = STREAMED + STATISTICS * bundle.manifest.latent_dim * 8 + _likeness(options)
    return texts + len(chunk.images) * each


def _likeness(options: ComparingOptions) -> int:
    """Return what an image's nearest others and its place among duplicates take."""
    searched = nearest.FIRST_NEIGHBOURS if options.duplicates == "groups" else 0
    return NEIGHBOUR * (options.nearest + searched + 2) if options.nearest or searched else 0


def _longest_id(request: ImagesRequest[Any]) -> int:
    """Return the bytes of JSON of the longest id among the images, at most."""
    return int(record_sizes.longest_texts([upload.id for upload in request.images]).max(initial=0))


def _search(images: int, bundle: Bundle) -> int:
    """Return what the search for a density ratio's bandwidths takes: its pairs on every axis, for every bandwidth."""
    axes = len(bundle.population.live_dims)
    searched = min(density_ratio.count_searched(images, axes), images)
    pairs = searched * (3 * searched + 2 * density_ratio.SEARCH_SAMPLE)
    return 4 * (density_ratio.DOUBLINGS + 1) * axes * pairs


def _reasons(images: int, bundle: Bundle) -> int:
    """Return what reasons take of the rows that they are found for at a time."""
    axes = len(bundle.population.live_dims)
    # Of every set its step, and the image that it repairs; beyond so many axes of every image some matrices.
    exact = axes <= minimal_sets.EXACT_DIMS
    sets = comb(axes, axes // 2) * 8 * 4 * max(axes, 1) if exact else axes**2 * 8 * 6
    # The neighbours of an image, on every axis, and of the coalitions what they are worth.
    neighbours = (density_ratio.MOST_IMAGES + SAMPLE_SIZE) * 4 * (4 + 2 * axes)
    coalitions = 2**axes if axes <= shapley_density_ratio.EXACT_AXES else 2 * shapley_density_ratio.PAIRS * (axes + 1)
    rows = min(images, shapley_density_ratio.ROWS_AT_ONCE)
    shares = rows * (neighbours + coalitions * 8 * 8) + coalitions * axes**2 * 8 * 2
    return max(shares, min(images, minimal_sets.ROWS_AT_ONCE) * (sets + neighbours // 2))


def _answer(size: int, count: int, bundle: Bundle, form: Form, options: Options | None = None) -> int:
    """Return what an answer of that many bytes, and with so many pictures, takes in that form."""
    if form == "message":
        return PIECE_OBJECTS * min(size, PIECE_BYTES) + MESSAGE_COPIES * size
    if form == "sheet":
        image = bundle.manifest.image
        tiles = count
        if isinstance(options, ScoreOptions):
            sheet = count * ranked_sheet.MOST_TILE_PIXELS
        elif isinstance(options, ExplainOptions):
            # A row has room for every latent, and there are only so many rows as a sheet has room for.
            row = 1 + len(bundle.population.live_dims)
            tiles = row * min(-(-count // maps_of_image(options, bundle)), _sheet_rows(row, bundle))
            sheet = min(tiles * SHEET_SIDE**2, max(_sheet_pixels(row, bundle), SHEET_PIXELS))
        else:
            # Each picture stands beside what it was.
            sheet = min(2 * count * SHEET_SIDE**2, max(_sheet_pixels(2 * count, bundle), SHEET_PIXELS))
        return SHEET_PIXEL_BYTES * sheet + TILE_COPIES * tiles * image.height * image.width * 3
    return PIECE_OBJECTS * min(size, PIECE_BYTES) + (int(DEFLATED * size) if form == "files" else 0)


def _sheet_pixels(tiles: int, bundle: Bundle) -> int:
    image = bundle.manifest.image
    return tiles * (image.height + contact_sheet.GAP) * (image.width + contact_sheet.GAP)


def _sheet_rows(columns: int, bundle: Bundle) -> int:
    return contact_sheet.count_rows(columns, bundle.manifest.image.height, bundle.manifest.image.width)


def _image_bytes(bundle: Bundle) -> int:
    return math.prod(bundle.manifest.image.shape)


def answer_bytes(request: ImagesRequest[Any], bundle: Bundle) -> int:
    """Return the bytes of the answer as JSON, at most; as a message it has fewer."""
    options, ids = request.options, [upload.id for upload in request.images]
    images, count = len(ids), pictures_of(request, bundle)
    texts = record_sizes.CHARACTER * sum(map(len, ids))
    if isinstance(options, ComparingOptions):
        texts += images * options.nearest * _longest_id(request)
    if isinstance(options, ExplainOptions):
        return texts + images * record_sizes.explained_item(options, bundle) + count * record_sizes.heat_map(bundle)
    if isinstance(options, ScoreOptions):
        return texts + images * record_sizes.scored_item(options, bundle)
    if isinstance(options, ScoringOptions):
        # The errors of images that cannot be used come in every answer; their text is that of few.
        return texts + images * record_sizes.ITEM + count * record_sizes.picture_item(bundle)
    if isinstance(options, FitOptions):
        return texts + images * record_sizes.ITEM + _context(bundle)
    return texts + images * record_sizes.encoded_item(bundle)


def pictures_of(request: ImagesRequest[Options], bundle: Bundle) -> int:
    """Return how many pictures, or heat maps, the answer has, at most."""
    options, limit = request.options, most_pictures(bundle.manifest.image)
    if isinstance(options, ExplainOptions):
        if options.heat_maps == "none" or not bundle.manifest.capabilities.has_saliency:
            return 0
        return min(len(request.images) * maps_of_image(options, bundle), limit)
    if isinstance(options, EditOptions):
        selected = options.which if isinstance(options.which, list) else request.images
        return min(len(selected), limit)
    if isinstance(options, TraverseOptions) and options.latents is None and not options.plane:
        return min(options.steps * len(bundle.population.live_dims), limit)
    return min(options.pictures, limit)
