"""What can be called: deployments, and the groups of them that users name. Plain values; `catalog_file` reads them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal

from llm_pool.policies import Policies
from llm_pool.types import Capability
from shared.errors import ConfigurationError, NotFoundError

Strategy = Literal["least_latency", "priority", "round_robin", "least_busy", "cheapest", "weighted"]
FallBackOn = Literal["too_long", "blocked"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What we allow ourselves at one deployment, over all workers together; None is no limit of ours."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and answer together."""
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    in_flight: int | None = None
    """Calls that wait for their answer at once."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens, where it is not to be looked up by the model's name."""

    prompt_usd_per_million: Decimal
    completion_usd_per_million: Decimal
    cached_prompt_usd_per_million: Decimal | None = None
    """Of prompt tokens read from the provider's cache; None is the price of any other."""
    cache_write_usd_per_million: Decimal | None = None
    """Of prompt tokens written to it; likewise."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model at one account of one provider, with its own quota."""

    name: str
    provider: str
    """A key of `providers.registry.PROVIDERS`."""
    model: str
    """The provider's own name of the model."""
    base_url: str | None = None
    """None is the provider's public address, where it has one."""
    api_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 60.0
    """Bound of one attempt."""
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    """What only this provider understands; its file says what."""
    only_if_reachable: bool = False
    """Left out at the start when nothing listens at `base_url`, for servers that are there on some machines only."""
    takes_temperature: bool = True
    """False for models that refuse the field with HTTP 400; a request's temperature and top_p are then not sent."""
    supports: tuple[Capability, ...] | None = None
    """What this model can do; None is all that its provider can."""
    limits: Limits = NO_LIMITS
    price: Price | None = None
    """None is looked up by provider and model."""
    weight: float = 1.0
    """Share of the calls under strategy `weighted`."""
    default_max_tokens: int = 4096
    """Bound of an answer that is reserved for, where the request names none."""

    def may(self, capability: Capability) -> bool:
        """As far as its configuration goes; what its provider can is the provider's to say."""
        return self.supports is None or capability in self.supports


@dataclass(frozen=True, slots=True)
class ModelGroup:
    """The name a user asks for, and who may answer to it."""

    name: str
    deployments: tuple[Deployment, ...]
    """Those that can be used; in the order of the configuration."""
    fallbacks: tuple[str, ...] = ()
    """Groups asked when all deployments here have failed, in this order."""
    strategy: Strategy = "least_latency"
    retries: int = 2
    """Further attempts at the same deployment after its first."""
    timeout_seconds: float = 300.0
    """Bound of one request over all attempts, waits and fallbacks; of a stream, until its first token."""
    longest_wait_seconds: float = 30.0
    """How long a request waits for a permit here before the fallbacks are asked; without fallbacks, until its bound."""
    fall_back_on: tuple[FallBackOn, ...] = ()
    """What another deployment is asked after all: a prompt that was too long, content that was blocked."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A configured deployment that cannot be used here and now."""

    deployment: str
    missing_variable: str | None = None
    """The environment variable it needs."""
    same_as: str | None = None
    """Another deployment, of the same model at the same server."""

    @property
    def reason(self) -> str:
        """For people."""
        if self.missing_variable is not None:
            return f"{self.missing_variable} is not set"
        return "nothing listens there" if self.same_as is None else f"it is {self.same_as} again"


@dataclass(frozen=True, slots=True)
class Catalog:
    """All groups, and what had to be left out of them."""

    groups: Mapping[str, ModelGroup]
    left_out: tuple[LeftOut, ...] = ()
    policies: Policies = field(default_factory=Policies)

    def __post_init__(self) -> None:
        for name in self.groups:
            self._check_fallbacks(name, path=(name,))

    @property
    def group_names(self) -> tuple[str, ...]:
        return tuple(self.groups)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Each usable deployment once."""
        found = {deployment.name: deployment for group in self.groups.values() for deployment in group.deployments}
        return tuple(found.values())

    def get_group(self, name: str) -> ModelGroup:
        """
        Raises:
            NotFoundError: there is no group of that name.
        """
        try:
            return self.groups[name]
        except KeyError:
            known = ", ".join(self.groups)
            raise NotFoundError("model", f"there is no model group '{name}'", f"use one of: {known}") from None

    def walk(self, name: str) -> tuple[ModelGroup, ...]:
        """The group and then its fallbacks with theirs, each once, in the order in which they are asked.

        Raises:
            NotFoundError: there is no group of that name.
        """
        found: dict[str, ModelGroup] = {}
        self._visit(name, found)
        return tuple(found.values())

    def without(self, left_out: Collection[LeftOut]) -> "Catalog":
        """The same groups, lacking these deployments."""
        names = {entry.deployment for entry in left_out}
        groups = {
            group.name: replace(group, deployments=tuple(d for d in group.deployments if d.name not in names))
            for group in self.groups.values()
        }
        return replace(self, groups=groups, left_out=(*self.left_out, *left_out))

    def _visit(self, name: str, found: dict[str, ModelGroup]) -> None:
        if name not in found:
            found[name] = self.get_group(name)
            for fallback in found[name].fallbacks:
                self._visit(fallback, found)

    def _check_fallbacks(self, name: str, path: tuple[str, ...]) -> None:
        for fallback in self.groups[name].fallbacks:
            if fallback not in self.groups:
                raise ConfigurationError(
                    f"`groups.{name}.fallbacks` names '{fallback}', which is no group: "
                    f"use one of {', '.join(self.groups)}."
                )
            if fallback in path:
                circle = " → ".join((*path, fallback))
                raise ConfigurationError(
                    f"`groups.{name}.fallbacks` closes a circle ({circle}): remove one of these fallbacks."
                )
            self._check_fallbacks(fallback, (*path, fallback))
