"""gRPC requests for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
import numpy as np
from numpy.typing import NDArray

from service.api.wire import ERROR_DETAIL
from service.protos.misfit.v1 import misfit_pb2 as pb
from service.protos.misfit.v1 import misfit_pb2_grpc

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@contextmanager
def stub(target: str) -> Iterator[misfit_pb2_grpc.MisfitServiceStub]:
    with grpc.insecure_channel(target, UNLIMITED) as channel:
        yield misfit_pb2_grpc.MisfitServiceStub(channel)


def tensor(images: NDArray[np.uint8]) -> pb.Images:
    return pb.Images(tensor=pb.ImageTensor(shape=images.shape, data=images.tobytes()))


def files(contents: Sequence[bytes], ids: Sequence[str] = ()) -> pb.Images:
    return pb.Images(files=pb.ImageFiles(contents=contents), ids=ids)


def error_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, pb.ErrorDetail]:
    """The status of a failed call, and what its trailing metadata says."""
    metadata = dict(error.trailing_metadata() or ())
    return error.code(), pb.ErrorDetail.FromString(metadata[ERROR_DETAIL])
