"""The options of an endpoint as options of a command, made from the one table of options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from service.api.options import Options
from service.api.validation import read_options
from service.cli.endings import WrongUsage
from service.errors import InvalidOption

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def endpoint_options(options_type: type[Options], defaults: Mapping[str, object]) -> Callable[[CommandT], CommandT]:
    """Return a decorator that adds every option of an endpoint to a command. `defaults` differ from the endpoint's."""

    def decorate(command: CommandT) -> CommandT:
        for name, field in reversed(options_type.model_fields.items()):
            command = _make_option(name, field, defaults.get(name, field.default))(command)
        return command

    return decorate


def read_endpoint_options(
    options_type: type[Options], values: Mapping[str, Any], defaults: Mapping[str, object]
) -> dict[str, Any]:
    """Return the options that differ from the endpoint's defaults, and take them out of a command's `values`.

    Raises WrongUsage.
    """
    given = {name: values[name] for name in options_type.model_fields if values.get(name) not in (None, False)}
    try:
        options = read_options({**defaults, **given}, options_type)
    except InvalidOption as error:
        raise WrongUsage(error.message, "misfit COMMAND --help describes every option.") from error
    return options.model_dump(mode="json", include={*defaults, *given})


def _make_option(name: str, field: FieldInfo, default: object) -> Callable[[CommandT], CommandT]:
    kind, is_flag = _click_type(field.annotation)
    text = field.description or "of images: an id, or a place as index:15"
    if default not in (None, {}, False):
        text = f"{text}  [default: {default}]"
    flag = f"--{name.replace('_', '-')}"
    return click.option(flag, name, type=kind, is_flag=is_flag, default=None, help=text)


def _click_type(annotation: Any) -> tuple[Any, bool]:
    """Return the type of a click option for a field's type, and whether it is a flag. The endpoint checks ranges."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = [part for part in parts if part is not NoneType]
    if len(kinds) == 1:
        if kinds[0] is bool:
            return None, True
        if kinds[0] in (int, float):
            return kinds[0], False
        if get_origin(kinds[0]) is Literal:
            return click.Choice([str(word) for word in get_args(kinds[0])]), False
    return str, False
