"""The client without a server: its answers are those of the pipeline, and it leaves nothing behind."""

import subprocess
import sys

import numpy as np
import pytest
from serving import ROOT

from service.client import CallError, NamedImage
from service.errors import BundleMissing
from service.offline.in_process import LocalClient


@pytest.fixture(scope="module")
def misfit():
    with LocalClient("shapes3d") as misfit:
        yield misfit


def test_every_use_case_answers_in_this_process(misfit, images):
    scores = misfit.score(images, attributions="top")
    assert [item.index for item in scores.items] == list(range(len(images)))
    context = misfit.fit(images)
    assert misfit.score(images[:2], context=context).context.source == "reference"
    assert misfit.explain(images, heat_maps="none").items[0].minimal_set is not None
    assert misfit.edit(images, which=["index:0"]).pictures[0].image
    assert len(misfit.sample(context=context, count=2, method="gaussian").pictures) == 2
    latents = [item.mean for item in misfit.encode(images[:2]).items]
    assert len(misfit.decode(latents).pictures) == 2
    assert misfit.describe().latent_dim == len(latents[0])
    assert misfit.score_stream([images[:4], images[4:]]).items == misfit.score(images).items


def test_images_come_in_every_form_and_a_missing_file_is_one_error(misfit, images, tmp_path):
    content = misfit.edit(images, which=["index:0"]).pictures[0]
    named = [NamedImage("same", lambda: images[0]), NamedImage("same", lambda: images[1]), tmp_path / "gone.png"]
    items = misfit.encode(named).items
    assert [(item.id, item.status) for item in items] == [("same", "ok"), ("same", "ok"), ("gone.png", "error")]
    assert "No such file" in items[2].error.message
    assert content.id == "0"


def test_mistakes_are_those_of_the_client(misfit, images):
    with pytest.raises(CallError, match="threshold") as raised:
        misfit.score(images, threshold=2)
    assert raised.value.code == "invalid_option"
    with pytest.raises(CallError, match="shape"):
        misfit.score(np.zeros((2, 2), np.uint8))
    with pytest.raises(TypeError, match="expected several"):
        misfit.score(b"x")
    with pytest.raises(BundleMissing):
        LocalClient("/nowhere")


def test_python_ends_although_nobody_closes_the_client():
    program = (
        "import numpy as np; from service.offline.in_process import LocalClient; c = LocalClient('shapes3d'); "
        "print(c.encode(np.zeros((1, 64, 64, 3), np.uint8)).items[0].status)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("ok\n", "", 0)
