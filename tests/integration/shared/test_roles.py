"""Who may migrate, who may work, and whom the start refuses."""

import asyncio
from collections.abc import Iterator

import pytest

from shared import migrations
from shared.database import APP_ROLE, SYSTEM_ROLE, Database, create_engine
from shared.errors import ConfigurationError
from tests.databases import administrate, change_url, make_database


@pytest.fixture
def url(server_without_roles: str) -> Iterator[str]:
    """The superuser's, to a migrated database."""
    with make_database(server_without_roles, "template template0") as url:
        migrations.upgrade(url)
        yield url


def verify(url: str) -> None:
    async def open_and_verify() -> None:
        database = Database(create_engine(url), create_engine(url))
        try:
            await database.verify_roles()
        finally:
            await database.aclose()

    asyncio.run(open_and_verify())


def refuse(url: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        verify(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_superusers_login_works_under_roles_that_are_bound(url: str) -> None:
    verify(url)


@pytest.mark.parametrize("role", [APP_ROLE, SYSTEM_ROLE])
@pytest.mark.parametrize(("attribute", "fault"), [("superuser", "is_superuser, "), ("bypassrls", "bypasses)")])
def test_a_role_that_is_not_bound_is_refused(url: str, role: str, attribute: str, fault: str) -> None:
    administrate(url, f"alter role {role} {attribute}")
    sentence = refuse(url)
    assert sentence.startswith(f"Role {role} is not bound by row-level security ({fault}")
    assert f"alter role {role} nosuperuser nobypassrls" in sentence


@pytest.mark.parametrize("role", [APP_ROLE, SYSTEM_ROLE])
@pytest.mark.parametrize(
    "how",
    ["alter table jobs owner to {role}", "create role owner; alter table jobs owner to owner; grant owner to {role}"],
)
def test_a_role_that_owns_a_table_is_refused(url: str, role: str, how: str) -> None:
    administrate(url, how.format(role=role))
    assert (refuse(url)).startswith(f"Role {role} is not bound by row-level security (owns)")


def test_a_login_that_was_not_granted_the_roles_is_refused(url: str) -> None:
    administrate(url, "create role guest login")
    sentence = refuse(change_url(url, user="guest"))
    assert "permission denied to set role" in sentence
    assert "grant the role to this login" in sentence


def test_a_login_of_its_own_for_each_role(url: str) -> None:
    administrate(url, f"create role guest login in role {APP_ROLE}, {SYSTEM_ROLE}")
    verify(change_url(url, user="guest"))


def test_a_server_that_was_never_migrated_is_refused(server_without_roles: str) -> None:
    assert f'role "{APP_ROLE}" does not exist' in refuse(server_without_roles)


def test_a_database_without_tables_is_refused(url: str) -> None:
    migrations.downgrade(url, "base")
    sentence = refuse(url)
    assert 'relation "jobs" does not exist' in sentence
    assert "llmyard migrate" in sentence


def test_an_ordinary_owner_migrates_and_works(server_without_roles: str) -> None:
    administrate(server_without_roles, "create role owner login createrole")
    with make_database(server_without_roles, "template template0 owner owner") as url:
        owners = change_url(url, user="owner")
        migrations.upgrade(owners)
        verify(owners)


def test_an_owner_who_may_not_make_roles_migrates_where_they_are_granted(url: str) -> None:
    administrate(url, f"create role other_owner login in role {APP_ROLE}, {SYSTEM_ROLE}")
    with make_database(url, "template template0 owner other_owner") as other:
        owners = change_url(other, user="other_owner")
        migrations.upgrade(owners)
        verify(owners)
