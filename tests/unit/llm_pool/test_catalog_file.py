"""A catalogue is read whole, and every mistake in it is one sentence that names the place and the way out."""

from decimal import Decimal
from pathlib import Path

import pytest

from llm_pool.catalog import LeftOut, Limits, Price
from llm_pool.catalogs.catalog_file import DEFAULT_CATALOG, load_catalog
from llm_pool.policies import BudgetPolicy, CachePolicy, CooldownPolicy, Policies, QuotaPolicy
from shared.errors import ConfigurationError, NotFoundError

GOOD = """
deployments:
  - {name: one, provider: mock, model: m, api_key: "${KEY}"}
  - {name: two, provider: mock, model: "m-${SIZE:-small}", timeout_seconds: "${SECONDS:-7}"}
groups:
  fast: {deployments: [one, two], retries: 1, timeout_seconds: 9, strategy: priority}
  quality: {deployments: [one], fallbacks: [fast]}
"""


def load(tmp_path: Path, text: str, **variables: str):
    path = tmp_path / "llmyard.yaml"
    path.write_text(text)
    return load_catalog(path, variables.get)


def test_every_field_arrives(tmp_path: Path) -> None:
    catalog = load(tmp_path, GOOD, KEY="secret", SIZE="large")
    one, two = catalog.get_group("fast").deployments
    assert (one.api_key, two.model, two.timeout_seconds) == ("secret", "m-large", 7.0)
    fast = catalog.get_group("fast")
    assert (fast.retries, fast.timeout_seconds, fast.strategy) == (1, 9.0, "priority")
    assert catalog.get_group("quality").fallbacks == ("fast",)
    assert catalog.get_group("quality").retries == 2
    assert "secret" not in repr(catalog)


def test_a_deployment_without_its_variable_is_left_out_and_its_group_stays(tmp_path: Path) -> None:
    catalog = load(tmp_path, GOOD)
    assert catalog.left_out == (LeftOut("one", "KEY"),)
    assert catalog.get_group("quality").deployments == ()
    assert [deployment.name for deployment in catalog.deployments] == ["two"]
    assert catalog.get_group("fast").deployments[0].model == "m-small"


def test_an_unknown_group_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="fast, quality") as caught:
        load(tmp_path, GOOD).get_group("best")
    assert caught.value.field == "model"


RICH = """
deployments:
  - name: one
    provider: mock
    model: m
    supports: [chat, stream]
    limits: {requests_per_minute: 60, tokens_per_minute: "${TPM:-100000}", requests_per_day: 9, in_flight: 4}
    price: {prompt_usd_per_million: 0.15, completion_usd_per_million: "0.6", cached_prompt_usd_per_million: 0.075}
    weight: 2.5
    default_max_tokens: 512
  - {name: two, provider: mock, model: m, price: free}
groups:
  fast: {deployments: [one, two], strategy: "${STRATEGY:-weighted}", longest_wait_seconds: 3, fall_back_on: [too_long]}
cache: {store: disk, ttl_seconds: 60, max_entries: 5, directory: "${PLACE:-/var/cache/answers}", max_temperature: 0}
budget:
  daily_usd: 100
  tenant_daily_usd: "2.50"
  tenants: {acme: 0.1}
  keys: {ci: 3}
  alert_at: 0.5
  webhook_url: https://example.org/alerts
cooldown: {failures: 5, first_seconds: 1, longest_seconds: 60, ramp_seconds: 0}
quota: {warn_at: 0.9}
"""


def test_every_field_of_a_deployment_arrives(tmp_path: Path) -> None:
    one, two = load(tmp_path, RICH).get_group("fast").deployments
    assert one.supports == ("chat", "stream")
    assert one.limits == Limits(60, 100_000, 9, None, 4)
    assert one.price == Price(Decimal("0.15"), Decimal("0.6"), Decimal("0.075"))
    assert (one.weight, one.default_max_tokens) == (2.5, 512)
    assert (two.price, two.limits, two.supports) == (Price(Decimal(0), Decimal(0)), Limits(), None)


