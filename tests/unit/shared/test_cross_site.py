"""Pages of other sites are refused; programs and our own pages are not."""

import pytest

from shared.cross_site import is_cross_site

HOST = (b"host", b"127.0.0.1:8000")


@pytest.mark.parametrize(
    "origin", [b"https://evil.example", b"http://127.0.0.1:3000", b"null", b"http://localhost:8000"]
)
def test_another_origin_is_refused(origin: bytes) -> None:
    assert is_cross_site([HOST, (b"origin", origin)])


@pytest.mark.parametrize("headers", [[HOST], [HOST, (b"origin", b"http://127.0.0.1:8000")]])
def test_programs_and_our_own_pages_may_ask(headers: list[tuple[bytes, bytes]]) -> None:
    assert not is_cross_site(headers)
