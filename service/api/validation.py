"""Options and contexts from what JSON holds: checked by pydantic, whose faults become sentences."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

from pydantic import ValidationError

from service.api.contexts.portable import PortableContext
from service.api.options import Options
from service.errors import LONGEST_QUOTE, InvalidInput, InvalidOption, quoted

OptionsT = TypeVar("OptionsT", bound=Options)

TYPE_NAMES = ("int", "str", "float", "bool")
LARGEST_EXACT = 2**53  # a double's whole numbers are exact below
# Faults of an option that has one value, where a list came.
ONE_VALUE_FAULTS = ("float_type", "int_type", "string_type", "bool_type")


def read_options(values: Mapping[str, object], options_type: type[OptionsT]) -> OptionsT:
    """Return the options. Raises InvalidOption that names what is wrong, and what the options are."""
    if not values:
        defaults: OptionsT = _make_defaults(options_type)
        return defaults
    if unknown := values.keys() - options_type.model_fields.keys():
        raise InvalidOption(
            f"Unknown option: {', '.join(map(cut_name, sorted(unknown)[:3]))}.",
            f"Known options are {', '.join(options_type.model_fields)}.",
        )
    # Generated clients send null for what has no value.
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return options_type.model_validate(values)
    except ValidationError as error:
        raise InvalidOption(_describe_problems(error), "GET /docs.json describes every option.") from error


@cache
def _make_defaults(options_type: type[OptionsT]) -> OptionsT:
    return options_type()


def read_contexts(value: object) -> list[PortableContext]:
    """Return one context, or a list of them, as /fit answered them: `context` of an answer, or the whole answer.

    Raises InvalidInput that names what is wrong.
    """
    try:
        contexts = value if isinstance(value, list) else [value]
        return [PortableContext.model_validate(_take_from_answer(context)) for context in contexts]
    except ValidationError as error:
        raise InvalidInput(
            f"The context cannot be used: {_describe_problems(error)}",
            "Send what `context` was in the answer of POST /fit.",
        ) from error


def _take_from_answer(value: object) -> object:
    """Return the context in a whole answer of /fit; anything else as it is."""
    if isinstance(value, dict) and isinstance(value.get("context"), dict) and "bundle_id" not in value:
        return value["context"]
    return value


def _describe_problems(error: ValidationError) -> str:
    """Return the first three problems in words: where, what was expected and, of a single value, what came."""
    problems = []
    for fault in error.errors(include_url=False)[:3]:
        where, value = ".".join(str(part) for part in fault["loc"] if not _is_type(part)), fault["input"]
        text = f"{cut_name(where)}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_EXACT:
            value = int(value)  # protobuf makes 2.0 of 2, and both are told alike
        # Words travel as numbers over gRPC: which one came is not known there.
        is_told = fault["type"] not in ("missing", "literal_error")
        is_told &= value is None or isinstance(value, bool | int | float | str)
        if isinstance(value, list) and fault["type"] in ONE_VALUE_FAULTS:
            text += f", {len(value)} values came"
        problems.append(f"{text}, {quoted(value)} came" if is_told else text)
    return f"{'; '.join(problems)}."


def _is_type(part: str | int) -> bool:
    """Return whether a part of a place is pydantic's name for one of several types, and no name of ours."""
    return part in TYPE_NAMES or (isinstance(part, str) and "[" in part)


def cut_name(name: str) -> str:
    """Return a name that a client made up, without quotes and no longer than usual."""
    return name if len(name) <= LONGEST_QUOTE else f"{name[:LONGEST_QUOTE]}..."
