"""Prompts from files: what they become, which is found, and every mistake as one sentence that names the place."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from llm_pool.prompts.registry import PromptRegistry
from llm_pool.types import ChatMessage, JsonFormat
from shared.errors import ConfigurationError, InputError, NotFoundError

GREETING = """
templates:
  - name: greeting
    version: "1.0"
    description: Greets somebody.
    system: You greet {{ who }} in {{ language }}.
    user: |
      Greet {{ who }}{% if times > 1 %} {{ times }} times{% endif %}.
    variables:
      - who
      - {name: language, description: What to greet in., default: English}
      - {name: times, default: 1}
    examples:
      - user: "Greet {{ nobody }}."
        assistant: "Hello, {{ nobody }}."
      - variables: {who: Ben, times: 2}
        assistant: Hello, Ben. Hello, Ben.
    metadata: {category: manners}
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Puts a file into a directory of prompts, which it gives."""

    def put(content: str, name: str = "prompts.yaml") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        return tmp_path

    return put


def load(directory: Path, *, reload: bool = False) -> PromptRegistry:
    registry = PromptRegistry(reload=reload)
    registry.load_directory(directory)
    return registry


def version(number: str, name: str = "p") -> str:
    return f'templates: [{{name: {name}, version: "{number}", user: "version {number}"}}]'


def test_a_prompt_becomes_messages_with_its_examples_as_earlier_turns(write: Write) -> None:
    messages = load(write(GREETING)).get("greeting").render({"who": "Anna", "times": 3})
    assert messages == (
        ChatMessage("system", "You greet Anna in English."),
        ChatMessage("user", "Greet {{ nobody }}."),
        ChatMessage("assistant", "Hello, {{ nobody }}."),
        ChatMessage("user", "Greet Ben 2 times."),
        ChatMessage("assistant", "Hello, Ben. Hello, Ben."),
        ChatMessage("user", "Greet Anna 3 times."),
    )


def test_what_a_file_says_of_a_prompt_can_be_read(write: Write) -> None:
    template = load(write(GREETING)).get("greeting")
    assert (template.description, template.metadata) == ("Greets somebody.", {"category": "manners"})
    assert [(each.name, each.is_required, each.default) for each in template.variables] == [
        ("who", True, None),
        ("language", False, "English"),
        ("times", False, 1),
    ]


def test_a_prompt_without_a_system_text_is_one_message(write: Write) -> None:
    assert load(write(version("1"))).get("p").render({}) == (ChatMessage("user", "version 1"),)


def test_variables_that_are_not_listed_are_those_that_are_used(write: Write) -> None:
    template = load(write('templates: [{name: p, version: "1", user: "{{ b }} {{ a.part }}"}]')).get("p")
    assert [each.name for each in template.variables] == ["a", "b"]


def test_all_missing_variables_are_named(write: Write) -> None:
    template = load(write('templates: [{name: p, version: "1", user: "{{ a }} {{ b }} {{ c }}"}]')).get("p")
    with pytest.raises(InputError, match=r"the prompt p 1 needs it; give a value for a, c$") as caught:
        template.render({"b": "x"})
    assert caught.value.field == "variables.a"


def test_an_unknown_variable_is_named_with_the_known_ones(write: Write) -> None:
    with pytest.raises(InputError, match="no such variable; leave out whom: it takes who, language, times") as caught:
        load(write(GREETING)).get("greeting").render({"who": "Anna", "whom": "Ben"})
    assert caught.value.field == "variables.whom"


@pytest.mark.parametrize("user", ["{{ person.name }}", "{{ person['name'] }}", "{% if person.name %}x{% endif %}"])
def test_a_missing_part_of_a_variable_is_no_empty_text(write: Write, user: str) -> None:
    template = load(write(f'templates: [{{name: p, version: "1", user: "{user}"}}]')).get("p")
    with pytest.raises(InputError, match=r"has no attribute 'name'") as caught:
        template.render({"person": {"age": 7}})
    assert caught.value.field == "variables"


@pytest.mark.parametrize("user", ["{% for x in a %}{{ x }}{% endfor %}", "{% if a < 'x' %}y{% endif %}"])
def test_a_variable_of_the_wrong_kind_is_the_callers_mistake(write: Write, user: str) -> None:
    template = load(write(f'templates: [{{name: p, version: "1", user: "{user}"}}]')).get("p")
    with pytest.raises(InputError, match="the prompt p 1 cannot be rendered"):
        template.render({"a": 7})


def test_nothing_may_be_a_default(write: Write) -> None:
    content = """templates: [{name: p, version: "1", user: "{{ a is none }}", variables: [{name: a, default: null}]}]"""
    assert load(write(content)).get("p").render({})[0].content == "True"


def test_what_callers_put_in_is_never_read_as_a_template(write: Write) -> None:
    assert load(write(GREETING)).get("greeting").render({"who": "{{ language }}"})[-1].content == (
        "Greet {{ language }}."
    )


def test_text_is_put_in_as_it_is(write: Write) -> None:
    template = load(write('templates: [{name: p, version: "1", user: "{{ a }} {{ a | tojson }}"}]')).get("p")
    assert template.render({"a": "<ü & 'q'>"})[0].content == "<ü & 'q'> \"<ü & 'q'>\""


def test_loops_conditions_and_filters_are_there(write: Write) -> None:
    user = "{% for a in items %}{{ loop.index }}:{{ a.name | upper }}{% if not loop.last %}, {% endif %}{% endfor %}"
    template = load(write(f'templates: [{{name: p, version: "1", user: "{user}"}}]')).get("p")
    assert template.render({"items": [{"name": "a"}, {"name": "b"}]})[0].content == "1:A, 2:B"


def test_the_latest_version_is_the_highest_and_not_the_last_in_the_alphabet(write: Write) -> None:
    for number in ("1.9", "1.10", "1.2"):
        directory = write(version(number), f"{number}.yaml")
    registry = load(directory)
    assert registry.get("p").render({})[0].content == "version 1.10"
    assert registry.get("p", "1.9").render({})[0].content == "version 1.9"
    assert registry.get("p", "1.9.0").render({})[0].content == "version 1.9"
    assert [str(template.version) for template in registry.templates()] == ["1.2", "1.9", "1.10"]


def test_a_version_that_is_not_final_is_given_only_when_asked_for(write: Write) -> None:
    write(version("1.0"), "a.yaml")
    registry = load(write(version("2.0rc1"), "b.yaml"))
    assert registry.get("p").render({})[0].content == "version 1.0"
    assert registry.get("p", "2.0rc1").render({})[0].content == "version 2.0rc1"


def test_a_prompt_that_is_nowhere_is_refused_with_those_that_are(write: Write) -> None:
    registry = load(write(GREETING))
    with pytest.raises(NotFoundError, match="no prompt 'farewell'; use one of: greeting"):
        registry.get("farewell")
    with pytest.raises(NotFoundError, match=r"no version '2' of 'greeting'; use one of: 1\.0"):
        registry.get("greeting", "2")
    with pytest.raises(InputError, match="'latest' is no version"):
        registry.get("greeting", "latest")


def test_directories_below_are_read_too_and_other_files_are_not(write: Write) -> None:
    write(version("1", "deep"), "a/b/deep.yml")
    write("no prompt", "notes.txt")
    assert [template.name for template in load(write(GREETING)).templates()] == ["deep", "greeting"]


@pytest.mark.parametrize(("one", "another"), [("1.0", "1.0"), ("1.0", "1")])
def test_a_version_that_is_there_twice_is_refused(write: Write, one: str, another: str) -> None:
    write(version(one), "a.yaml")
    directory = write(version(another), "b.yaml")
    with pytest.raises(ConfigurationError, match=r"b\.yaml: the prompt 'p' .* is in .*a\.yaml already"):
        load(directory)


def test_what_was_loaded_stays_when_more_cannot_be(write: Write, tmp_path: Path) -> None:
    registry = load(write(GREETING, "good/a.yaml") / "good")
    write(GREETING, "bad/b.yaml")
    with pytest.raises(ConfigurationError):
        registry.load_directory(tmp_path / "bad")
    assert [template.name for template in registry.templates()] == ["greeting"]


def test_a_directory_without_prompts_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigurationError, match="no YAML file"):
            load(directory)


def test_a_prompt_can_be_added_by_code(write: Write) -> None:
    registry, other = load(write(GREETING)), PromptRegistry()
    other.add(registry.get("greeting"))
    assert other.get("greeting") is registry.get("greeting")
    with pytest.raises(ConfigurationError, match="code: the prompt 'greeting'"):
        registry.add(registry.get("greeting"))


def change(directory: Path, content: str, name: str = "prompts.yaml") -> None:
    """As an editor does, and at another time whatever the file system's clock makes of it."""
    file = directory / name
    file.write_text(content)
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 1_000_000))


