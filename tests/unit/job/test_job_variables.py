from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchonnx.errors import JobFileError
from batchonnx.job.load import load_job
from batchonnx.job.variables import parse_settings

JOB = """\
model: {path: m.onnx}
input: {path: "%s"}
output: {path: out}
"""

FOUR_LINES = """\
model: {path: m.onnx}
input: {path: s3://lake/day={{ day }}/{{hour}}}
output: {path: 'out/{{ day }}'}
engine: {batch_rows: {{ rows }}}
"""


def test_settings_become_a_dict_whose_values_may_hold_anything_on_a_line():
    assert parse_settings(["day=2026-11-22", "where=a=b", "empty=", " n = 1"]) == {
        "day": "2026-11-22",
        "where": "a=b",
        "empty": "",
        "n": " 1",
    }


def test_every_setting_that_is_none_is_named():
    with pytest.raises(JobFileError) as caught:
        parse_settings(["day", "=5", "a b=1", "ok=1", "x=1\n2", "ok=2", ""])
    titles = [problem.title for problem in caught.value.problems]
    assert titles == [
        "--set 'day' has no \"=\"",
        "--set '=5' doesn't begin with a variable's name",
        "--set 'a b=1' doesn't begin with a variable's name",
        '--set gives "ok" two values',
        "--set '' has no \"=\"",
        'the value of variable "x" has a control character in it',
    ]
    assert caught.value.problems[0].fix == "write --set day=value"


def test_the_same_setting_twice_is_once():
    assert parse_settings(["a=1", "a=1"]) == {"a": "1"}


def test_variables_are_filled_in_with_and_without_spaces_in_any_kind_of_text(load):
    job = load(
        """\
        name: "{{day}} at {{   hour   }}"
        model: {path: m.onnx}
        input:
          path: [{{ day }}, 'b-{{ day }}.parquet']
          filter: >
            day = '{{ day }}'
            and hour = {{ hour }}
        output: {path: out/{{day}}{{hour}}}
        """,
        day="2026-11-22",
        hour="7",
    ).job
    assert job.name == "2026-11-22 at 7"
    assert job.input.path == ["2026-11-22", "b-2026-11-22.parquet"]
    assert job.input.filter == "day = '2026-11-22' and hour = 7\n"
    assert job.output.path == "out/2026-11-227"


def test_a_variable_can_name_a_feature(load):
    job = load(JOB % "i" + "features: {'{{ name }}': {column: a}}\n", name="x")
    assert list(job.job.features or ()) == ["x"]
    assert job.lines["features.x.column"] == 4


def test_a_variable_without_quotes_is_a_number_where_it_looks_like_one(load):
    job = load(FOUR_LINES, day="d", hour="7", rows="64")
    assert job.job.engine.batch_rows == 64


def test_a_number_where_text_is_wanted_is_to_be_quoted_in_the_job(refuse):
    (problem,) = refuse("model: {path: m}\ninput: {path: {{ day }}}\noutput: {path: o}\n", day="20261122")
    assert problem.facts["job"] == "job.yaml:2  input.path"
    assert problem.facts["found"] == "20261122 from {{ day }} (a number)"
    assert problem.fix == 'write it in quotes: path: "{{ day }}"'


def test_every_variable_without_a_value_is_named_once_with_its_lines(refuse):
    problems = refuse(FOUR_LINES)
    assert [(p.title, p.facts["job"], p.fix) for p in problems] == [
        ('variable "day" has no value', "job.yaml:2  input.path", "--set day=value"),
        ('variable "hour" has no value', "job.yaml:2  input.path", "--set hour=value"),
        ('variable "rows" has no value', "job.yaml:4  engine.batch_rows", "--set rows=value"),
    ]
    assert problems[0].facts["also"] == "line 3"
    assert "also" not in problems[1].facts


def test_a_variable_on_a_later_line_of_its_text_has_that_line(refuse):
    filter_lines = "  filter: |\n    a > 0\n    and b = {{ b }}\n"
    (problem,) = refuse("model: {path: m}\noutput: {path: o}\ninput:\n  path: i\n" + filter_lines)
    assert problem.facts["job"] == "job.yaml:7  input.filter"


def test_other_problems_are_told_together_with_unset_variables_and_none_are_invented(refuse):
    problems = refuse(FOUR_LINES + "kep: [a]\n", hour="1")
    assert [problem.title for problem in problems] == [
        'variable "day" has no value',
        'variable "rows" has no value',
        'unknown key "kep"',
    ]


def test_a_setting_that_the_job_does_not_use_is_an_error_with_the_nearest_name(refuse):
    problems = refuse(FOUR_LINES, dya="1", hour="2", rows="3", zzz="4")
    assert [(p.title, p.fix) for p in problems] == [
        ('the job has no variable "dya"', "did you mean --set day=…?"),
        ('the job has no variable "zzz"', "leave it out, or write {{ zzz }} into the job"),
        ('variable "day" has no value', "--set day=value"),
    ]
    assert problems[0].facts == {
        "job": "job.yaml",
        "expected": "one of: day, hour, rows",
        "found": "--set dya=…",
    }


def test_a_setting_for_a_job_without_variables_is_an_error(refuse):
    (problem,) = refuse(JOB % "i", day="1")
    assert problem.facts["expected"] == "no variables"


@pytest.mark.parametrize("comment", ["# {{ day }}", "x: 1 # {{ day }}"])
def test_braces_in_a_comment_are_no_variable(load, refuse, comment):
    text = JOB % "i" + comment.replace("x: 1", "name: a") + "\n"
    assert load(text).job.input.path == "i"
    (problem,) = refuse(text, day="1")
    assert problem.title == 'the job has no variable "day"'


def test_a_hash_inside_quotes_begins_no_comment(load):
    assert load(JOB % "a # {{ day }}", day="1").job.input.path == "a # 1"


def test_braces_around_something_else_are_an_error_with_their_line(refuse):
    (problem,) = refuse(JOB % "{{ a b }}")
    assert problem.title == '"a b" can\'t name a variable'
    assert problem.facts["job"] == "job.yaml:2  input.path"


def test_a_value_of_two_lines_is_refused(refuse):
    (problem,) = refuse(JOB % "{{ day }}", day="a\nmodel: b")
    assert problem.facts == {"expected": "one line of text", "found": r"'a\nmodel: b'"}


def test_a_value_that_holds_braces_is_not_filled_again(load):
    assert load(JOB % "{{ a }}", a="{{ b }}").job.input.path == "{{ b }}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_no_value_changes_the_structure_of_the_job(load, value):
    quoted = load(JOB % "a/{{ v }}", v=value)
    plain = load((JOB % "a/{{ v }}").replace('"', ""), v=value)
    assert quoted.job.input.path == plain.job.input.path == f"a/{value}"
    assert quoted.lines == plain.lines


@pytest.mark.parametrize("shown", ["job.yaml", "sub/../job.yaml", "../here/job.yaml"])
def test_the_file_is_shown_as_the_user_gave_it(tmp_path, monkeypatch, shown):
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    (folder / "job.yaml").write_text(JOB % "{{ a }}")
    monkeypatch.chdir(folder)
    for given_path in (shown, Path(shown), str(folder / shown)):
        with pytest.raises(JobFileError) as caught:
            load_job(given_path)
        assert caught.value.problems[0].facts["job"] == f"{given_path}:2  input.path"
