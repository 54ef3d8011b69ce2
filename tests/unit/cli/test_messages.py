"""What the service says of mistakes, as the command line says it."""

import pytest

from service.api.contexts import checks
from service.api.uploads import mistaken_uploads
from service.cli.messages import for_prompt
from service.images import arrays
from service.images.formats import other_files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"2 bytes of text, which begin with 'x', came in place of an image file. {mistaken_uploads.CURL_HINT}",
            "2 bytes of text, which begin with 'x', came in place of an image file. Send the file's own bytes.",
        ),
        (f"No npy. Write it with numpy.save. {arrays.CURL_HINT}", "No npy. Write it with numpy.save."),
        (checks.FIT_AGAIN, "Send what `context` was in the answer of misfit fit, unchanged."),
        ("a.png: 3.5 is no image. Curls are.", "a.png: 3.5 is no image. Curls are."),
        ("", ""),
    ],
)
def test_curl_is_left_out_and_endpoints_are_commands(text, expected):
    assert for_prompt(text) == expected


def test_no_hint_of_a_file_of_another_kind_speaks_of_curl_commands():
    hints = [each[-1] for each in vars(other_files).values() if isinstance(each, tuple) and isinstance(each[-1], str)]
    for hint in [*hints, mistaken_uploads.CURL_HINT, mistaken_uploads.EMPTY_HINT]:
        assert "-F" not in for_prompt(hint)
