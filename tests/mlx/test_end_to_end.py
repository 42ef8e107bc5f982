"""The main job on a real model server: a message in through Celery, its answer out of a real model."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.acceptance.yard import Yard

pytestmark = pytest.mark.mlx


def test_messages_are_answered_by_a_real_model_server(tmp_path: Path, database_url: str, mlx_server_url: str) -> None:
    served = SimpleNamespace(url=mlx_server_url)
    # A random model may say nothing at all, which is no answer and asked again.
    with Yard(tmp_path, database_url, served, model_name="default_model", retries=3) as yard:
        yard.start_worker()
        answers = [reply.get(timeout=60) for reply in yard.send([f"What is {n} times {n}?" for n in range(10)])]
        assert {(answer["state"], answer["deployment"]) for answer in answers} == {("succeeded", "counted")}
        assert all(answer["usage"]["completion_tokens"] > 0 for answer in answers)
        assert yard.count("select count(*) from results") == 10
        assert yard.count("select count(*) from attempts where error_type is null and completion_tokens > 0") == 10
