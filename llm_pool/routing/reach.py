"""Which deployments could answer a request, group by group: worked out once for each kind of request. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.types import Capability
from shared.errors import LLMUnsupportedError


@dataclass(frozen=True, slots=True)
class Reach:
    """The deployments of one group that can do what is asked; each stands with the first group that has it."""

    group: ModelGroup
    deployments: tuple[Deployment, ...]


def choose_reach(
    catalog: Catalog, capabilities: Mapping[str, frozenset[Capability]], model: str, needs: frozenset[Capability]
) -> tuple[Reach, ...]:
    """The group itself, then its fallbacks, in the order in which they are asked.

    Raises:
        NotFoundError: there is no such group.
        LLMUnsupportedError: nobody in reach can do that.
    """
    everybody = catalog.walk(model)
    able = tuple(_keep_able(everybody, capabilities, needs))
    if not able and any(group.deployments for group in everybody):
        raise LLMUnsupportedError(_word_refusal(catalog, capabilities, model, needs))
    return able


def _keep_able(
    groups: tuple[ModelGroup, ...], capabilities: Mapping[str, frozenset[Capability]], needs: frozenset[Capability]
) -> Iterator[Reach]:
    seen: set[str] = set()
    for group in groups:
        able = {d.name: d for d in group.deployments if d.name not in seen and _can(d, capabilities, needs)}
        seen.update(able)
        if able:
            yield Reach(group, tuple(able.values()))


def _can(
    deployment: Deployment, capabilities: Mapping[str, frozenset[Capability]], needs: frozenset[Capability]
) -> bool:
    return needs <= capabilities[deployment.name] and all(map(deployment.may, needs))


def _word_refusal(
    catalog: Catalog, capabilities: Mapping[str, frozenset[Capability]], model: str, needs: frozenset[Capability]
) -> str:
    able = [name for name in catalog.groups if any(_keep_able(catalog.walk(name), capabilities, needs))]
    remedy = f"ask one of these groups: {', '.join(able)}" if able else "no group has one that can"
    return f"no deployment that group '{model}' reaches can do {' and '.join(sorted(needs))}; {remedy}"