def test_every_field_of_a_group_arrives(tmp_path: Path) -> None:
    group = load(tmp_path, RICH).get_group("fast")
    assert (group.strategy, group.longest_wait_seconds, group.fall_back_on) == ("weighted", 3.0, ("too_long",))


def test_every_policy_arrives(tmp_path: Path) -> None:
    assert load(tmp_path, RICH).policies == Policies(
        CachePolicy("disk", 60.0, 5, Path("/var/cache/answers"), 0.0),
        BudgetPolicy(
            Decimal(100),
            Decimal("2.50"),
            {"acme": Decimal("0.1")},
            {"ci": Decimal(3)},
            0.5,
            "https://example.org/alerts",
        ),
        CooldownPolicy(5, 1.0, 60.0, 0.0),
        QuotaPolicy(0.9),
    )


def test_a_file_that_says_nothing_of_them_has_the_usual_policies(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).policies == Policies()


MISTAKES = {
    "not YAML": ("groups: [", "line 1.*mend its syntax"),
    "a tab": ("groups:\n\t- a", "is not YAML"),
    "a list": ("- a", "`the whole file` cannot be used .it is no mapping.: the keys here are deployments, groups"),
    "empty": ("", "`the whole file` cannot be used"),
    "no deployments": ("deployments: []\ngroups: {fast: {deployments: []}}", "`deployments` cannot be used"),
    "no groups": ("deployments: [{name: a, provider: mock, model: m}]", "`groups` cannot be used"),
    "missing model": (GOOD.replace("model: m,", ""), r"`deployments.0.model` cannot be used \(Field required\)"),
    "empty model": (GOOD.replace("model: m,", "model: '',"), "`deployments.0.model` cannot be used"),
    "a key misspelt": (GOOD.replace("retries: 1", "retires: 1"), "`groups.fast.retires`.*keys here are.*retries"),
    "negative retries": (GOOD.replace("retries: 1", "retries: -1"), "`groups.fast.retries`"),
    "no time": (GOOD.replace("timeout_seconds: 9", "timeout_seconds: 0"), "`groups.fast.timeout_seconds`"),
    "unknown strategy": (
        GOOD.replace("priority", "dearest"),
        "`groups.fast.strategy`.*least_latency.*: give it another value",
    ),
    "unknown provider": (
        GOOD.replace("provider: mock, model: m,", "provider: olama, model: m,"),
        "`deployments.0.provider` is 'olama', which is unknown: use one of anthropic, .*ollama, openai",
    ),
    "unknown deployment": (GOOD.replace("[one, two]", "[one, tow]"), "`groups.fast.deployments` names 'tow'.*one, two"),
    "unknown fallback": (GOOD.replace("[fast]", "[fsat]"), "`groups.quality.fallbacks` names 'fsat'.*fast, quality"),
    "fallback circle": (
        GOOD.replace("retries: 1", "fallbacks: [quality]"),
        "circle .*fast → quality → fast.*remove one",
    ),
    "fallback on itself": (GOOD.replace("retries: 1", "fallbacks: [fast]"), "circle .*fast → fast"),
    "deployment twice": (GOOD.replace("name: two", "name: one"), "`deployments.1.name` is 'one' again"),
    "group twice": (GOOD.replace("quality:", "fast:"), "the key 'fast' stands twice"),
    "a limit misspelt": (
        GOOD.replace("model: m,", "model: m, limits: {rpm: 3},"),
        "`deployments.0.limits.rpm`.*keys here are requests_per_minute",
    ),
    "a limit of nothing": (GOOD.replace("model: m,", "model: m, limits: {in_flight: 0},"), "`deployments.0.limits.in_"),
    "an odd price": (GOOD.replace("model: m,", "model: m, price: cheap,"), "`deployments.0.price`.*write 'free', or"),
    "half a price": (
        GOOD.replace("model: m,", "model: m, price: {prompt_usd_per_million: 1},"),
        "`deployments.0.price.completion_usd_per_million` cannot be used",
    ),
    "a negative price": (
        GOOD.replace("model: m,", "model: m, price: {prompt_usd_per_million: -1, completion_usd_per_million: 1},"),
        "`deployments.0.price.prompt_usd_per_million`",
    ),
    "no capability": (GOOD.replace("model: m,", "model: m, supports: [sing],"), "`deployments.0.supports.0`.*'chat'"),
    "falls back on anything": (GOOD.replace("retries: 1", "fall_back_on: [all]"), "`groups.fast.fall_back_on.0`"),
    "an unknown section": (GOOD + "caching: {}", "`caching`.*keys here are.*cache, budget"),
    "an unknown store": (GOOD + "cache: {store: floppy}", "`cache.store`"),
    "a cap misspelt": (GOOD + "budget: {dayly_usd: 3}", "`budget.dayly_usd`.*keys here are daily_usd"),
    "a negative cap": (GOOD + "budget: {tenants: {acme: -1}}", "`budget.tenants.acme`"),
    "an alert never": (GOOD + "budget: {alert_at: 1.5}", "`budget.alert_at`"),
    "a webhook nowhere": (GOOD + "budget: {webhook_url: example.org}", "`budget.webhook_url`"),
    "a variable that cannot be left out": (
        GOOD + "budget: {webhook_url: '${HOOK}'}",
        r"`budget` names \$\{HOOK\}, which is not set: set it, or write \$\{HOOK:-DEFAULT\}",
    ),
    "a variable in a group": (GOOD.replace("retries: 1", "retries: '${R}'"), r"`groups\.fast` names \$\{R\}"),
    "no time to cool": (GOOD + "cooldown: {first_seconds: 9, longest_seconds: 8}", "`cooldown.longest_seconds` is 8"),
    "nothing to reach": (
        GOOD.replace("model: m,", "model: m, only_if_reachable: true,"),
        "`deployments.0.only_if_reachable`.*set `deployments.0.base_url`",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path: Path, name: str) -> None:
    text, expected = MISTAKES[name]
    with pytest.raises(ConfigurationError, match=expected) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "llmyard.yaml"))
    assert "\n" not in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No such file.*LLMYARD_CONFIG"):
        load_catalog(tmp_path / "gone.yaml", lambda _: None)


