"""The table of who speaks OpenAI's dialect."""

from llm_pool.providers.presets import KEY_VARIABLES, PRESETS
from llm_pool.providers.registry import PROVIDERS

PROMISED = {"openai", "vllm", "together", "groq", "openrouter", "gemini", "llamacpp", "lmstudio", "mlx_server"}


def test_every_preset_is_a_provider() -> None:
    assert PROMISED | {"openai_compatible"} == set(PRESETS)
    assert set(PRESETS) <= set(PROVIDERS)


def test_who_has_a_public_address_needs_a_key_over_tls() -> None:
    for name, preset in PRESETS.items():
        if preset.base_url is not None:
            is_public = preset.base_url.startswith("https://")
            assert preset.needs_key == is_public, name
            assert is_public or preset.base_url.startswith("http://127.0.0.1:"), name
            assert not preset.base_url.endswith("/"), name


def test_every_key_has_its_usual_variable() -> None:
    assert {name for name, preset in PRESETS.items() if preset.needs_key} <= set(KEY_VARIABLES)
    assert set(KEY_VARIABLES) <= set(PROVIDERS)
    assert KEY_VARIABLES["openai"] == "OPENAI_API_KEY"
    assert KEY_VARIABLES["anthropic"] == "ANTHROPIC_API_KEY"
    assert KEY_VARIABLES["ollama"] == "OLLAMA_API_KEY"


def test_who_lacks_json_does_not_declare_it() -> None:
    for name, preset in PRESETS.items():
        assert ("json" in preset.capabilities) == (preset.json_style != "none"), name
