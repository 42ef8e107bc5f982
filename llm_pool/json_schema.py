"""Whether a value fits a JSON schema. The only file that loads `jsonschema`, which takes 0.1 s: load it when needed."""

from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import Draft202012Validator, validator_for
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from llm_pool.json_text import FindMismatch
from shared.errors import InputError


def build_check(shape: Mapping[str, object], field: str = "schema") -> FindMismatch:
    """
    Raises:
        InputError: it is no JSON schema.
    """
    if not isinstance(shape, Mapping):
        raise InputError(field, "it is no mapping", "write it as one, such as {'type': 'object'}")
    schema = dict(shape)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise InputError(field, f"it is no JSON schema ({error.message})", "mend it") from error
    # With a registry given, nothing that a `$ref` names is ever fetched.
    validator = kind(schema, registry=EMPTY_REGISTRY)

    def find_mismatch(value: Any) -> str | None:
        try:
            error = best_match(validator.iter_errors(value))
        except Unresolvable as unknown:
            raise InputError(field, f"it refers to {unknown.ref}, which is not in it", "write it out") from unknown
        except RecursionError:
            return "it cannot be followed to its end"
        return None if error is None else f"{error.json_path}: {error.message}"

    return find_mismatch
