"""Another project that has a package called service and uses misfit's client: what it runs, and where.

The program prints which images a running service flags, over HTTP and gRPC, and fails if a package of the server is
imported.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

PROGRAM = """
import asyncio, sys
from pathlib import Path

import service
from misfit_client import AsyncClient, CallError, Client

assert service.WHOSE == "the other project's"
http, grpc, *images = sys.argv[1:]

def flagged(answer):
    return sorted(item.id for item in answer.items if item.is_outlier)

async def awaited(url):
    async with AsyncClient(url) as misfit:
        return flagged(await misfit.score(images))

with Client(http) as misfit, Client(grpc) as other:
    answers = {*map(tuple, (flagged(misfit.score(images)), flagged(other.score(images))))}
    assert misfit.edit(images, which=[flagged(misfit.score(images))[0]]).pictures[0].inside
    try:
        misfit.score(images, threshold=7)
    except CallError as error:
        assert "threshold" in str(error)
    else:
        raise AssertionError("no error came")
answers |= {tuple(asyncio.run(awaited(url))) for url in (http, grpc)}
(answer,) = answers
server = {"bentoml", "onnxruntime", "scipy", "sklearn", "opentelemetry", "starlette", "uvicorn", "service.client"}
assert not server & sys.modules.keys(), server & sys.modules.keys()
print(*answer)
"""


def use_client(
    python: Path, project: Path, packages: Sequence[Path], urls: tuple[str, str], images: Sequence[Path]
) -> str:
    """Return what the program prints, run by `python` in the directory `project`, which it fills.

    packages  directories that are searched for modules as well
    urls      of a running service: over HTTP, and over gRPC
    """
    (project / "service").mkdir(parents=True)
    (project / "service" / "__init__.py").write_text('WHOSE = "the other project\'s"\n')
    (project / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [str(python), "program.py", *urls, *map(str, images)],
        cwd=project,
        env={"PYTHONPATH": ":".join(map(str, packages))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