def test_who_writes_prompts_sees_changes_at_once(write: Write) -> None:
    directory = write(version("1"))
    registry = load(directory, reload=True)
    before = registry.get("p")
    assert registry.get("p") is before
    with capture_logs() as logs:
        change(directory, version("2"))
        change(directory, version("1", "q"), "new.yaml")
        assert [registry.get(name).render({})[0].content for name in "pq"] == ["version 2", "version 1"]
    assert [log["event"] for log in logs] == ["prompts_reloaded"]
    (directory / "new.yaml").unlink()
    with pytest.raises(NotFoundError):
        registry.get("q")


def test_a_mistake_made_meanwhile_is_told_until_it_is_mended(write: Write) -> None:
    directory = write(version("1"))
    registry = load(directory, reload=True)
    change(directory, version("no version"))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"prompts\.yaml: `templates\.0\.version`"):
            registry.get("p")
    change(directory, version("1"))
    assert registry.get("p").render({})[0].content == "version 1"


def test_in_production_files_are_read_once(write: Write) -> None:
    directory = write(version("1"))
    registry = load(directory)
    change(directory, version("2"))
    assert registry.get("p").render({})[0].content == "version 1"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("templates: [", r"the file is not YAML \(line 1, column 13\)"),
        ("[]", "`the whole file` cannot be used"),
        ("prompts: []", "`templates` cannot be used"),
        ("templates: [{name: p, user: x}]", r"`templates\.0\.version` cannot be used \(Field required\)"),
        ("templates: [{name: p, version: '1'}]", r"`templates\.0\.user` cannot be used \(Field required\)"),
        (
            "templates: [{name: p, version: '1', user: x, sytem: y}]",
            r"`templates\.0\.sytem` .* each has the keys name,",
        ),
        ("templates: [{name: p, version: '1', user: 7}]", r"`templates\.0\.user`"),
        ("templates: [{name: 'a b', version: '1', user: x}]", r"`templates\.0\.name`"),
        ("templates: [{name: p, name: q, version: '1', user: x}]", "the key 'name' stands twice"),
        ("templates: [{name: p, version: 1.10, user: x}]", r"`templates\.0\.version` is the number 1\.1, .* in quotes"),
        ("templates: [{name: p, version: first, user: x}]", r"`templates\.0\.version` is 'first', which is no version"),
        ("templates: [{name: p, version: '1', user: '{{ a'}]", r"`templates\.0\.user` is no prompt \(line 1: "),
        ("templates: [{name: p, version: '1', user: x, system: '{% if %}'}]", r"`templates\.0\.system` is no prompt"),
        ("templates: [{name: p, version: '1', user: '{{ a | nofilter }}'}]", r"No filter named 'nofilter'"),
        ("templates: [{name: p, version: '1', user: '{{ a }}', variables: []}]", r"`templates\.0\.variables` lacks a,"),
        ("templates: [{name: p, version: '1', user: x, variables: [a]}]", r"`templates\.0\.variables` names a, which"),
        ("templates: [{name: p, version: '1', user: '{{ a }}', variables: [a, a]}]", "names a twice"),
        (
            "templates: [{name: p, version: '1', user: x, examples: [{assistant: y}]}]",
            r"`templates\.0\.examples\.0` needs either `user` or `variables`",
        ),
        (
            "templates: [{name: p, version: '1', user: '{{ a }}', examples: [{variables: {b: 1}, assistant: y}]}]",
            r"`templates\.0\.examples\.0\.variables\.a`: the prompt p 1 needs it",
        ),
    ],
)
def test_every_mistake_names_the_file_and_the_place(write: Write, content: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"prompts\.yaml: .*{sentence}"):
        load(write(content))


def test_a_schema_in_the_metadata_is_what_answers_are_to_look_like(write: Write) -> None:
    schema = {"type": "object"}
    write('templates: [{name: p, version: "1", user: x, metadata: {json_schema: {type: object}}}]', "a.yaml")
    write('templates: [{name: p.q, version: "1", user: x, metadata: {json_schema: {type: object}}}]', "b.yaml")
    registry = load(write(GREETING))
    assert registry.get("p").json_format == JsonFormat(schema, "p")
    assert registry.get("p.q").json_format == JsonFormat(schema)
    assert registry.get("greeting").json_format is None


def test_who_uses_no_prompts_does_not_load_jinja() -> None:
    program = "import sys, llm_pool.pool; print([name for name in ('jinja2', 'packaging') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "jinja2" not in done.stdout
