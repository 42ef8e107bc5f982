"""The common suite on a real mlx_lm.server."""

import pytest

from llm_pool.catalog import Deployment
from tests.contracts.real_server_suite import RealServerSuite

pytestmark = pytest.mark.mlx


class TestMlxServer(RealServerSuite):
    """Ignores `response_format`, and its tiny model has no words for tools."""

    @pytest.fixture
    def deployment(self, mlx_server_url: str) -> Deployment:
        return Deployment("tiny", "mlx_server", "default_model", mlx_server_url)
