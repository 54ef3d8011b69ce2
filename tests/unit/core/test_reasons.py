"""The sentences that say why an image does not fit."""

import numpy as np
import pytest

from service.core.detect import fit
from service.core.explain.reasons import sentence, sentences


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
