"""The pages about the pool, held against it: what each provider can do, every default, the code that is shown."""

import ast
import asyncio
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from types import CodeType

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import llm_pool
from llm_pool.asking.asking import Asking
from llm_pool.assembly import open_pool
from llm_pool.catalog import Catalog, Deployment, ModelGroup
from llm_pool.catalogs.catalog_file import load_catalog
from llm_pool.client.backends import list_backends
from llm_pool.dialects import anthropic_requests, openai_requests
from llm_pool.money.prices import Prices
from llm_pool.policies import Policies
from llm_pool.pool import Pool
from llm_pool.prompts.registry import PromptRegistry
from llm_pool.providers import quota_headers
from llm_pool.providers.anthropic import AnthropicProvider
from llm_pool.providers.base import Provider
from llm_pool.providers.claude_code import ClaudeCodeOptions, ClaudeCodeProvider
from llm_pool.providers.litellm import LiteLLMProvider
from llm_pool.providers.mlx import MlxOptions, MlxProvider
from llm_pool.providers.mock import FAULTS, MockOptions, MockProvider
from llm_pool.providers.ollama import OllamaProvider
from llm_pool.providers.presets import KEY_VARIABLES, PRESETS
from llm_pool.providers.registry import PROVIDERS
from llm_pool.providers.sync_adapter import SyncAdapterProvider
from llm_pool.remote.wire_bodies import CompleteBody, EmbedBody
from llm_pool.service import create_app
from llm_pool.status.metrics import Metrics
from shared.clock import SystemClock
from shared.settings import load_settings
from tests.fakes.uvicorn_server import serve_app
from tests.pages import ROOT, blocks, codes, names, read, rows, section

CLASSES: dict[str, type[Provider]] = {
    "anthropic": AnthropicProvider,
    "claude_code": ClaudeCodeProvider,
    "litellm": LiteLLMProvider,
    "mlx": MlxProvider,
    "mock": MockProvider,
    "ollama": OllamaProvider,
    "sync": SyncAdapterProvider,
}
COLUMNS = ("chat", "stream", "tools", "json", "embed", "count_tokens")
SELLERS = {"anthropic", "claude_code", "gemini", "groq", "litellm", "openai", "openrouter", "together"}
MOCKED = "deployments: [{name: mock, provider: mock, model: mock}]\n" + yaml.safe_dump(
    {"groups": {name: {"deployments": ["mock"]} for name in ("fast", "quality", "embedding")}}
)


def write_catalog(document: str, directory: Path) -> Catalog:
    path = directory / "llmyard.yaml"
    path.write_text(document)
    return load_catalog(path, lambda name: "a key" if name.endswith("_KEY") else None)


def test_who_can_do_what_is_what_the_providers_declare() -> None:
    told = {codes(row[0])[0]: row[1:] for row in rows(section(read("providers.md"), "## Who can do what"))}
    assert told == {name: describe_provider(name, told[name][6]) for name in PROVIDERS}


def test_who_runs_foreign_code_is_what_the_providers_declare() -> None:
    (told,) = re.findall(r"((?:`\w+`(?:, | and )?)+) runs? foreign code", read("job-states.md"))
    assert set(codes(told)) == {name for name, provider in CLASSES.items() if provider.runs_foreign_code}


def describe_provider(name: str, quota: str) -> list[str]:
    """`quota` is what the page says, which may have a condition."""
    capabilities = PRESETS[name].capabilities if name in PRESETS else CLASSES[name].capabilities
    can = ["yes" if column in capabilities else "no" for column in COLUMNS]
    tells = name == "anthropic" or (name in PRESETS and PRESETS[name].quota != quota_headers.NONE)
    assert quota.startswith("yes" if tells else "no"), name
    return [*can, quota, f"`{KEY_VARIABLES[name]}`" if name in KEY_VARIABLES else "–"]


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_has_lines_that_load(name: str, tmp_path: Path) -> None:
    (example,) = blocks(section(read("providers.md"), f"### {name}"), "yaml")
    listed = yaml.safe_load(example)
    group = {"deployments": [each["name"] for each in listed]}
    catalog = write_catalog(yaml.safe_dump({"deployments": listed, "groups": {"all": group}}), tmp_path)
    assert {each.provider for each in catalog.deployments} == {name}
    for deployment in catalog.deployments:
        if name in SELLERS and Prices(SystemClock()).find(deployment) is None:
            warnings.warn(f"nobody lists a price of {deployment.model}: is it withdrawn?", stacklevel=1)


