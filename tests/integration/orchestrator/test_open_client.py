"""The client of a whole installation: what it keeps of what failed outlives its process."""

from pathlib import Path

import pytest

from orchestrator.wiring import open_client
from shared.errors import LLMUnavailableError
from shared.settings import Settings

CATALOG = """
deployments: [{{name: a, provider: mock, model: m, options: {{fail_while_exists: {outage}}}}}]
groups: {{quality: {{deployments: [a], retries: 0}}}}
"""


async def test_what_one_client_kept_another_has_answered(database_url: str, tmp_path: Path) -> None:
    outage, path = tmp_path / "outage", tmp_path / "llmyard.yaml"
    outage.touch()
    path.write_text(CATALOG.format(outage=outage))
    settings = Settings(database_url=database_url, llmyard_config=path)
    first = await open_client(settings)
    with pytest.raises(LLMUnavailableError) as caught:
        await first.chat("hello", tenant_id="acme")
    await first.aclose()
    outage.unlink()
    second = await open_client(settings)
    assert (await second.get_queue_stats()).by_state == {"parked": 1}
    assert (await second.process_queue()).answered == 1
    kept = await second.find_failed_request(caught.value.request_id or "")
    assert kept is not None
    assert kept.response is not None
    assert kept.response.content == "[mock answer] hello"
    await second.aclose()
