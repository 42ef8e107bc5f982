"""A template says what a model reads, and can do nothing else."""

import pytest

from llm_pool.prompts.text import LONGEST_CHARACTERS, PromptText, PromptTextError


class Secretive:
    """What a careless caller might put in."""

    password = "hunter2"  # what must not come out

    def __str__(self) -> str:
        return "an object"


VALUES = {"a": "text", "items": [1, 2], "thing": Secretive(), "map": {"key": "value"}}


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ a.__class__ }}",
        "{{ a['__class__'] }}",
        "{{ a|attr('__class__') }}",
        "{{ map.__init__.__globals__ }}",
        "{{ thing.password }}",
        "{{ thing['password'] }}",
        "{{ a.upper }}",
        "{{ a.format }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ '%s' % a }}",
        "{{ self.__init__ }}",
        "{{ self }}",
        "{{ self._TemplateReference__context.cycler.__init__.__globals__.os }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ joiner }}",
        "{{ namespace }}",
        "{{ config }}",
        "{{ request.application.__globals__ }}",
        "{{ get_flashed_messages.__globals__ }}",
        "{{ range(10) }}",
        "{% for x in range(1000000000) %}x{% endfor %}",
        "{% for i in items %}{{ loop.__class__ }}{% endfor %}",
        "{% for i in items %}{{ loop['__init__'] }}{% endfor %}",
        "{% for i in items %}{{ loop._iterable }}{% endfor %}",
        "{% for i in items recursive %}{{ i }}{% endfor %}",
        "{{ items.append(3) }}",
        "{{ items|map('upper')|list }}",
        "{{ items|map(attribute='__class__')|list }}",
        "{{ [thing]|join(attribute='password') }}",
        "{{ [thing, thing]|sort(attribute='password')|first }}",
        "{{ map|xmlattr }}",
        "{{ a|pprint }}",
        "{{ a|center(1000000000) }}",
        "{{ a|indent(1000000000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% from 'os' import path %}",
        "{% extends 'base' %}",
        "{% block b %}{% endblock %}",
        "{% macro m() %}{% endmacro %}",
        "{% set x = a %}",
        "{% call a() %}{% endcall %}",
        "{% filter upper %}x{% endfilter %}",
    ],
)
def test_no_way_out_and_no_way_to_stop_the_program(source: str) -> None:
    with pytest.raises(PromptTextError):
        PromptText(source).render(VALUES)


def test_an_object_shows_no_more_than_its_text() -> None:
    assert PromptText("{{ thing }} {{ map.key }} {{ map['key'] }} {{ items[0] }}").render(VALUES) == (
        "an object value value 1"
    )


def test_the_items_of_a_mapping_go_before_the_methods_of_a_dict() -> None:
    assert PromptText("{{ map.items }}").render({"map": {"items": "mine"}}) == "mine"


def test_names_of_jinjas_own_are_names_as_any_other() -> None:
    assert PromptText("{{ range }} {{ dict }}").variables == {"range", "dict"}
    assert PromptText("{{ range }}").render({"range": "far"}) == "far"


def test_a_text_does_not_grow_without_end() -> None:
    inner = "{% for b in items %}0123456789{% endfor %}"
    text = PromptText("{% for a in items %}" + inner + "{% endfor %}")
    with pytest.raises(PromptTextError, match="longer than 1,000,000 characters"):
        text.render({"items": list(range(10_000))})
    assert len(text.render({"items": list(range(300))})) == 900_000 < LONGEST_CHARACTERS


def test_what_cannot_be_json_is_refused() -> None:
    with pytest.raises(PromptTextError):
        PromptText("{{ map.missing | tojson }}").render(VALUES)
