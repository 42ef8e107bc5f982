"""The catalogue as a value: the way from a group through its fallbacks."""

import pytest

from llm_pool.catalog import Catalog, ModelGroup
from shared.errors import ConfigurationError, NotFoundError

GROUPS = {
    "best": ModelGroup("best", (), fallbacks=("good", "cheap")),
    "good": ModelGroup("good", (), fallbacks=("local",)),
    "cheap": ModelGroup("cheap", (), fallbacks=("local",)),
    "local": ModelGroup("local", ()),
}


def test_a_group_is_followed_by_its_fallbacks_each_with_its_own_and_each_once() -> None:
    assert [group.name for group in Catalog(GROUPS).walk("best")] == ["best", "good", "local", "cheap"]


def test_the_way_from_an_unknown_group_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="best, good, cheap, local"):
        Catalog(GROUPS).walk("worst")


def test_a_circle_of_fallbacks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="best → good → local → best"):
        Catalog(GROUPS | {"local": ModelGroup("local", (), fallbacks=("best",))})
