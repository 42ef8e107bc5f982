"""The shipped dashboard and alerts ask for what is there: metrics and labels by their names."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from llm_pool.middleware import metrics as middleware
from llm_pool.status.metrics import Metrics
from shared import errors
from tests.fakes.scripted_provider import deploy

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "llmyard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((DEPLOY / "prometheus" / "llmyard.rules.yml").read_text(encoding="utf-8"))
SCRAPE = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))


def shown_expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for group in RULES["groups"] for rule in group["rules"])
    yield from (variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable)


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Labels by the name of each series, after one of each was counted."""
    metrics = Metrics()
    metrics.watch([deploy("a")])
    metrics.count_error(deploy("a"), "LLMTimeoutError")
    metrics.count_budget_alert("day")
    metrics.show_quota("a", "requests_per_minute", 1, 1)
    metrics.count_quota_warning("a", "requests_per_minute")
    families = text_string_to_metric_families(metrics.expose().body.decode())
    found: dict[str, set[str]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expression", tuple(shown_expressions()))
def test_an_expression_asks_for_series_and_labels_that_are_there(expression: str, known: dict[str, set[str]]) -> None:
    series = set(re.findall(r"\bllm_\w+", expression))
    assert series
    assert series <= known.keys()
    labels = set(re.findall(r"(\w+)(?:=~|!=|=)\"", expression))
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {label.strip() for label in grouping.split(",")}
    assert labels <= set.union(*(known[name] for name in series))


def test_every_metric_is_on_the_dashboard(known: dict[str, set[str]]) -> None:
    shown = " ".join(shown_expressions())
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in known}
    assert [name for name in families if name.removesuffix("_total") not in shown] == []


def test_alerts_name_errors_that_exist() -> None:
    named = {name for expression in shown_expressions() for name in re.findall(r"\bLLM\w+Error\b", expression)}
    assert named
    assert [name for name in named if not hasattr(errors, name)] == []


def test_the_scrape_example_reads_the_rules_that_stand_beside_it() -> None:
    assert [(DEPLOY / "prometheus" / name).exists() for name in SCRAPE["rule_files"]] == [True]


def test_the_middlewares_need_nothing_of_prometheus() -> None:
    assert "prometheus" not in Path(middleware.__file__).read_text(encoding="utf-8")


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def test_every_metric_is_explained_with_its_labels(known: dict[str, set[str]]) -> None:
    page = (DEPLOY.parent / "docs" / "observability.md").read_text(encoding="utf-8")
    told = {
        row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in re.findall(r"^\| `(llm_\w+)` \| (.*?) ?\|", page, re.M)
    }
    shown = {
        re.sub(r"_(bucket|count|sum)$", "", name): labels - {"le"}
        for name, labels in known.items()
        if not name.endswith("_created")
    }
    assert told == shown


def test_every_alert_is_explained() -> None:
    page = (DEPLOY.parent / "docs" / "observability.md").read_text(encoding="utf-8")
    alerts = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
    assert re.findall(r"^\| `(LLM\w+)` \|", page, re.M) == alerts
