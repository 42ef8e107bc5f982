"""A LiteLLM `config.yaml` is read as it is; what cannot be taken along is told, and what would lie stops the start."""

from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from llm_pool.catalog import Catalog, Limits, Price
from tests.litellm_files import load_litellm, load_models, write_model

TYPICAL = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://eu.openai.azure.com/
      api_key: "os.environ/AZURE_EU_KEY"
      api_version: "2024-02-01"
      rpm: 6
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      rpm: 18
      tpm: 100000
      max_parallel_requests: 4
      timeout: 300
      stream_timeout: 60
      temperature: 0.2
      max_tokens: 500
    model_info: {id: gpt-4o-direct, base_model: gpt-4o}
  - model_name: claude
    litellm_params: {model: claude-sonnet-4-20250514}
  - model_name: local
    litellm_params: {model: ollama_chat/llama3, api_base: "http://ollama:11434", num_ctx: 8192, max_tokens: 64}
    model_info: {input_cost_per_token: 0.0000003, output_cost_per_token: 6.0e-07, max_input_tokens: 8192}
  - model_name: vllm-models
    litellm_params: {model: openai/facebook/opt-125m, api_base: "http://0.0.0.0:4000/v1", api_key: none}
  - model_name: vectors
    litellm_params: {model: together_ai/bge-large, api_key: k}
    model_info: {mode: embedding}
  - model_name: pictures
    litellm_params: {model: openai/dall-e-3}
    model_info: {mode: image_generation}
  - model_name: "*"
    litellm_params: {model: "openai/*"}

litellm_settings:
  drop_params: true
  success_callback: ["langfuse"]
  num_retries: 5
  request_timeout: 120
  context_window_fallbacks: [{"gpt-4o": ["claude"]}]
  cache: true
  cache_params: {type: redis, host: localhost, ttl: 600}

router_settings:
  routing_strategy: simple-shuffle
  num_retries: 1
  redis_host: os.environ/REDIS_HOST
  model_group_alias: {"gpt-4": "gpt-4o"}
  fallbacks: [{"gpt-4o": ["local"]}, {"claude": ["gpt-4o-direct"]}]
  allowed_fails: 3
  cooldown_time: 30
  enable_pre_call_checks: true

