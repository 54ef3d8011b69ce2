"""The sentences that say why an image does not fit."""

import numpy as np
import pytest

from service.core.detect import fit
from service.core.explain.reasons import describe, sentence, sentences
from service.core.latent import CONTENT, content_name


@pytest.mark.parametrize(
    ("off", "others", "flagged", "expected"),
    [
        ({}, 6, False, "fits this batch"),
        ({"scale": 4.0}, 5, False, "fits this batch"),
        ({"object hue": 5.12}, 5, True, "object hue is 5.1 sd from this batch; its other dims fit"),
        ({"object hue": 41.3}, 1, True, "object hue is 41 sd from this batch; its other dim fits"),
        ({"object hue": 5.1}, 0, True, "object hue is 5.1 sd from this batch"),
        ({"a": 5.1, "b": 3.2}, 4, True, "a and b are 5.1 and 3.2 sd from this batch; its other dims fit"),
        (
            {"a": 5.1, "b": 3.2, "c": 1},
            1,
            True,
            "a, b and c are 5.1, 3.2 and 1.0 sd from this batch; its other dim fits",
        ),
        (
            {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0},
            2,
            True,
            "4 dims are off from this batch, most of all a (9.0 sd), b (8.0 sd) and c (7.0 sd); its other dims fit",
        ),
        ({}, 6, True, "no single dim stands out, but together they are unusual for this batch"),
        ({"a": 1.9, "b": 1.7}, 4, True, "no single dim stands out, but together they are unusual for this batch"),
        ({"a": 1.9}, 5, True, "a is 1.9 sd from this batch; its other dims fit"),
    ],
)
def test_sentences_read_like_sentences(off, others, flagged, expected):
    assert sentence(off, others, flagged, "this batch") == expected


def test_sentences_say_what_the_image_was_compared_with(batch, population, named):
    latents, _ = batch
    for source, phrase in (("reference", "the reference"), ("population", "the model's population")):
        context = fit.fit(latents[10:] if source == "reference" else latents[:0], population, source=source)
        assert context.source == source
        nothing = np.zeros((1, 6))
        assert sentences(nothing.astype(bool), nothing, np.array([False]), named, context) == [f"fits {phrase}"]


@pytest.mark.parametrize(
    ("measured", "content", "flagged", "expected"),
    [
        ({"sharpness": -6.12}, None, True, "sharpness is 6.1 sd below this batch"),
        ({}, [], True, "its content is unlike this batch"),
        ({}, ["hands", "sky"], True, "its content is unlike this batch (hands and sky)"),
        (
            {"brightness": 12.3, "noise": 3.0},
            [],
            True,
            "its content is unlike this batch; brightness is 12 sd above this batch; noise is 3.0 sd above this batch",
        ),
        ({"sharpness": -1.5}, None, True, "nothing stands out by itself, but together it is unusual for this batch"),
        ({"sharpness": -6.12}, [], False, "fits this batch"),
    ],
)
def test_photographs_are_described_by_what_was_measured(measured, content, flagged, expected):
    assert describe(measured, content, flagged, "this batch") == expected


def test_content_latents_are_named_together(batch, population, named):
    latents, _ = batch
    context = fit.fit(latents[10:], population)
    photographs = [
        each.model_copy(
            update={"unit": "grey levels"}
            if each.index == 1
            else {"factor": CONTENT, "name": "hands" if each.index == 2 else content_name(each.index)}
        )
        for each in named
    ]
    selected = np.zeros((1, len(named)), dtype=bool)
    selected[0, :3] = True
    z = np.zeros((1, len(named)))
    z[0, :3] = [4.0, -5.0, 3.0]
    assert sentences(selected, z, np.array([True]), photographs, context) == [
        f"its content is unlike the reference (hands); {named[1].name} is 5.0 sd below the reference"
    ]
    nearest = {0: ["IMG_12.jpg", "IMG_40.jpg"]}
    assert sentences(selected, z, np.array([True]), photographs, context, nearest) == [
        "its content is unlike the reference (hands): nearest are IMG_12.jpg and IMG_40.jpg; "
        f"{named[1].name} is 5.0 sd below the reference"
    ]
    assert sentences(selected, z, np.array([False]), photographs, context, nearest) == ["fits the reference"]
    nothing, unlike = np.zeros_like(selected), np.array([True])
    assert sentences(nothing, z, np.array([True]), photographs, context, nearest, unlike) == [
        "its content is unlike the reference: nearest are IMG_12.jpg and IMG_40.jpg"
    ]
    assert sentences(nothing, z, np.array([True]), photographs, context, nearest) == [
        "nothing stands out by itself, but together it is unusual for the reference: nearest are IMG_12.jpg and "
        "IMG_40.jpg"
    ]
