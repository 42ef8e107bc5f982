"""The file of tenants and agents: read as a whole, or refused with the place in it."""

from pathlib import Path

import pytest

from orchestrator.cli.agents import read_tenants
from shared.errors import InputError

EXAMPLE = Path(__file__).parents[3] / "examples" / "agents.yaml"
AGENT = "{id: a, name: A, role: r}"


def test_the_example_is_read_as_a_whole() -> None:
    bakery, museum = read_tenants(EXAMPLE)
    assert [agent.id for agent in bakery.agents] == ["mina", "arthur"]
    assert [(agent.id, agent.is_active) for agent in museum.agents] == [("guide", True), ("night-guard", False)]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("tenants: [", "cannot be read"),
        ("[]", "file: "),
        ("{}", "tenants: is missing"),
        ("{others: []}", "others"),
        ("tenants: [{id: t, name: T, agents: []}]", "tenants.0.default_agent_id"),
        (f"tenants: [{{id: t, name: T, default_agent_id: b, agents: [{AGENT}]}}]", "tenant 't' has no agent 'b'"),
        ("tenants: [{id: t, name: T, default_agent_id: a, agents: [{id: a, name: A}]}]", "tenants.0.agents.0.role"),
        ("tenants: [{id: '', name: T, default_agent_id: a, agents: []}]", "tenants.0.id"),
        ("tenants: [{id: t, name: T, default_agent_id: a, agents: [], mood: good}]", "tenants.0.mood"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "agents.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_tenants(path)
    assert place in str(caught.value)
    assert str(path) in str(caught.value) or "default_agent_id" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        read_tenants(tmp_path / "nowhere.yaml")
