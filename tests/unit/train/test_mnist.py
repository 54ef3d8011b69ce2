"""MNIST: real digits from idx files, packed or not; what is missing is fetched and checked."""

from __future__ import annotations

import gzip
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tqdm")

from train.data import mnist

SAMPLE = Path("tests/data/mnist")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "mnist"))


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address that serves the files of a folder."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", served
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_sample_is_500_digits_with_their_labels():
    dataset = mnist.load(SAMPLE)
    assert (dataset.images.shape, dataset.images.dtype) == ((500, 28, 28, 1), np.uint8)
    assert dataset.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert dataset.labels[400:404].tolist() == [7, 2, 1, 0]  # the test digits follow
    assert dataset.label_names[dataset.labels[0]] == "5"
    assert dataset.factors.shape == (500, 0), "a digit is a label, no generative factor"
    assert dataset.source == "own files", "a part is not what was published"
    ink = [dataset.images[dataset.labels == digit].mean() for digit in (0, 1)]
    assert ink[0] > 1.5 * ink[1], "labels and images belong together: a nought takes more ink than a one"


def test_packed_and_plain_files_are_the_same(copied):
    packed = copied / "train-images-idx3-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    np.testing.assert_array_equal(mnist.load(copied).images, mnist.load(SAMPLE).images)


def test_what_is_missing_is_fetched_and_checked(copied, mirror, monkeypatch):
    address, served = mirror
    name = "t10k-labels-idx1-ubyte"
    content = (copied / name).read_bytes()
    (served / f"{name}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="it is not kept"):
        mnist.download(copied, [name], address)
    assert not list(copied.glob(f"{name}.gz*"))

    monkeypatch.setitem(mnist.FILES, name, mnist.hashlib.sha256(content).hexdigest())
    (copied / name).unlink()
    mnist.download(copied, [name], address)
    assert len(mnist.load(copied).images) == 500


def test_without_files_or_network_the_message_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="Put the four idx files of MNIST"):
        mnist.download(tmp_path, list(mnist.FILES), "http://127.0.0.1:9/")


def test_an_answer_that_is_no_gzip_is_refused(tmp_path, mirror):
    address, served = mirror
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>moved</html>")
    with pytest.raises(ValueError, match="not gzip"):
        mnist.download(tmp_path, ["t10k-labels-idx1-ubyte"], address)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t10k-labels-idx1-ubyte", lambda content: content[:-1], "promises 100 values and holds 99"),
        ("t10k-labels-idx1-ubyte", lambda content: b"PK" + content[2:], "no idx file"),
        ("t10k-labels-idx1-ubyte", lambda content: content[:-1] + b"\x0b", "labels up to 11"),
        ("t10k-images-idx3-ubyte.gz", lambda content: content[:500], "cannot be unpacked"),
        ("train-labels-idx1-ubyte", lambda content: content[:4] + b"\x00\x00\x00\x01" + b"\x05", "500 images"),
    ],
)
def test_damaged_files_are_refused_by_name(copied, name, change, message):
    (copied / name).write_bytes(change((copied / name).read_bytes()))
    with pytest.raises(ValueError, match=message):
        mnist.load(copied)
