"""A yard of whole pools, once with stores in memory and once on a real Redis."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.whole_pool import Yard, open_yard


@pytest.fixture(params=["memory", "redis"])
async def yard(request: pytest.FixtureRequest) -> AsyncIterator[Yard]:
    redis_url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with open_yard(redis_url) as opened:
        yield opened