def test_every_policy_is_explained_with_its_default() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in rows(section(read("configuration.md"), "## Policies"))}
    policies = Policies()
    assert told == {
        f"{policy.name}.{field.name}": write_default(getattr(getattr(policies, policy.name), field.name))
        for policy in fields(Policies)
        for field in fields(getattr(policies, policy.name))
    }


def write_default(value: object) -> str:
    match value:
        case None | {}:
            return "none"
        case float() | Decimal():
            return f"{value:g}"
    return str(value)


def test_every_default_of_a_deployment_and_a_group_is_told() -> None:
    text = section(read("configuration.md"), "## llmyard.yaml")
    checked = 0
    for part, kind in zip(text.split("\nOf a group:\n"), (Deployment, ModelGroup), strict=True):
        defaults = {field.name: write_default(field.default).lower() for field in fields(kind)}
        for name, told in ((row[0].strip("`"), row[1]) for row in rows(part)):
            assert not told.startswith("`") or told.strip("`") == defaults[name], name
            checked += told.startswith("`")
    assert checked == 9


def test_the_options_of_each_provider_are_explained() -> None:
    text = section(read("configuration.md"), "## Options")
    told = {row[0].strip("`"): codes(row[1]) for row in rows(text)}
    assert set(MockOptions.model_fields) == set(told["mock"])
    assert set(MlxOptions.model_fields) == set(told["mlx"])
    assert set(ClaudeCodeOptions.model_fields) <= set(told["claude_code"])
    assert set(FAULTS) <= set(codes(text))


def test_every_metric_is_in_the_table_with_its_labels() -> None:
    shown = (row for row in rows(section(read("observability.md"), "## Metrics")) if row[0].startswith("`llm_"))
    told = {codes(name)[0]: set(codes(labels)) for name, labels, _ in shown}
    counted = {f"{name}_total" if kind == "counter" else name: labels for name, kind, labels in list_metrics()}
    assert told == counted


def list_metrics() -> Iterator[tuple[str, str, set[str]]]:
    """Name, kind and labels of each, as it was defined."""
    metrics = Metrics()
    for defined in vars(metrics).values():
        if isinstance(defined, MetricWrapperBase):
            yield defined._name, defined._type, set(defined._labelnames)


def test_every_call_of_a_pool_and_every_short_form_is_explained() -> None:
    calls = [name for name, _ in inspect.getmembers(Asking, inspect.isfunction) if not name.startswith("_")]
    told = [name.partition("(")[0] for name in names(section(read("pool.md"), "## A pool"))]
    assert sorted(told) == sorted(set(calls) - {"aclose"})
    forms = [name for name in llm_pool.__all__ if name.islower() and name not in ("load_config", "open_pool")]
    rows_of_forms = names(section(read("pool.md"), "## Short forms"))
    assert sorted(name.partition("(")[0] for name in rows_of_forms if "(" in name) == sorted(forms)
    assert {name for name in rows_of_forms if "(" not in name} <= set(list_backends()) | {"remote"}


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An environment in which the mock answers for every group."""
    for name in ("REDIS_URL", "LLM_POOL_URL", "LLM_BACKEND", "LLM_API_KEY", "LLM_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "llmyard.yaml"
    path.write_text(MOCKED)
    monkeypatch.setenv("LLMYARD_CONFIG", str(path))
    monkeypatch.setenv("LLMYARD_DATA_DIR", str(tmp_path))
    yield path
    asyncio.run(llm_pool.reset_client())


def compile_block(code: str) -> CodeType:
    return compile(code, "the page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_shortest_script_runs(mocked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, *_ = blocks(read("pool.md"), "python")
    exec(compile_block(script), {})
    assert capsys.readouterr().out.splitlines()[-1] == "[mock answer] Why is the sky blue?"


def test_the_code_that_is_shown_of_a_pool_runs(mocked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One block after another, as in one coroutine; those of the README come last."""
    _, *shown = blocks(read("pool.md"), "python")
    shown += [block for block in blocks((ROOT / "README.md").read_text(), "python") if "pool.stream" in block]

    async def run_all() -> None:
        place: dict[str, object] = {}
        for code in shown:
            if (running := eval(compile_block(code), place)) is not None:
                await running
        pool = place["pool"]
        assert isinstance(pool, Pool)
        await pool.aclose()

    asyncio.run(run_all())
    assert "[mock answer] Tell me a story." in capsys.readouterr().out