def test_a_mistake_shows_even_without_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"`deployments\.0\.provider`"):
        load(tmp_path, GOOD.replace("provider: mock, model: m,", "provider: olama, model: m,"))


def test_the_shipped_catalogue_needs_no_key_to_name_its_groups() -> None:
    catalog = load_catalog(DEFAULT_CATALOG, lambda _: None)
    assert catalog.group_names == ("fast", "quality", "embedding")
    assert {entry.missing_variable for entry in catalog.left_out} == {
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "OLLAMA_API_KEY",
        "OLLAMA_HOST",
    }


def test_the_shipped_groups() -> None:
    catalog = load_catalog(DEFAULT_CATALOG, lambda name: f"http://{name.lower()}")
    fast, quality, embedding = (catalog.get_group(name) for name in ("fast", "quality", "embedding"))
    assert [deployment.provider for deployment in quality.deployments] == ["anthropic", "openai"]
    assert quality.fallbacks == ("fast",)
    assert [deployment.name for deployment in fast.deployments] == ["ollama-cloud", "ollama-host", "ollama-local"]
    assert {deployment.model for deployment in fast.deployments[1:]} == {"qwen3:8b"}
    assert {group.strategy for group in (fast, quality)} == {"least_latency"}
    assert {group.retries for group in (fast, quality)} == {2}
    free = {d.name for d in catalog.deployments if d.price == Price(Decimal(0), Decimal(0))}
    assert free == {d.name for d in catalog.deployments if d.provider == "ollama"}
    assert {(d.model, d.supports) for d in embedding.deployments} == {("nomic-embed-text", ("embed",))}
    assert embedding.fallbacks == (), "vectors of different models do not mix"
