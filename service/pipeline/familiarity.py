"""The foreign check of a request: its images are judged in their context, and what that says of all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from service.bundle.manifest import Manifest
from service.bundle.store import Bundle
from service.core.detect import ood
from service.core.detect.context import Context
from service.core.detect.ood import FEWEST_IN_CONTEXT, MOST_FOREIGN, OodCheck, times_in_words
from service.inference.backbone import BackboneHead
from service.pipeline.batch import EncodedImages

LEARN = "Learn your own images with `misfit learn FOLDER`"


def judge_in_context(images: EncodedImages, bundle: Bundle, context: Context | None) -> EncodedImages:
    """Return the images with their check by the limit of `context`, or of the images themselves where it is None.

    The networks know the error of the content only: here the measured properties of photographs count as well.
    """
    check, familiarity = images.check, bundle.population.familiarity
    if check is None or familiarity is None:
        return images
    if bundle.projection is not None:
        check = check.with_error(BackboneHead(bundle.projection).property_errors(images.latents), familiarity)
    if context is not None:
        limit = context.ood_limit
    elif np.isnan(check.error_ratio).any():
        limit = 1.0  # see `needs_all_errors`: no image would be judged otherwise
    else:
        limit = ood.contextual_limit(check.error_ratio, familiarity)
    return replace(images, check=check.in_context(limit))


def needs_all_errors(check: OodCheck | None, context: Context | None) -> bool:
    """Return whether the errors that were not measured matter as well: they are part of a limit that decides.

    Where no error exceeds the population's limit, no image is foreign, whatever the limit of the batch.
    """
    if check is None or context is not None or len(check.error_ratio) < FEWEST_IN_CONTEXT:
        return False
    return bool((check.error_ratio > 1).any() and np.isnan(check.error_ratio).any())


def warn_of_whole(context: Context, check: OodCheck | None, manifest: Manifest, *, is_own: bool) -> Context:
    """Return `context` with one warning, and of low reliability, where the checked images are not what the model knows.

    Most of them are foreign, or, where the context is their own, they are usual only in this batch.
    """
    if check is None or len(check.error_ratio) < 2:
        return context
    size, foreign = len(check.error_ratio), int(check.is_ood.sum())
    if foreign <= MOST_FOREIGN * size:
        return warn_if_unusual(context, check, manifest) if is_own else context
    which = f"{foreign:,} of these {size:,} images are not"
    if foreign == size:
        which = f"none of these {size:,} images is one"
        # Without an image that the model knows there is nothing else to say.
        context = replace(context, warnings=()) if context.source == "population" else context
    return _doubt(
        context,
        f"This model knows {manifest.trained_on}, and {which}: what is foreign is not ranked. "
        f"{LEARN}, or serve a bundle that was trained on such images.",
    )


def warn_if_unusual(context: Context, check: OodCheck | None, manifest: Manifest) -> Context:
    """Return `context` with a warning, and of low reliability, where its own images are usual only in this batch."""
    if check is None or not (unusual := check.is_unusual).any():
        return context
    size, count = len(unusual), int(unusual.sum())
    which = f"These {size:,} images" if count == size else f"{count:,} of these {size:,} images"
    times = times_in_words(float(np.median(check.times_median[unusual])))
    return _doubt(
        context,
        f"{which} are not what this model was trained on, {manifest.trained_on}: their {check.error} is {times} times "
        "the usual, in all of them alike, as after another camera, light or compression. They are compared with each "
        "other all the same.",
    )


def _doubt(context: Context, warning: str) -> Context:
    return replace(context, reliability="low", warnings=(warning, *context.warnings))
