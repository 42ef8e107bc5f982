"""A yard for batches on the test's own ledger."""

from pathlib import Path

import pytest

from shared.database import Database
from tests.integration.orchestrator.batches.bulk_yard import BulkYard


@pytest.fixture
def yard(database: Database, tmp_path: Path) -> BulkYard:
    return BulkYard(database, tmp_path)
