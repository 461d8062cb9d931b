"""What ``schema=`` takes: a JSON Schema as a dict, or a type that pydantic can describe and check."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_origin

from .errors import ConfigError

__all__ = ["Schema", "SchemaChoice", "read_schema", "schema_name"]

SchemaChoice = Any
"""A JSON Schema as a dict, or whatever pydantic's ``TypeAdapter`` takes: a model, a dataclass, a ``TypedDict``, ``list[int]``, ``int | None``."""

SHOWN_FAULTS = 3


class Schema(NamedTuple):
    """What an answer has to look like.

    Attributes
    ----------
    json : mapping
        The JSON Schema that the service is sent.
    read : callable
        Makes the value of an answer's text; raises ``ValueError`` where it does not fit.
    """

    json: Mapping[str, Any]
    read: Callable[[str], Any]


def read_schema(schema: SchemaChoice) -> Schema:
    """Read what a user gave as ``schema=``.

    Raises
    ------
    ConfigError
        If it is neither a dict nor a type with a JSON Schema, or pydantic is not installed.

    Examples
    --------
    >>> read_schema({"type": "array"}).read("[1, 2]")
    [1, 2]
    >>> read_schema(list[int]).json
    {'items': {'type': 'integer'}, 'type': 'array'}
    """
    if isinstance(schema, Mapping):
        return Schema(schema, json.loads)
    if isinstance(schema, type) and get_origin(schema) is None:
        return class_schema(schema)
    # Not remembered: int | str and str | int are equal, and the words for them are not.
    return typed_schema(schema)


@lru_cache(maxsize=128)
def class_schema(schema: type) -> Schema:
    return typed_schema(schema)


def typed_schema(schema: SchemaChoice) -> Schema:
    if isinstance(schema, str | bytes | int | float):
        raise not_a_schema(schema, "")
    try:
        import pydantic
    except ImportError as exc:
        raise ConfigError("schema= with a type needs the extra: pip install 'model-comparison-toolkit[schema]'") from exc
    try:
        adapter = pydantic.TypeAdapter(schema)
        described = adapter.json_schema()
    except (pydantic.PydanticUserError, pydantic.PydanticUndefinedAnnotation, AttributeError, TypeError) as exc:
        raise not_a_schema(schema, f" ({str(exc).partition(chr(10))[0]})") from exc

    def read(text: str) -> Any:  # of the user's type
        try:
            return adapter.validate_json(text)
        except pydantic.ValidationError as exc:
            raise ValueError(
                faults(exc.errors(include_url=False, include_context=False, include_input=False))
            ) from None  # it quotes the answer
        except Exception as exc:  # a validator of the user's
            raise ValueError(f"{type(exc).__name__}: {exc}") from exc

    return Schema(described, read)


def faults(errors: list[Any]) -> str:  # pydantic's error details
    """Say where an answer does not fit, without the answer."""
    told = [": ".join(filter(None, (".".join(map(str, error["loc"])), error["msg"]))) for error in errors[:SHOWN_FAULTS]]
    more = len(errors) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def not_a_schema(schema: SchemaChoice, why: str) -> ConfigError:
    return ConfigError(f"schema= takes a JSON Schema as a dict, or a type that pydantic can describe, not {schema_name(schema)}{why}")


def schema_name(schema: SchemaChoice) -> str:
    """How a table calls a schema.

    Examples
    --------
    >>> schema_name(int), schema_name(list[int])
    ('int', 'list[int]')
    """
    return schema.__name__ if isinstance(schema, type) and get_origin(schema) is None else repr(schema)
