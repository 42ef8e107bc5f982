"""What can be said of LiteLLM without it; `tests/litellm` asks the real one."""

import importlib.util

import pytest

from llm_pool.catalog import Deployment
from llm_pool.providers.http import Connections
from llm_pool.providers.registry import PROVIDERS
from shared.errors import ConfigurationError


@pytest.mark.skipif(importlib.util.find_spec("litellm") is not None, reason="LiteLLM is installed here")
def test_where_it_is_not_installed_the_start_says_how_to() -> None:
    with pytest.raises(ConfigurationError, match=r"'other' needs LiteLLM.*pip install 'llmyard\[litellm\]'"):
        PROVIDERS["litellm"](Deployment("other", "litellm", "cohere/command-a"), Connections())
