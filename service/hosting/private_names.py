"""Start-up checks of the private names that this package uses of BentoML, circus, uvicorn and prometheus_client.

Private names change without notice. A process that misses one ends at start, with one line that names it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from inspect import unwrap
from operator import attrgetter
from platform import python_version
from types import CodeType
from typing import Any


class MissingPrivateName(SystemExit):
    """A private name does not exist in the installed version. The text names it, and says what to install.

    It is a SystemExit, so that `bentoml serve` prints one line instead of a trace.
    """


@contextmanager
def private_names(user: str) -> Iterator[None]:
    """Turn an ImportError or AttributeError of the imports and checks inside into a MissingPrivateName.

    `user` is the name of the module that uses the names.
    """
    try:
        yield
    except (ImportError, AttributeError) as error:
        reason = str(error).partition(" (/")[0]  # without the path of the file
        raise MissingPrivateName(
            f"misfit cannot start: {reason}; {user} uses it. Installed: {_list_installed(_find_owner(error))}. "
            "Install the versions of constraints.txt."
        ) from error


def require(owner: Any, *names: str) -> None:
    """Check that `owner`, a module, a class or an object, has the attributes `names`, which may be dotted.

    Raises AttributeError that lists all missing ones.
    """
    missing = [name for name in names if not _has(owner, name)]
    if missing:
        owner_name = getattr(owner, "__name__", type(owner).__name__)
        raise AttributeError(f"{owner_name} has no {', '.join(missing)}", name=missing[0], obj=owner)


def require_in_code(function: Callable[..., Any], *names: str) -> None:
    """Check that the code of `function` uses `names`: parameters, attributes that it sets, or globals.

    Before an instance exists, only the code shows its attributes. Raises AttributeError that lists all missing names.
    """
    code: CodeType = unwrap(function).__code__
    missing = [name for name in names if name not in (*code.co_names, *code.co_varnames)]
    if missing:
        text = f"{function.__module__}.{function.__qualname__} does not use {', '.join(missing)}"
        raise AttributeError(text, name=missing[0], obj=function)


def _has(owner: Any, name: str) -> bool:
    try:
        attrgetter(name)(owner)
    except AttributeError:
        return False
    return True


def _find_owner(error: ImportError | AttributeError) -> str:
    """Return the name of the module that `error` is about."""
    if isinstance(error, ImportError):
        return error.name or ""
    return str(getattr(error.obj, "__module__", None) or getattr(error.obj, "__name__", ""))


def _list_installed(module: str) -> str:
    """Return the distributions that `module` may belong to, with their versions."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"Python {python_version()}"
    distributions = sorted(set(metadata.packages_distributions().get(top, [])))
    return ", ".join(f"{name} {metadata.version(name)}" for name in distributions) or f"nothing that has {top}"
