"""A folder for the counts of each service.

BentoML has one folder for all services of a user, and empties it whenever one of them starts.
"""

from __future__ import annotations

import atexit
import glob
import os
import shutil
import socket
import uuid
from pathlib import Path

from service.hosting.metric_files import is_running
from service.hosting.private_names import private_names, require, require_in_code

with private_names(__name__):
    from _bentoml_impl.server import serving
    from bentoml._internal.configuration.containers import BentoMLContainer

    require(BentoMLContainer, "prometheus_multiproc_dir.set", "bentoml_home.get")
    require_in_code(serving.serve_http, "ensure_prometheus_dir")

# In BentoML's home, the folder with one folder for each running service.
FOLDERS = "misfit_metrics"


def choose_own_folder() -> None:
    """Make the supervisor keep the counts in a folder that no other service has. Call this before BentoML serves.

    BentoML makes the folder and hands it to the workers.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    BentoMLContainer.prometheus_multiproc_dir.set(str(Path(BentoMLContainer.bentoml_home.get(), FOLDERS, name)))


def remove_folders() -> None:
    """Remove the folder when this process, the supervisor, ends; and those of supervisors that were killed.

    Of the latter, only this machine's: several may share a home.
    """
    own = Path(BentoMLContainer.prometheus_multiproc_dir.get())
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    for folder in own.parent.glob(f"{glob.escape(socket.gethostname())}-*-*"):
        pid = folder.name.split("-")[-2]
        if pid.isdecimal() and not is_running(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