general_settings: {master_key: sk-1234, database_url: null}
"""
KEYS = {"AZURE_EU_KEY": "az", "OPENAI_API_KEY": "oa", "ANTHROPIC_API_KEY": "an"}


def by_name(catalog: Catalog) -> dict[str, object]:
    return {deployment.name: deployment for deployment in catalog.deployments}


def test_model_names_become_groups_of_deployments(tmp_path: Path) -> None:
    catalog = load_litellm(tmp_path, TYPICAL, **KEYS)
    assert catalog.group_names == ("gpt-4o", "claude", "local", "vllm-models", "vectors", "gpt-4", "gpt-4o-direct")
    members = {group.name: [d.name for d in group.deployments] for group in catalog.groups.values()}
    assert members["gpt-4o"] == ["gpt-4o", "gpt-4o-direct"]
    assert members["gpt-4"] == members["gpt-4o"]
    assert members["gpt-4o-direct"] == ["gpt-4o-direct"]


def test_each_provider_is_spoken_to_in_its_own_dialect(tmp_path: Path) -> None:
    found = by_name(load_litellm(tmp_path, TYPICAL, **KEYS))
    assert {name: (d.provider, d.model, d.base_url, d.api_key) for name, d in found.items()} == {
        "gpt-4o": ("litellm", "azure/gpt-4o-eu", "https://eu.openai.azure.com/", "az"),
        "gpt-4o-direct": ("openai", "gpt-4o", None, "oa"),
        "claude": ("anthropic", "claude-sonnet-4-20250514", None, "an"),
        "local": ("ollama", "llama3", "http://ollama:11434", None),
        "vllm-models": ("openai_compatible", "facebook/opt-125m", "http://0.0.0.0:4000/v1", "none"),
        "vectors": ("together", "bge-large", None, "k"),
    }


def test_what_every_request_is_to_say_goes_with_it(tmp_path: Path) -> None:
    found = by_name(load_litellm(tmp_path, TYPICAL, **KEYS))
    assert found["gpt-4o"].options == {"api_version": "2024-02-01"}
    assert found["gpt-4o-direct"].options == {"temperature": 0.2, "max_completion_tokens": 500}
    assert found["gpt-4o-direct"].default_max_tokens == 500
    assert found["local"].options == {"num_ctx": 8192, "num_predict": 64, "embedding_model": "llama3"}


def test_limits_prices_weights_and_times_arrive(tmp_path: Path) -> None:
    found = by_name(load_litellm(tmp_path, TYPICAL, **KEYS))
    direct = found["gpt-4o-direct"]
    assert direct.limits == Limits(requests_per_minute=18, tokens_per_minute=100_000, in_flight=4)
    assert (direct.weight, found["gpt-4o"].weight, found["claude"].weight) == (18.0, 6.0, 1.0)
    assert (direct.timeout_seconds, found["claude"].timeout_seconds) == (300.0, 120.0)
    assert found["local"].price == Price(Decimal("0.3"), Decimal("0.6"))
    assert (direct.price, found["vectors"].supports) == (None, ("embed",))


def test_the_settings_of_the_router_win_and_arrive(tmp_path: Path) -> None:
    catalog = load_litellm(tmp_path, TYPICAL, **KEYS)
    group = catalog.get_group("gpt-4o")
    assert (group.strategy, group.retries, group.timeout_seconds) == ("weighted", 1, 600.0)
    assert (catalog.policies.cooldown.failures, catalog.policies.cooldown.first_seconds) == (4, 30.0)
    cache = catalog.policies.cache
    assert (cache.store, cache.ttl_seconds, cache.max_temperature) == ("redis", 600.0, 2.0)


def test_fallbacks_of_each_kind_arrive(tmp_path: Path) -> None:
    catalog = load_litellm(tmp_path, TYPICAL, **KEYS)
    gpt, claude = catalog.get_group("gpt-4o"), catalog.get_group("claude")
    assert (gpt.fallbacks, gpt.fall_back_on) == (("local", "claude"), ("too_long", "blocked"))
    assert claude.fallbacks == ("gpt-4o-direct",)


def test_what_cannot_be_taken_along_is_told_key_by_key(tmp_path: Path) -> None:
    with capture_logs() as logs:
        load_litellm(tmp_path, TYPICAL, **KEYS)
    told = {log["key"]: log["reason"] for log in logs if log["event"] == "litellm_key_ignored"}
    assert told.keys() == {
        "model_list.1.litellm_params.stream_timeout",
        "model_list.1.model_info.base_model",
        "model_list.3.model_info.max_input_tokens",
        "model_list.6.model_info.mode",
        "model_list.7.model_name",
        "litellm_settings.drop_params",
        "litellm_settings.success_callback",
        "litellm_settings.cache_params.host",
        "router_settings.redis_host",
        "router_settings.enable_pre_call_checks",
        "general_settings",
    }
    assert told["router_settings.redis_host"] == "REDIS_HOST is not set"
    assert "sk-1234" not in str(logs)


def test_a_deployment_without_its_key_is_left_out_and_its_group_stays(tmp_path: Path) -> None:
    catalog = load_litellm(tmp_path, TYPICAL, OPENAI_API_KEY="oa")
    assert [(entry.deployment, entry.missing_variable) for entry in catalog.left_out] == [
        ("gpt-4o", "AZURE_EU_KEY"),
        ("claude", "ANTHROPIC_API_KEY"),
    ]
    assert catalog.get_group("claude").deployments == ()


def test_nothing_is_cached_unless_they_cached(tmp_path: Path) -> None:
    assert load_models(tmp_path, write_model("a")).policies.cache.store == "none"


def test_limits_may_stand_beside_the_params_as_in_older_files(tmp_path: Path) -> None:
    (deployment,) = load_models(tmp_path, write_model("a")[:-1] + ", rpm: 3, tpm: 20000}").deployments
    assert deployment.limits == Limits(requests_per_minute=3, tokens_per_minute=20_000)


def test_an_order_decides_before_any_strategy(tmp_path: Path) -> None:
    catalog = load_models(tmp_path, write_model("a", order=2), write_model("a", order=1))
    group = catalog.get_group("a")
    assert ([d.name for d in group.deployments], group.strategy) == (["a-2", "a"], "priority")


def test_credentials_and_variables_of_the_file_are_used(tmp_path: Path) -> None:
    catalog = load_litellm(
        tmp_path,
        """
        environment_variables: {GROQ_API_KEY: from-the-file}
        credential_list: [{credential_name: one, credential_values: {api_key: from-the-list}}]
        model_list:
          - {model_name: a, litellm_params: {model: groq/x}}
          - {model_name: b, litellm_params: {model: groq/x, litellm_credential_name: one}}
        """,
        NOTHING="",
    )
    assert [deployment.api_key for deployment in catalog.deployments] == ["from-the-file", "from-the-list"]


def test_a_mocked_answer_is_the_mocks(tmp_path: Path) -> None:
    (deployment,) = load_models(tmp_path, write_model("a", mock_response="Yes.")).deployments
    assert (deployment.provider, deployment.options) == ("mock", {"answers": ["Yes."]})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("least-busy", "least_busy"),
        ("latency-based-routing", "least_latency"),
        ("cost-based-routing", "cheapest"),
        ("usage-based-routing-v2", "least_busy"),
        ("something-new", "weighted"),
    ],
)
def test_each_strategy_has_one_of_ours(tmp_path: Path, theirs: str, ours: str) -> None:
    catalog = load_models(tmp_path, write_model("a"), settings=f"router_settings: {{routing_strategy: {theirs}}}")
    assert catalog.get_group("a").strategy == ours


def test_a_daily_cap_arrives(tmp_path: Path) -> None:
    settings = "litellm_settings: {max_budget: 12.5, budget_duration: 1d}"
    assert load_models(tmp_path, write_model("a"), settings=settings).policies.budget.daily_usd == Decimal("12.5")
