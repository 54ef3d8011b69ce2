"""The methods of both clients: what each endpoint takes, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from pydantic import BaseModel

from service.api.schemas import Description, EncodeResponse, FitResponse, PicturesResponse, ScoreResponse
from service.client.calls import Call, Contexts, Images

if TYPE_CHECKING:
    from service.client.client import AsyncClient, Client

Parameters = ParamSpec("Parameters")
AnswerT = TypeVar("AnswerT", bound=BaseModel)


class _Method(Generic[Parameters, AnswerT]):
    """A method of both clients, defined by a function that returns its call.

    A Client's method returns the answer. An AsyncClient's method returns a coroutine of it.
    """

    def __init__(self, make_call: Callable[Concatenate[Any, Parameters], Call[AnswerT]]) -> None:
        self._make_call = make_call

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[Parameters, AnswerT]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[Parameters, Coroutine[Any, Any, AnswerT]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Callable[..., Any]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Callable[..., Any]:
        if client is None:
            return self._make_call

        @wraps(self._make_call)
        def method(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
            return client._run(self._make_call(client, *args, **kwargs))

        return method


class Methods:
    """The methods of both clients. `reference` and `context` say what images are compared with, if not each other."""

    @_Method
    def score(
        self, /, images: Images, *, reference: Images | None = None, context: Contexts | None = None, **options: object
    ) -> Call[ScoreResponse]:
        """Score every image by how far it lies from the others."""
        return Call("Score", ScoreResponse, images, reference, context, options)

    @_Method
    def score_stream(
        self,
        /,
        chunks: Iterable[Images] | AsyncIterable[Images],
        *,
        reference: Images | None = None,
        context: Contexts | None = None,
        **options: object,
    ) -> Call[ScoreResponse]:
        """Score a request batch in chunks, as it is too large for one message. Only gRPC can; it is never retried."""
        return Call("ScoreStream", ScoreResponse, None, reference, context, options, chunks=chunks)

    @_Method
    def explain(
        self, /, images: Images, *, reference: Images | None = None, context: Contexts | None = None, **options: object
    ) -> Call[ScoreResponse]:
        """Score every image, and say why: latent by latent, in a sentence, and with heat maps."""
        return Call("Explain", ScoreResponse, images, reference, context, options)

    @_Method
    def fit(
        self, /, images: Images | None = None, *, context: Contexts | None = None, **options: object
    ) -> Call[FitResponse]:
        """Fit a context to the images, merged with those in `context`. Send it as `context` with other calls."""
        return Call("Fit", FitResponse, images, None, context, options)

    @_Method
    def edit(
        self, /, images: Images, *, reference: Images | None = None, context: Contexts | None = None, **options: object
    ) -> Call[PicturesResponse]:
        """Draw each image as it would look if it belonged, or with other latents."""
        return Call("Edit", PicturesResponse, images, reference, context, options)

    @_Method
    def traverse(
        self,
        /,
        images: Images | None = None,
        *,
        reference: Images | None = None,
        context: Contexts | None = None,
        **options: object,
    ) -> Call[PicturesResponse]:
        """Draw pictures along every live latent, along those named in `latents`, or over a plane of two."""
        return Call("Traverse", PicturesResponse, images, reference, context, options)

    @_Method
    def interpolate(
        self, /, images: Images, *, reference: Images | None = None, context: Contexts | None = None, **options: object
    ) -> Call[PicturesResponse]:
        """Draw pictures on the way from one image to another."""
        return Call("Interpolate", PicturesResponse, images, reference, context, options)

    @_Method
    def sample(
        self,
        /,
        images: Images | None = None,
        *,
        reference: Images | None = None,
        context: Contexts | None = None,
        **options: object,
    ) -> Call[PicturesResponse]:
        """Draw new pictures that belong to the context."""
        return Call("Sample", PicturesResponse, images, reference, context, options)

    @_Method
    def encode(self, /, images: Images, **options: object) -> Call[EncodeResponse]:
        """Return the latents of every image: mean and logvar."""
        return Call("Encode", EncodeResponse, images, options=options)

    @_Method
    def decode(self, /, latents: Iterable[Iterable[float]]) -> Call[PicturesResponse]:
        """Draw the pictures of latents (n, L)."""
        return Call("Decode", PicturesResponse, latents=latents)

    @_Method
    def describe(self, /) -> Call[Description]:
        """Describe the model, its latents, the limits, and where the networks run."""
        return Call("Describe", Description)
