"""The Python client, plainly called and awaited, over HTTP and gRPC: one service, the same answers and errors."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import bodies
import documents
import numpy as np
import pytest
from conftest import LATENT_DIM
from PIL import Image

from service.client.client import AsyncClient, CallError, Client, Retries, png

WAYS = ["http", "grpc", "awaited http", "awaited grpc"]


class Awaited:
    """An AsyncClient in a loop of its own: its methods, run to their end."""

    def __init__(self, url, runner):
        self._client, self._runner = AsyncClient(url), runner

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def awaited(*args, **kwargs):
            return await method(*args, **kwargs)

        return lambda *args, **kwargs: self._runner.run(awaited(*args, **kwargs))


@contextmanager
def client_over(way, served):
    url = f"grpc://{served.grpc_target}" if "grpc" in way else served.url
    if way.startswith("awaited"):
        with asyncio.Runner() as runner:
            client = Awaited(url, runner)
            yield client
            client.close()
    else:
        with Client(url) as client:
            yield client


@pytest.fixture(scope="module")
def clients(served):
    """One client of each way."""
    with ExitStack() as stack:
        yield {way: stack.enter_context(client_over(way, served)) for way in WAYS}


@pytest.fixture(scope="module")
def files(images):
    """Images by id, a broken one among them."""
    return {"a picture": bodies.encoded(images[0]), "broken": b"no image"} | {
        str(number): bodies.encoded(image) for number, image in enumerate(images[1:])
    }


@pytest.fixture(scope="module")
def contexts(clients, images):
    return {way: client.fit(images) for way, client in clients.items()}


CASES = {
    "describe": lambda misfit, images, files, context: misfit.describe(),
    "score": lambda misfit, images, files, context: misfit.score(images),
    "score files": lambda misfit, images, files, context: misfit.score(files, fdr=0.1, attributions="top", top=2),
    "score against a reference": lambda misfit, images, files, context: misfit.score(
        files, reference=images[10:], estimator="robust"
    ),
    "score against a context": lambda misfit, images, files, context: misfit.score(images[:1], context=context),
    "explain": lambda misfit, images, files, context: misfit.explain(files, interactions=True),
    "explain nothing": lambda misfit, images, files, context: misfit.explain(images, heat_maps="none", threshold=1.0),
    "score with neighbours": lambda misfit, images, files, context: misfit.score(
        [*files.values(), *files.values()], nearest=2, duplicates="groups"
    ),
    "score one with neighbours": lambda misfit, images, files, context: misfit.score(
        images[:1], nearest=2, duplicates="groups"
    ),
    "explain with neighbours": lambda misfit, images, files, context: misfit.explain(
        images, nearest=2, duplicates="groups", heat_maps="none"
    ),
    "fit": lambda misfit, images, files, context: misfit.fit(files, context=[context, context.context]),
    "edit": lambda misfit, images, files, context: misfit.edit(files, which=["a picture", 3], latents="scale"),
    "edit by values": lambda misfit, images, files, context: misfit.edit(
        images, which="all", edit="shift", values={"scale": 1, 3: -0.5}
    ),
    "traverse": lambda misfit, images, files, context: misfit.traverse(context=context, latents=["scale"], steps=3),
    "interpolate": lambda misfit, images, files, context: misfit.interpolate(files, end="a picture", frames=3),
    "sample": lambda misfit, images, files, context: misfit.sample(images, count=3, seed=5),
    "encode": lambda misfit, images, files, context: misfit.encode(files, resize="reject"),
    "decode": lambda misfit, images, files, context: misfit.decode(np.linspace(-1, 1, 2 * LATENT_DIM).reshape(2, -1)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_way_gives_the_same_answer(clients, contexts, images, files, case):
    answers = {way: CASES[case](client, images, files, contexts[way]) for way, client in clients.items()}
    for way in WAYS[1:]:
        assert answers[way] == answers["http"], way


REFUSED = {
    "nothing": ("invalid_input", lambda misfit, images, context: misfit.score([])),
    "an empty reference": ("invalid_input", lambda misfit, images, context: misfit.score(images, reference=[])),
    "complex numbers": ("shape_mismatch", lambda misfit, images, context: misfit.score(images * 1j)),
    "one image": ("shape_mismatch", lambda misfit, images, context: misfit.score(images[0])),
    "no images": ("undecodable_image", lambda misfit, images, context: misfit.score([b"one", b"two"])),
    "a misspelt option": ("invalid_option", lambda misfit, images, context: misfit.score(images, estimatr="robust")),
    "an unknown word": ("invalid_option", lambda misfit, images, context: misfit.score(images, estimator="best")),
    "out of range": ("invalid_option", lambda misfit, images, context: misfit.score(images, threshold=2)),
    "two rules": ("invalid_option", lambda misfit, images, context: misfit.score(images, threshold=0.6, fdr=0.1)),
    "normal said twice": (
        "invalid_option",
        lambda misfit, images, context: misfit.score(images, context=context, reference=images),
    ),
    "an unknown latent": ("unknown_latent", lambda misfit, images, context: misfit.traverse(images, latents="hat")),
    "uneven latents": ("invalid_input", lambda misfit, images, context: misfit.decode([[1, 2], [1]])),
    "too many": (
        "too_many_images",
        lambda misfit, images, context: misfit.score(np.zeros((1601, 8, 8), np.uint8)),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_way_gives_the_same_error(clients, contexts, images, case):
    code, call = REFUSED[case]
    errors = {}
    for way, client in clients.items():
        with pytest.raises(CallError) as failed:
            call(client, images, contexts[way])
        errors[way] = failed.value
        assert failed.value.request_id
    said = {way: (error.code, error.message, error.hint) for way, error in errors.items()}
    assert set(said.values()) == {said["http"]}
    assert said["http"][0] == code


@pytest.mark.parametrize("way", WAYS)
def test_images_come_in_any_form(clients, images, tmp_path, way):
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    by_path = clients[way].score(sorted(tmp_path.glob("*.png")))
    assert [item.id for item in by_path.items][:2] == ["00.png", "01.png"]
    forms = [images, [bodies.encoded(pixels) for pixels in images], (Image.fromarray(pixels) for pixels in images)]
    for form in forms:
        answer = clients[way].score(form)
        assert [item.outlier_score for item in answer.items] == [item.outlier_score for item in by_path.items]


@pytest.mark.parametrize("way", ["grpc", "awaited grpc"])
def test_a_stream_scores_as_one_batch_does(clients, contexts, images, way):
    chunks = [images[start : start + 9] for start in range(0, len(images), 9)]
    assert clients[way].score_stream(iter(chunks)) == clients["http"].score(images)
    against = {"context": contexts[way], "attributions": "all"}
    assert clients[way].score_stream(chunks, **against) == clients["http"].score(images, **against)


@pytest.mark.parametrize("way", WAYS)
def test_pictures_are_png_files(clients, images, way):
    (picture,) = clients[way].sample(images, count=1).pictures
    assert png(picture).startswith(b"\x89PNG")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_clients_that_are_turned_away_come_again(served, scheme):
    """Three requests at a time, where there is room for one."""
    url = served.url if scheme == "http" else f"grpc://{served.grpc_target}"
    large = np.zeros((1000, 64, 64, 3), dtype=np.uint8)
    patient = Retries(attempts=100, first_wait=0.1, longest_wait=1)
    with Client(url, retries=patient) as client, ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: client.encode(large), range(3)))
    assert [len(answer.items) for answer in answers] == [1000] * 3


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_documents_example_names_the_misfits(served, tmp_path, scheme):
    url = served.url if scheme == "http" else f"grpc://{served.grpc_target}"
    example = documents.example(documents.ROOT / "docs/python-client.md", "client")
    ranked, reason = documents.run(example, tmp_path, {"http://localhost:3000": url}).splitlines()
    assert set(ranked.split()) == {"14.png", "35.png", "49.png", "58.png"}
    assert reason == "fits the reference"
    assert (tmp_path / "out/mended.png").read_bytes().startswith(b"\x89PNG")
