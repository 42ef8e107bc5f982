"""Each provider that speaks HTTP, opened on a real server that speaks its dialect; a suite may put its own in place."""

from collections.abc import AsyncIterator

import pytest

from llm_pool.providers.base import Provider
from tests.contracts.served import opened
from tests.fakes.dialects import DIALECTS, Dialect
from tests.fakes.provider_server import ProviderServer


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.provider)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param


@pytest.fixture
async def opened_provider(dialect: Dialect) -> AsyncIterator[tuple[Provider, ProviderServer]]:
    async with opened(dialect) as provider_and_server:
        yield provider_and_server


@pytest.fixture
def provider(opened_provider: tuple[Provider, ProviderServer]) -> Provider:
    return opened_provider[0]


@pytest.fixture
def server(opened_provider: tuple[Provider, ProviderServer]) -> ProviderServer:
    return opened_provider[1]
