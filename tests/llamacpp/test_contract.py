"""The common suite on a real llama_cpp.server, and what only that one does."""

import pytest

from llm_pool.asks import ask_stream, ask_whole
from llm_pool.catalog import Deployment
from llm_pool.providers.base import Provider
from shared import errors
from tests.contracts.real_server_suite import RealServerSuite, talk

pytestmark = pytest.mark.llamacpp

TOO_LONG = talk("x" * 2000)


class TestLlamaCppServer(RealServerSuite):
    """Holds answers to a shape by a grammar; counts no tokens of a stream."""

    enforces_json = True
    forces_tools = True
    counts_streams = False

    @pytest.fixture
    def deployment(self, llamacpp_url: str) -> Deployment:
        return Deployment("tiny", "llamacpp", "tiny", llamacpp_url)

    async def test_a_prompt_that_does_not_fit_is_told(self, provider: Provider, deployment: Deployment) -> None:
        with pytest.raises(errors.LLMContextTooLongError):
            await ask_whole(TOO_LONG, provider, deployment, 60)

    async def test_a_streamed_prompt_that_does_not_fit_is_an_empty_stream(
        self, provider: Provider, deployment: Deployment
    ) -> None:
        """HTTP 200, no event, a clean end: other clients take that for an answer."""
        with pytest.raises(errors.LLMBrokenAnswerError, match="empty"):
            await ask_stream(TOO_LONG, lambda _: None, provider, deployment, 60)