async def test_the_code_that_is_shown_of_the_service_runs(mocked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = blocks(read("pool-service.md"), "python")
    shown += [block for block in blocks((ROOT / "README.md").read_text(), "python") if "import OpenAI" in block]
    catalog, pool = await open_pool(load_settings())
    async with serve_app(create_app(catalog, pool)) as url:
        for code in shown:
            await asyncio.to_thread(exec, code.replace("http://127.0.0.1:8002", url), {})
    assert capsys.readouterr().out.splitlines().count("[mock answer] Hello") == 3


def test_every_path_of_the_service_is_explained(tmp_path: Path) -> None:
    catalog = write_catalog(MOCKED, tmp_path)
    app = create_app(catalog, Pool(catalog), metrics=Metrics())
    served = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    told = re.findall(r"`((?:GET|POST) /[\w/]+)", read("pool-service.md"))
    assert set(told) == served - {"GET /v1/models/{name}"}


def test_every_field_of_the_services_own_dialect_is_explained() -> None:
    own = section(read("pool-service.md"), "## llmyard's own dialect")
    fields_told = {name for name in names(own) if "/" not in name and " " not in name}
    first = {"model", "messages", "tenant_id", "inputs"}
    assert fields_told | first == CompleteBody.model_fields.keys() | EmbedBody.model_fields.keys()


def test_every_field_of_the_foreign_dialects_is_honoured_refused_or_ignored_as_told() -> None:
    for heading, requests, body in (
        ("## OpenAI's dialect", openai_requests, openai_requests.ChatBody),
        ("## Anthropic's dialect", anthropic_requests, anthropic_requests.MessagesBody),
    ):
        honoured, refused, ignored, _ = (codes(row[0]) for row in rows(section(read("pool-service.md"), heading)))
        assert set(honoured) == set(body.model_fields), heading
        assert set(refused) == set(requests.ASKS_FOR_NOTHING), heading
        assert set(ignored) == set(requests.IGNORED), heading


def test_the_config_map_that_is_shown_holds_a_catalogue(tmp_path: Path) -> None:
    config_map, containers = blocks(section(read("operating.md"), "## On Kubernetes"), "yaml")
    catalog = write_catalog(yaml.safe_load(config_map)["data"]["llmyard.yaml"], tmp_path)
    Pool(catalog)
    (container,) = yaml.safe_load(containers)["containers"]
    assert container["env"] == [{"name": "LLMYARD_CONFIG", "value": "/etc/llmyard/llmyard.yaml"}]


def test_the_catalogue_of_the_readme_makes_a_pool(tmp_path: Path) -> None:
    catalog = write_catalog("\n".join(blocks((ROOT / "README.md").read_text(), "yaml")), tmp_path)
    Pool(catalog)
    assert catalog.policies.budget.daily_usd == 100


def test_every_prompt_of_the_library_is_explained() -> None:
    prompts = PromptRegistry()
    prompts.load_library()
    told = {row[0].strip("`"): codes(row[2]) for row in rows(section(read("prompts.md"), "## The shipped library"))}
    assert told == {
        template.name: [variable.name for variable in template.variables if variable.is_required]
        for template in prompts.templates()
    }
