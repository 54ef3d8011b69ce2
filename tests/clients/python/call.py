"""Call a running misfit with the client that openapi-python-client generates.

Arguments: address, token, folder of PNG files, the ids that are to be flagged.
"""

import sys
from io import BytesIO
from pathlib import Path

from misfit_client import AuthenticatedClient
from misfit_client.api.images import fit, score
from misfit_client.api.model import describe
from misfit_client.api.pictures import decode, edit
from misfit_client.models import (
    DecodeJsonBody,
    EditFilesBody,
    ErrorResponse,
    FitFilesBody,
    FitResponse,
    PicturesResponse,
    ScoreFilesBody,
    ScoreOptions,
    ScoreResponse,
)
from misfit_client.types import File

address, token, folder, *flagged = sys.argv[1:]
paths = sorted(Path(folder).iterdir())


def files() -> list[File]:
    return [File(BytesIO(path.read_bytes()), path.name, "image/png") for path in paths]


def check(condition: object, answer: object) -> None:
    if not condition:
        sys.exit(f"unexpected: {answer}")


with AuthenticatedClient(address, token, timeout=60) as client:
    # The query has every default; the options set fdr beside the default threshold.
    options = ScoreOptions(fdr=0.1)
    scored = score.sync(client=client, body=ScoreFilesBody(files(), options=options))
    check(isinstance(scored, ScoreResponse), scored)
    check(sorted(item.id for item in scored.items if item.is_outlier) == flagged, scored)

    fitted = fit.sync(client=client, body=FitFilesBody(files()))
    check(isinstance(fitted, FitResponse), fitted)
    compared = score.sync(client=client, body=ScoreFilesBody(files(), context=fitted.context))
    check(isinstance(compared, ScoreResponse) and compared.context.source == "reference", compared)

    edited = edit.sync(client=client, body=EditFilesBody(files()))
    check(isinstance(edited, PicturesResponse), edited)
    check(sorted(picture.id for picture in edited.pictures) == flagged, edited)

    described = describe.sync(client=client)
    latents = [[0.0] * described.latent_dim] * 2
    decoded = decode.sync(client=client, body=DecodeJsonBody(latents))
    check(isinstance(decoded, PicturesResponse) and len(decoded.pictures) == 2, decoded)

with AuthenticatedClient(address, "no", timeout=60) as client:
    refused = describe.sync(client=client)
    check(isinstance(refused, ErrorResponse) and refused.error.code == "unauthenticated", refused)
print("every call was answered")
