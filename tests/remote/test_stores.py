"""Images in stores elsewhere: a bucket of S3 on this machine, and file systems for the other schemes. `make remote`."""

import os
import subprocess
import sys
import zipfile

import fsspec
import pytest
from serving import ROOT

from service.offline.scores_table import read_scores

server = pytest.importorskip("moto.server")

BATCH = ROOT / "tests/data/shapes3d_batch.zip"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def store():
    """The address of a store with the sample batch in a bucket."""
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        bucket = fsspec.filesystem("s3", key="key", secret="secret", endpoint_url=endpoint)
        bucket.mkdir("photos")
        with zipfile.ZipFile(BATCH) as archive:
            for name in archive.namelist():
                bucket.pipe_file(f"photos/batch/{name}", archive.read(name))
        yield endpoint
    finally:
        running.stop()


def score(source, out, endpoint):
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": endpoint, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "service.cli", "score", source, "--show", "0", "--out", str(out)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_folder_of_a_bucket_is_scored_as_on_this_machine(store, tmp_path):
    assert score(str(BATCH), tmp_path / "local.csv", store).returncode == 0
    result = score("s3://photos/batch", tmp_path / "remote.csv", store)
    assert result.returncode == 0, result.stderr
    local, remote = (read_scores(tmp_path / name).rows for name in ("local.csv", "remote.csv"))
    assert [(row.id, row.outlier_score) for row in remote] == [(row.id, row.outlier_score) for row in local]
    assert remote[0].path == "s3://photos/batch/00.png"
    missing = score("s3://photos/nothing/*", tmp_path / "x.csv", store)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs"), ("hf", "huggingface_hub")]
)
def test_every_scheme_of_the_extra_has_its_file_system(scheme, package):
    assert fsspec.get_filesystem_class(scheme).__module__.partition(".")[0] == package
