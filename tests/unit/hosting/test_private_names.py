"""The start-up checks: a private name that is missing ends the process with one line that names it."""

import importlib.util
import subprocess
import sys
from pkgutil import resolve_name

import pytest
from serving import ROOT

from service.hosting.private_names import MissingPrivateName, private_names, require, require_in_code

pytestmark = pytest.mark.filterwarnings("ignore")  # BentoML's imports warn

USERS = {
    "circus_sockets": ["bentoml._internal.utils.circus", "circus.arbiter"],
    "metric_files": ["prometheus_client.mmap_dict", "prometheus_client.multiprocess"],
    "routes": ["bentoml._internal.configuration.containers"],
    "uvicorn_protocol": ["uvicorn.config", "uvicorn.protocols.http.httptools_impl"],
    "worker_app": [
        "_bentoml_impl.server.app",
        "bentoml._internal.configuration.containers",
        "bentoml._internal.server.base_app",
    ],
    "workers": ["_bentoml_sdk.service.factory", "bentoml._internal.configuration.containers"],
}
ATTRIBUTES = [
    ("circus_sockets", "bentoml._internal.utils.circus", "Arbiter"),
    ("circus_sockets", "bentoml._internal.utils.circus", "ThreadedArbiter"),
    ("io_descriptors", "_bentoml_sdk.io_models:IOMixin", "from_http_request"),
    ("metric_files", "prometheus_client.mmap_dict", "_INITIAL_MMAP_SIZE"),
    ("metric_files", "prometheus_client.mmap_dict:MmapedDict", "_init_value"),
    ("metric_files", "prometheus_client.mmap_dict:MmapedDict", "read_value"),
    ("metric_files", "prometheus_client.mmap_dict:MmapedDict", "write_value"),
    ("metric_files", "prometheus_client.values", "MmapedDict"),
    ("metric_files", "prometheus_client.multiprocess", "MmapedDict"),
    ("routes", "bentoml._internal.configuration.containers:_BentoMLContainerClass", "metrics_client"),
    ("uvicorn_protocol", "uvicorn.config", "HTTP_PROTOCOLS"),
    ("uvicorn_protocol", "uvicorn.config", "WS_PROTOCOLS"),
    ("uvicorn_protocol", "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol", "send_400_response"),
    ("uvicorn_protocol", "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol", "timeout_keep_alive_handler"),
    ("workers", "bentoml._internal.configuration.containers:_BentoMLContainerClass", "remote_runner_mapping"),
    ("worker_app", "bentoml._internal.configuration.containers:_BentoMLContainerClass", "tracer_provider"),
    ("worker_app", "bentoml:Service", "inject_config"),
    ("workers", "bentoml:Service", "inject_config"),
    ("workers", "bentoml:Service", "openapi_spec"),
    ("workers", "bentoml:Service", "__attrs_post_init__"),
]
CODE = [
    ("circus_sockets", "bentoml._internal.utils.circus", "create_standalone_arbiter"),
    ("circus_sockets", "circus.arbiter:Arbiter", "__init__"),
    ("metric_files", "prometheus_client.mmap_dict:MmapedDict", "__init__"),
    ("uvicorn_protocol", "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol", "__init__"),
    ("uvicorn_protocol", "uvicorn.protocols.http.httptools_impl:RequestResponseCycle", "__init__"),
    ("worker_app", "_bentoml_impl.server.app:ServiceAppFactory", "__init__"),
    ("worker_app", "bentoml._internal.server.base_app:BaseAppFactory", "__init__"),
    ("workers", "_bentoml_sdk.service.factory", "service"),
]


def start(user: str) -> None:
    """Run the code of a module of service.hosting once more, in a module object that nobody else sees."""
    spec = importlib.util.find_spec(f"service.hosting.{user}")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def one_line(error: MissingPrivateName, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert text.startswith("misfit cannot start: ")
    assert text.endswith(" Install the versions of constraints.txt.")
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("user", sorted({*USERS, *(user for user, *_ in ATTRIBUTES)}))
def test_the_installed_versions_have_every_name(user):
    start(user)


@pytest.mark.parametrize(("user", "module"), [(user, module) for user, names in USERS.items() for module in names])
def test_a_missing_module_is_named(user, module, monkeypatch):
    parent, _, name = module.rpartition(".")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr(importlib.import_module(parent), name, raising=False)
    with pytest.raises(MissingPrivateName) as raised:
        start(user)
    one_line(raised.value, name, parent, f"service.hosting.{user} uses it", "Installed: ")
    assert "nothing" not in str(raised.value)


@pytest.mark.parametrize(("user", "owner", "name"), ATTRIBUTES)
def test_a_missing_attribute_is_named(user, owner, name, monkeypatch):
    monkeypatch.delattr(resolve_name(owner), name)
    with pytest.raises(MissingPrivateName) as raised:
        start(user)
    one_line(raised.value, name, f"service.hosting.{user} uses it", "Installed: ")
    assert "nothing" not in str(raised.value)


@pytest.mark.parametrize(("user", "owner", "function"), CODE)
def test_code_that_no_longer_uses_a_name_is_told(user, owner, function, monkeypatch):
    def other() -> None: ...

    owner = resolve_name(owner)
    module = getattr(owner, "__module__", owner.__name__)
    other.__module__, other.__qualname__ = module, function
    monkeypatch.setattr(owner, function, other)
    with pytest.raises(MissingPrivateName) as raised:
        start(user)
    one_line(raised.value, f"{module}.{function} does not use ", f"service.hosting.{user} uses it")


def test_all_missing_names_and_the_installed_version_are_told():
    with (
        pytest.raises(MissingPrivateName, match=r"has no one, two\.three; me uses it\. Installed: bentoml 1\.\d"),
        private_names("me"),
    ):
        require(resolve_name("bentoml:Service"), "one", "to_asgi", "two.three")
    with (
        pytest.raises(MissingPrivateName, match=r"does not use nothing; me uses it\. Installed: Python 3\."),
        private_names("me"),
    ):
        require_in_code(importlib.util.find_spec, "name", "nothing")


def test_the_process_ends_with_one_line():
    """As `bentoml serve` would: whoever imports the application gets the line and no trace."""
    script = "import sys; sys.modules['bentoml._internal.utils.circus'] = None; import service.app"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("misfit cannot start: ")
