"""Reads the options of a deployment that only its own provider understands."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llm_pool.catalog import Deployment
from shared.errors import ConfigurationError

OptionsT = TypeVar("OptionsT", bound=BaseModel)


def read_options(deployment: Deployment, shape: type[OptionsT]) -> OptionsT:
    """
    Raises:
        ConfigurationError: naming the first option that cannot be used, and those there are.
    """
    try:
        return shape.model_validate(dict(deployment.options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(shape.model_fields)
        raise ConfigurationError(
            f"`options.{key}` of deployment '{deployment.name}' cannot be used ({first['msg']}): "
            f"the {deployment.provider} provider knows {known}."
        ) from error
