"""Groups out of LiteLLM's model names, aliases and lists of fallbacks. Pure.

LiteLLM has three lists: for failures, for prompts too long, for content blocked. A group of ours has one, and says
for which of the latter two it holds. In LiteLLM circles are common, `a` for `b` and `b` for `a`: each group of one is
then given all that it reaches, in its order, as groups without fallbacks of their own.
"""

from collections.abc import Mapping, Sequence

from llm_pool.catalog import Strategy
from llm_pool.catalogs.litellm_deployments import Imported
from llm_pool.catalogs.litellm_shapes import FallbackList, Ignored, Settings
from shared.errors import ConfigurationError

_STRATEGIES: Mapping[str, Strategy] = {
    "simple-shuffle": "weighted",
    "least-busy": "least_busy",
    "latency-based-routing": "least_latency",
    "cost-based-routing": "cheapest",
    "usage-based-routing": "least_busy",
    "usage-based-routing-v2": "least_busy",
}
_ANY = "*"
ALONE = "{} without fallbacks"
"""Name of the group that stands for one of a circle."""

Groups = dict[str, dict[str, object]]


def build_groups(imported: Sequence[Imported], settings: Settings) -> tuple[Groups, list[Ignored]]:
    """
    Raises:
        ConfigurationError: a fallback or an alias names nobody.
    """
    members = _collect(imported, settings)
    wanted = {name: _list_fallbacks(name, settings) for name in members}
    for target in {target for targets in wanted.values() for target in targets} - members.keys():
        members[target] = _find_by_model(target, imported)
        wanted[target] = []
    strategy = _STRATEGIES.get(settings.routing_strategy)
    asked_after_others = {target for targets in wanted.values() for target in targets}
    groups = {
        name: _build_group(
            entries,
            settings,
            strategy or "weighted",
            ["too_long", "blocked"]
            if name in asked_after_others
            else _choose_fall_back_on(name, wanted[name], settings),
        )
        for name, entries in members.items()
    }
    _link(groups, wanted)
    ignored = _list_unknown(settings, members)
    if strategy is None:
        reason = f"'{settings.routing_strategy}' is unknown: deployments are shuffled"
        ignored.append(Ignored("router_settings.routing_strategy", reason))
    return groups, ignored


def _list_unknown(settings: Settings, members: Mapping[str, object]) -> list[Ignored]:
    lists = {
        "fallbacks": settings.fallbacks,
        "context_window_fallbacks": settings.context_window_fallbacks or (),
        "content_policy_fallbacks": settings.content_policy_fallbacks or (),
    }
    return [
        Ignored(f"{key}.{name}", "no model of that name can be asked")
        for key, fallbacks in lists.items()
        for entry in fallbacks
        for name in entry
        if name not in members and name != _ANY
    ]


def _collect(imported: Sequence[Imported], settings: Settings) -> dict[str, list[Imported]]:
    members: dict[str, list[Imported]] = {}
    for entry in imported:
        members.setdefault(entry.group, []).append(entry)
    for alias, target in settings.model_group_alias.items():
        name = str(target.get("model")) if isinstance(target, dict) else target
        if name not in members:
            raise ConfigurationError(
                f"`router_settings.model_group_alias.{alias}` names '{name}', which is no model: "
                f"use one of {', '.join(members)}."
            )
        members.setdefault(alias, members[name])
    return members


def _build_group(
    entries: list[Imported], settings: Settings, strategy: Strategy, fall_back_on: list[str]
) -> dict[str, object]:
    """Where `order` is given it decides: the lowest first."""
    ordered = sorted(entries, key=lambda entry: entry.order)
    is_ordered = len({entry.order for entry in entries}) > 1
    longest = max(entry.timeout_seconds for entry in entries)
    return {
        "deployments": [entry.entry["name"] for entry in ordered],
        "strategy": "priority" if is_ordered else strategy,
        "retries": settings.num_retries,
        "timeout_seconds": max(300.0, longest * (settings.num_retries + 1)),
        "fall_back_on": fall_back_on,
    }


def _list_fallbacks(name: str, settings: Settings) -> list[str]:
    """Who is asked after `name`: for any failure first, then who is named for long or blocked prompts only."""
    general = _find(settings.fallbacks, name) or _find(settings.fallbacks, _ANY) or list(settings.default_fallbacks)
    special = [
        target
        for fallbacks in (settings.context_window_fallbacks, settings.content_policy_fallbacks)
        for target in _find(fallbacks or (), name)
    ]
    return [target for target in dict.fromkeys((*general, *special)) if target != name]


def _find(fallbacks: FallbackList, name: str) -> list[str]:
    return [
        str(target.get("model")) if isinstance(target, dict) else target
        for entry in fallbacks
        for target in entry.get(name, ())
    ]


def _choose_fall_back_on(name: str, targets: list[str], settings: Settings) -> list[str]:
    """Without a list of their own, long and blocked prompts go the way of all failures."""
    lists = {"too_long": settings.context_window_fallbacks, "blocked": settings.content_policy_fallbacks}
    return [
        kind for kind, fallbacks in lists.items() if (bool(targets) if fallbacks is None else _find(fallbacks, name))
    ]


def _find_by_model(target: str, imported: Sequence[Imported]) -> list[Imported]:
    """A fallback may name a deployment, by its `id` or by what is called."""
    found = [entry for entry in imported if target in (entry.entry["name"], entry.model)]
    if not found:
        known = ", ".join(dict.fromkeys(entry.group for entry in imported))
        raise ConfigurationError(f"`fallbacks` names '{target}', which is no model: use one of {known}.")
    return found


def _link(groups: Groups, wanted: Mapping[str, list[str]]) -> None:
    reached = {name: _list_reached(name, wanted) for name in wanted}
    circular = {name for name, targets in reached.items() if any(name in wanted[target] for target in targets)}
    for name, targets in wanted.items():
        if not circular & {name, *reached[name]}:
            groups[name]["fallbacks"] = targets
            continue
        for target in reached[name]:
            groups.setdefault(ALONE.format(target), {**groups[target], "fallbacks": []})
        groups[name]["fallbacks"] = [ALONE.format(target) for target in reached[name]]


def _list_reached(name: str, wanted: Mapping[str, list[str]]) -> list[str]:
    """Everybody who is asked after `name`, each behind who named them."""
    seen: dict[str, None] = {}
    waiting = list(reversed(wanted[name]))
    while waiting:
        target = waiting.pop()
        if target != name and target not in seen:
            seen[target] = None
            waiting += reversed(wanted[target])
    return list(seen)
