"""In which order the deployments of a group are asked. Pure."""

from collections.abc import Callable, Mapping, Sequence

from llm_pool.catalog import Deployment, Strategy


def order_by_least_latency(deployments: Sequence[Deployment], latencies: Mapping[str, float]) -> list[Deployment]:
    """The unknown come first, so that each gets measured; those and equals keep the order of the configuration."""
    return sorted(deployments, key=lambda deployment: latencies.get(deployment.name, 0.0))


def order_by_priority(deployments: Sequence[Deployment], latencies: Mapping[str, float]) -> list[Deployment]:  # noqa: ARG001 - the strategies' one signature
    """As configured, whatever was measured."""
    return list(deployments)


STRATEGIES: Mapping[Strategy, Callable[[Sequence[Deployment], Mapping[str, float]], list[Deployment]]] = {
    "least_latency": order_by_least_latency,
    "priority": order_by_priority,
}
