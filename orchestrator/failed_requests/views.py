"""Failed requests as JSON, over HTTP and on the command line alike; pure."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from orchestrator.failed_requests.records import Details, Page, Record
from orchestrator.failed_requests.stats import StateCount, as_queue_stats


def build_record_view(record: Record) -> dict[str, Any]:
    """One of the list."""
    return _as_json(asdict(record))


def build_page_view(page: Page) -> dict[str, Any]:
    """A page of the list, and where the next begins."""
    return {
        "failed_requests": [build_record_view(record) for record in page.records],
        "next": page.next and str(page.next),
    }


def build_details_view(record: Record, details: Details) -> dict[str, Any]:
    """All of one."""
    return build_record_view(record) | {
        "error_message": details.error_message,
        "params": details.params,
        "response": details.response,
        "tried": [_as_json(asdict(each)) for each in details.tried],
    }


def build_stats_view(counts: Sequence[StateCount]) -> dict[str, Any]:
    """How many are in which state, and how long those that wait have done so."""
    stats = as_queue_stats(counts)
    oldest: dict[str, float] = {}
    for count in counts:
        oldest[count.state] = max(count.oldest_seconds, oldest.get(count.state, 0.0))
    return {
        "by_state": {
            state: {"number": number, "oldest_seconds": round(oldest[state], 1)}
            for state, number in stats.by_state.items()
        },
        "parked_by_age": dict(stats.parked_by_age),
    }


def _as_json(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _as_value(value) for name, value in fields.items()}


def _as_value(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return float(value)
    return value
