"""Every error that misfit raises on purpose.

    MisfitError(message, hint)
    +- InvalidInput             the request cannot be understood or used
    |  +- UndecodableImage      one image's bytes are not a readable image
    |  +- UnsupportedMediaType  the body's or image's format is not one we read
    |  +- NotAcceptable         the answer has no form that the client accepts
    |  +- ShapeMismatch         an array has the wrong rank, type or size
    |  +- TooManyImages         more images than the limit
    |  +- TooLarge              body or image over the limit
    |  +- UnknownLatent         no latent of that name or index
    |  +- InvalidOption         an option is unknown or out of its range
    |  +- UnknownModel          no model of that name or version is served
    +- ContextTooSmall          too few usable images to form a context
    +- Overloaded               too much work in flight: come again
    +- InferenceUnavailable     the process that runs the networks does not answer
    +- DeadlineExceeded         the request took longer than it may
    +- TooSlow                  the client took longer than it may to send it
    +- Unauthenticated          no valid token
    +- AcceleratorMissing       start-up only: a GPU is required and none works
    +- BundleError              start-up only: the bundle cannot be served
       +- BundleMissing         a file or the whole directory is not there
       +- BundleCorrupt         contents differ from what the manifest promises
       +- BundleIncompatible    well-formed, but not for this version

Domain errors know no status codes: `service/transports/error_status.py` maps each type to one.
"""

from __future__ import annotations

# Characters of a message, and of a value that it quotes.
LONGEST_MESSAGE, LONGEST_QUOTE = 2000, 80


def readable(text: str) -> str:
    """Return `text` with U+FFFD in place of every lone surrogate, so that every encoder accepts it.

    A name that is not UTF-8 reaches Python with lone surrogates (PEP 383), which neither JSON nor protobuf can hold.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or else its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def quoted(value: object) -> str:
    """Return `value` as a message quotes it: in Python's notation, cut to LONGEST_QUOTE characters."""
    if isinstance(value, str):
        value = value[: LONGEST_QUOTE + 1]
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."


class MisfitError(Exception):
    """An error that misfit raises. `message` says what came and what was expected, `hint` how to mend it.

    A message may quote what came. So it is made readable, and cut to LONGEST_MESSAGE characters.
    """

    code = "internal"

    def __init__(self, message: str, hint: str = "") -> None:
        message = readable(message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}...")
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


def explain(error: Exception) -> str:
    """Return what an error of a library says. What Python itself says of types and keys tells nobody anything."""
    is_python = isinstance(error, (TypeError, AttributeError, LookupError, AssertionError, ArithmeticError))
    return "" if is_python else str(error)


class InvalidInput(MisfitError):
    code = "invalid_input"


class UndecodableImage(InvalidInput):
    code = "undecodable_image"


class UnsupportedMediaType(InvalidInput):
    code = "unsupported_media_type"


class NotAcceptable(InvalidInput):
    code = "not_acceptable"


class ShapeMismatch(InvalidInput):
    code = "shape_mismatch"


class TooManyImages(InvalidInput):
    code = "too_many_images"


class TooLarge(InvalidInput):
    code = "too_large"


class UnknownLatent(InvalidInput):
    code = "unknown_latent"


class InvalidOption(InvalidInput):
    code = "invalid_option"


class UnknownModel(InvalidInput):
    code = "unknown_model"


class ContextTooSmall(MisfitError):
    code = "context_too_small"


class Overloaded(MisfitError):
    code = "overloaded"


class InferenceUnavailable(MisfitError):
    code = "inference_unavailable"


class DeadlineExceeded(MisfitError):
    code = "deadline_exceeded"


class TooSlow(MisfitError):
    code = "too_slow"


class Unauthenticated(MisfitError):
    code = "unauthenticated"


class AcceleratorMissing(MisfitError):
    code = "accelerator_missing"


class BundleError(MisfitError):
    code = "bundle"


class BundleMissing(BundleError):
    code = "bundle_missing"


class BundleCorrupt(BundleError):
    code = "bundle_corrupt"


class BundleIncompatible(BundleError):
    code = "bundle_incompatible"
