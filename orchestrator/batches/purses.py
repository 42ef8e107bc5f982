"""The cap on what a batch may cost, as each of its messages carries it; pure."""

from decimal import Decimal
from uuid import UUID


def build_purse(batch_id: UUID, limit_usd: Decimal | None) -> dict[str, str] | None:
    """JSON of `messages.Purse`; None is no cap."""
    return None if limit_usd is None else {"name": f"batch:{batch_id}", "limit_usd": f"{limit_usd.normalize():f}"}
