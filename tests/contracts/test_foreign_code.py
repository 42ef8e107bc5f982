"""Which pools say that asking a group may run foreign code here: the real ones, and the one that stands in for them."""

import pytest

from llm_pool.call import CompletionPool
from llm_pool.catalog import ModelGroup
from llm_pool.pool import Pool
from llm_pool.remote.remote import RemotePool
from tests.fakes.scripted_pool import ScriptedPool
from tests.fakes.scripted_provider import Script, build_catalog, build_registry, deploy

QUALITY = ModelGroup("quality", (deploy("a"),), fallbacks=("fast",))
FAST = ModelGroup("fast", (deploy("b"),))


async def find_foreign(pool: CompletionPool) -> set[str]:
    """Of groups that exist and one that does not."""
    found = {model for model in ("quality", "fast", "best") if pool.runs_foreign_code(model)}
    await pool.aclose()
    return found


@pytest.mark.parametrize(("foreign", "groups"), [("a", {"quality"}), ("b", {"quality", "fast"}), (None, set())])
async def test_it_is_told_of_everybody_in_reach(foreign: str | None, groups: set[str]) -> None:
    scripts = {name: Script(runs_foreign_code=name == foreign) for name in ("a", "b")}
    scripted = ScriptedPool()
    scripted.foreign_models = frozenset(groups)
    for pool in (Pool(build_catalog(QUALITY, FAST), registry=build_registry(scripts)), scripted):
        assert await find_foreign(pool) == groups


async def test_what_runs_in_a_service_does_not_run_here() -> None:
    assert await find_foreign(RemotePool("http://127.0.0.1:9")) == set()
