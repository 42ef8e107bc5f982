"""Fallbacks of a LiteLLM `config.yaml`: three lists there, one here, circles too; and mistakes that stop the start."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.errors import ConfigurationError
from tests.litellm_files import load_litellm, load_models, write_model


def test_a_circle_of_fallbacks_keeps_its_meaning(tmp_path: Path) -> None:
    settings = "litellm_settings: {fallbacks: [{a: [b]}, {b: [a, c]}, {d: [a, d]}]}"
    catalog = load_models(tmp_path, *(write_model(name) for name in "abcd"), settings=settings)
    fallbacks = {name: catalog.get_group(name).fallbacks for name in "abcd"}
    assert fallbacks == {
        "a": ("b without fallbacks", "c without fallbacks"),
        "b": ("a without fallbacks", "c without fallbacks"),
        "c": (),
        "d": ("a without fallbacks", "b without fallbacks", "c without fallbacks"),
    }
    assert [d.name for d in catalog.get_group("b without fallbacks").deployments] == ["b"]


def test_many_that_all_fall_back_on_each_other_are_read_at_once(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(25)]
    settings = f"router_settings: {{fallbacks: [{{'*': [{', '.join(names)}]}}]}}"
    catalog = load_models(tmp_path, *(write_model(name) for name in names), settings=settings)
    assert len(catalog.get_group("m0").fallbacks) == 24


def test_fallbacks_for_everybody_hold_where_a_model_has_none_of_its_own(tmp_path: Path) -> None:
    settings = "router_settings: {fallbacks: [{a: [b]}], default_fallbacks: [c]}"
    catalog = load_models(tmp_path, *(write_model(name) for name in "abc"), settings=settings)
    assert [catalog.get_group(name).fallbacks for name in "abc"] == [("b",), ("c",), ()]


def test_long_prompts_follow_their_own_list_where_there_is_one(tmp_path: Path) -> None:
    settings = "litellm_settings: {fallbacks: [{a: [c]}], context_window_fallbacks: [{b: [c]}]}"
    catalog = load_models(tmp_path, *(write_model(name) for name in "abc"), settings=settings)
    assert catalog.get_group("a").fall_back_on == ("blocked",)
    assert catalog.get_group("b").fall_back_on == ("too_long", "blocked")


def test_a_fallback_may_name_what_is_called(tmp_path: Path) -> None:
    settings = "router_settings: {fallbacks: [{a: [groq/llama]}, {b: [{model: a, temperature: 0}]}]}"
    catalog = load_models(tmp_path, write_model("a"), write_model("b", "groq/llama"), settings=settings)
    assert [d.name for d in catalog.get_group("groq/llama").deployments] == ["b"]
    assert catalog.get_group("b").fallbacks == ("a",)


def test_fallbacks_of_a_model_that_is_not_listed_are_told(tmp_path: Path) -> None:
    with capture_logs() as logs:
        load_models(tmp_path, write_model("a"), settings="litellm_settings: {context_window_fallbacks: [{b: [gone]}]}")
    assert [log["key"] for log in logs] == ["context_window_fallbacks.b"]


MISTAKES = {
    "no models": ("model_list: []", "`model_list` cannot be used"),
    "only a wildcard": (
        "model_list: [{model_name: '*', litellm_params: {model: '*'}}]",
        "`model_list` has no model that can be used",
    ),
    "no params": ("model_list: [{model_name: a}]", r"`model_list\.0\.litellm_params` cannot be used"),
    "a limit of nothing": (
        f"model_list: [{write_model('a', rpm=0)}]",
        r"`model_list\.0\.litellm_params\.rpm` cannot be",
    ),
    "an unknown fallback": (
        f"model_list: [{write_model('a')}]\nrouter_settings: {{fallbacks: [{{a: [gone]}}]}}",
        "`fallbacks` names 'gone', which is no model: use one of a",
    ),
    "an unknown alias": (
        f"model_list: [{write_model('a')}]\nrouter_settings: {{model_group_alias: {{b: gone}}}}",
        r"`router_settings\.model_group_alias\.b` names 'gone'",
    ),
    "an unknown credential": (
        f"model_list: [{write_model('a', litellm_credential_name='one')}]",
        r"`model_list\.0\.litellm_params\.litellm_credential_name` names 'one'",
    ),
    "a monthly cap": (
        f"model_list: [{write_model('a')}]\nlitellm_settings: {{max_budget: 100, budget_duration: 30d}}",
        r"`litellm_settings\.max_budget` is not by the day",
    ),
    "a cap for one deployment": (f"model_list: [{write_model('a', max_budget=9)}]", r"max_budget` caps one deployment"),
    "caps for providers": (
        f"model_list: [{write_model('a')}]\nrouter_settings: {{provider_budget_config: {{openai: {{}}}}}}",
        r"`router_settings\.provider_budget_config` caps each provider",
    ),
    "further files": (f"include: [other.yaml]\nmodel_list: [{write_model('a')}]", "`include` names further files"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_or_a_change_of_meaning_is_one_sentence(tmp_path: Path, name: str) -> None:
    text, expected = MISTAKES[name]
    with pytest.raises(ConfigurationError, match=expected) as caught:
        load_litellm(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "config.yaml"))
    assert "\n" not in str(caught.value)
