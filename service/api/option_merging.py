"""Options that a request brings in two places: in its query and in its body.

A generated client, or Swagger UI, sends every default that /docs.json states along with what its user has set. So a
default in one place gives way to another value in the other place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from service.api.options import Options
from service.errors import InvalidOption


def merge_options(
    body: Mapping[str, object], query: Mapping[str, object], options_type: type[Options]
) -> dict[str, object]:
    """Return the options of both places. Raises InvalidOption where they say two things of one option."""
    merged, conflicts = {**query, **body}, []
    if not (body and query):
        return merged
    for name in sorted((body.keys() & query.keys()) & options_type.model_fields.keys()):
        field = options_type.model_fields[name]
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
        try:
            from_body, from_query = adapter.validate_python(body[name]), adapter.validate_python(query[name])
        except ValidationError:
            continue  # whoever reads the options says what is wrong with it
        if from_body == field.default:
            merged[name] = query[name]
        elif from_query not in (from_body, field.default):
            conflicts.append(name)
    if conflicts:
        raise InvalidOption(
            f"The query and the body differ in {', '.join(conflicts)}.", "Give each option in one place only."
        )
    return merged
