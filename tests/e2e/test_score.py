"""/score and /describe over HTTP: every format, both clients, references, options, concurrency."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import bodies
import httpx
import numpy as np
import pytest
import tifffile
from openapi_spec_validator import OpenAPIV31SpecValidator

SCORES = ("outlier_score", "mahalanobis_squared", "outlier_probability", "is_outlier", "rank")
ITEM = {"index", "id", "status", "is_foreign", *SCORES}


@pytest.fixture(scope="module")
def files(images):
    return bodies.image_files(images)


def scores(response: httpx.Response) -> list[tuple[object, ...]]:
    assert response.status_code == 200, response.text
    return [tuple(item[name] for name in SCORES) for item in response.json()["items"]]


def test_every_format_gives_the_same_numbers(post, images, files):
    expected = scores(post(bodies.as_npy(images)))
    assert len(expected) == len(images)
    for body in (
        bodies.as_form(bodies.form_of(files)),
        bodies.as_zip(files),
        bodies.as_tar(files),
        bodies.as_json(files.values()),
        bodies.as_form([("images", "images.npy", bodies.npy(images))]),
    ):
        assert scores(post(body)) == expected


def test_the_answer_has_the_promised_shape(post, files):
    answer = post(bodies.as_zip(files)).json()
    assert answer["context"].keys() == {"source", "size", "estimator", "contamination", "reliability", "warnings"}
    assert (answer["context"]["source"], answer["context"]["size"]) == ("batch", len(files))
    assert all(item.keys() == ITEM and item["status"] == "ok" for item in answer["items"])
    assert [item["index"] for item in answer["items"]] == list(range(len(files)))
    assert [item["id"] for item in answer["items"]] == list(files)
    assert sorted(item["rank"] for item in answer["items"]) == list(range(1, len(files) + 1))


def test_estimators_answer_under_their_names(post, client, images):
    for estimator in client.post("/describe").json()["estimators"]:
        answer = post(bodies.as_npy(images), estimator=estimator)
        assert answer.json()["context"]["estimator"] == estimator
        assert all(score is not None for score in scores(answer)[0])


def test_a_reference_is_the_context_in_every_format(post, images, files):
    few, normal = images[:5], images[5:]
    few_files, normal_files = bodies.image_files(few), bodies.image_files(normal)
    form = bodies.as_form(bodies.form_of(few_files) + bodies.form_of(normal_files, "reference"))
    expected = post(form)
    context = expected.json()["context"]
    assert (context["source"], context["size"]) == ("reference", len(normal))
    in_folder = {f"reference/{name}": content for name, content in normal_files.items()}
    for body in (
        bodies.as_zip(few_files | in_folder),
        bodies.as_zip({"images.npy": bodies.npy(few), "reference.npy": bodies.npy(normal)}),
        bodies.as_form([("images", "a.npy", bodies.npy(few)), ("reference", "b.npy", bodies.npy(normal))]),
        bodies.as_json(
            few_files.values(), reference=[base64.b64encode(file).decode() for file in normal_files.values()]
        ),
    ):
        assert scores(post(body)) == scores(expected)
    reversed_batch = scores(
        post(bodies.as_form([("images", "a.npy", bodies.npy(few[::-1])), ("reference", "b.npy", bodies.npy(normal))]))
    )
    without_rank = [[score[:4] for score in batch] for batch in (scores(expected), reversed_batch[::-1])]
    assert without_rank[0] == without_rank[1]


def test_flags_follow_the_options(post, images):
    loose = post(bodies.as_npy(images), threshold=0).json()["items"]
    strict = post(bodies.as_npy(images), threshold=1).json()["items"]
    assert all(item["is_outlier"] for item in loose)
    assert not any(item["is_outlier"] for item in strict)
    in_body = bodies.as_json(bodies.image_files(images).values(), options={"threshold": 0})
    assert all(item["is_outlier"] for item in post(in_body).json()["items"])
    at_any_rate = post(bodies.as_npy(images), fdr=1).json()["items"]
    assert [item["is_outlier"] for item in at_any_rate] == [item["outlier_probability"] >= 0.5 for item in at_any_rate]


def test_one_image_is_scored_against_the_population(post, images):
    answer = post(bodies.as_npy(images[:1])).json()
    assert answer["context"]["source"] == "population"
    assert answer["context"]["warnings"]


def test_other_sizes_are_resized_or_refused(post, images):
    larger = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    assert len(scores(post(bodies.as_npy(larger)))) == len(images)
    refused = post(bodies.as_npy(larger), resize="reject")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "shape_mismatch")


def test_deep_images_score_as_at_8_bits_and_the_answer_tells_their_range(client, post, images):
    """12 bits in 16, as TIFF files in a zip and as an array; the options are those of the query and of the body."""
    expected = scores(post(bodies.as_npy(images)))
    files = {}
    for number, image in enumerate(images):
        tifffile.imwrite(file := io.BytesIO(), image.astype(np.uint16) << 4)
        files[f"{number}.tif"] = file.getvalue()
    for body in (bodies.as_zip(files), bodies.as_npy(images.astype(np.uint16) << 4)):
        answer = post(body)
        assert np.allclose(scores(answer), expected)
        assert any("0 as black and 4095 as white" in text for text in answer.json()["context"]["warnings"])
    media_type, body = bodies.as_json(files.values(), options={"range": "full"})
    dark = client.post("/encode", content=body, headers={"Content-Type": media_type}).json()
    assert "are dark" in dark["warnings"][0]


def test_the_pages_of_a_file_are_images(post, images):
    tifffile.imwrite(file := io.BytesIO(), images, photometric="rgb")
    first, every = (post(bodies.as_zip({"a.tif": file.getvalue()}), pages=pages) for pages in ("first", "all"))
    assert any("several pages" in text for text in first.json()["context"]["warnings"])
    assert np.allclose(scores(every), scores(post(bodies.as_npy(images))))
    assert every.json()["items"][3]["id"] == "a.tif[3]"


def test_describe(client, served_bundle):
    answer = client.post("/describe").json()
    assert answer["bundle_id"] == served_bundle.manifest.bundle_id
    assert answer["latents"] == [latent.model_dump() for latent in served_bundle.manifest.latents]
    assert answer["image"] == served_bundle.manifest.image.model_dump()
    assert answer["limits"]["max_images"] == 1600
    assert answer["provider"].endswith("ExecutionProvider")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_bentomls_own_client(served, post, files, tmp_path):
    import bentoml
    from bentoml.exceptions import BentoMLException

    paths = []
    for name, content in files.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    with bentoml.SyncHTTPClient(served.url) as client:
        answer = client.score(images=paths, options={"estimator": "robust"})
        assert answer == post(bodies.as_form(bodies.form_of(files)), estimator="robust").json()
        against = client.score(images=paths[:3], reference=paths[3:])
        assert against["context"]["source"] == "reference"
        assert client.describe()["model"] == answer["model"]
        with pytest.raises(BentoMLException, match="Known options"):
            client.score(images=paths, options={"estimatr": "robust"})
    client._temp_dir.cleanup()  # the client leaves it to the garbage collector, which warns


def test_traffic_changes_no_score(post, images):
    """The same request, alone and among 32 others of other sizes, to the last bit."""
    request = bodies.as_npy(images[:23])
    alone = scores(post(request))
    rng = np.random.default_rng(3)
    others = [
        bodies.as_npy(rng.integers(0, 256, (size, 64, 64, 3), dtype=np.uint8)) for size in rng.integers(1, 60, 32)
    ]
    traffic = [*others[:16], request, *others[16:], request]
    with ThreadPoolExecutor(len(traffic)) as pool:
        answers = list(pool.map(post, traffic))
    assert scores(answers[16]) == alone
    assert scores(answers[-1]) == alone
    assert all(answer.status_code == 200 for answer in answers)


def test_the_published_document_is_valid(client):
    document = client.get("/docs.json").json()
    OpenAPIV31SpecValidator(document).validate()
    assert {"/score", "/describe"} <= document["paths"].keys()


def test_requests_can_be_told_apart(client, post, images):
    answer = client.post("/describe", headers={"X-Request-ID": "order-66"})
    assert answer.headers["x-request-id"] == "order-66"
    refused = post(("application/json", b"{"))
    assert refused.headers["x-request-id"] == refused.json()["request_id"]


def test_numbers_are_plain_json(post, images):
    def refuse(constant: str):
        raise AssertionError(constant)

    for body in (
        bodies.as_npy(images[:1]),
        bodies.as_npy(images[:2]),
        bodies.as_npy(np.repeat(images[:1], 20, axis=0)),
    ):
        json.loads(post(body).text, parse_constant=refuse)
