"""A catalogue is read whole, and every mistake in it is one sentence that names the place and the way out."""

from pathlib import Path

import pytest

from llm_pool.catalog import LeftOut
from llm_pool.catalog_file import DEFAULT_CATALOG, load_catalog
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


MISTAKES = {
    "not YAML": ("groups: [", "line 1.*mend its syntax"),
    "a tab": ("groups:\n\t- a", "is not YAML"),
    "a list": ("- a", "`the whole file` cannot be used"),
    "empty": ("", "`the whole file` cannot be used"),
    "no deployments": ("deployments: []\ngroups: {fast: {deployments: []}}", "`deployments` cannot be used"),
    "no groups": ("deployments: [{name: a, provider: mock, model: m}]", "`groups` cannot be used"),
    "missing model": (GOOD.replace("model: m,", ""), r"`deployments.0.model` cannot be used \(Field required\)"),
    "empty model": (GOOD.replace("model: m,", "model: '',"), "`deployments.0.model` cannot be used"),
    "a key misspelt": (GOOD.replace("retries: 1", "retires: 1"), "`groups.fast.retires`.*keys here are.*retries"),
    "negative retries": (GOOD.replace("retries: 1", "retries: -1"), "`groups.fast.retries`"),
    "no time": (GOOD.replace("timeout_seconds: 9", "timeout_seconds: 0"), "`groups.fast.timeout_seconds`"),
    "unknown strategy": (GOOD.replace("priority", "cheapest"), "`groups.fast.strategy`.*least_latency"),
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
    assert catalog.group_names == ("fast", "quality")
    assert {entry.missing_variable for entry in catalog.left_out} == {
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "OLLAMA_API_KEY",
        "OLLAMA_HOST",
    }


def test_the_shipped_groups() -> None:
    catalog = load_catalog(DEFAULT_CATALOG, lambda name: f"http://{name.lower()}")
    fast, quality = catalog.get_group("fast"), catalog.get_group("quality")
    assert [deployment.provider for deployment in quality.deployments] == ["anthropic", "openai"]
    assert quality.fallbacks == ("fast",)
    assert [deployment.name for deployment in fast.deployments] == ["ollama-cloud", "ollama-host", "ollama-local"]
    assert {deployment.model for deployment in fast.deployments[1:]} == {"qwen3:8b"}
    assert {group.strategy for group in (fast, quality)} == {"least_latency"}
    assert {group.retries for group in (fast, quality)} == {2}
