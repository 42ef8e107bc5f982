"""What can be called: deployments, and the groups of them that users name. Plain values; `catalog_file` reads them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from shared.errors import ConfigurationError, NotFoundError

Strategy = Literal["least_latency", "priority"]


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
    """False for models that refuse the field with HTTP 400; the request's temperature is then not sent."""


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
    """Bound of one request over all attempts, waits and fallbacks."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A configured deployment that cannot be used here and now."""

    deployment: str
    missing_variable: str | None = None
    """The environment variable it needs; None when it was not reachable."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All groups, and what had to be left out of them."""

    groups: Mapping[str, ModelGroup]
    left_out: tuple[LeftOut, ...] = ()

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

    def without(self, names: Collection[str]) -> "Catalog":
        """The same groups, lacking the named deployments."""
        groups = {
            group.name: replace(group, deployments=tuple(d for d in group.deployments if d.name not in names))
            for group in self.groups.values()
        }
        return Catalog(groups, (*self.left_out, *(LeftOut(name) for name in names)))

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
