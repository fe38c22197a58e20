"""What is YAML and what isn't, with the line."""

from __future__ import annotations

import math

import pytest

JOB = """\
model: {path: m.onnx}
input: {path: data}
output: {path: out}
"""

BROKEN = {
    "a colon inside of plain text": ("name: a: b\n", "job.yaml:4:8", 'a ":" where none can be'),
    "a key without its colon": ("name a\nkeep: [b]\n", "job.yaml:4:1", 'a key without its ":"'),
    "a tab": ("features:\n\tx: {column: a}\n", "job.yaml:5:1", "a tab where YAML wants spaces"),
    "a list left open": ("keep: [a, b\nname: c\n", "job.yaml:5:5", 'a "[" without its "]"'),
    "a brace left open": ("engine: {workers: 1\nname: c\n", "job.yaml:5:5", 'a "{" without its "}"'),
    "a list left open at the end": ("keep: [\n", "job.yaml:4:8", "a value is missing"),
    "a stray bracket": ("name: ]\n", "job.yaml:4:7", "a value is missing"),
    "a quote left open": ("name: 'a\nkeep: [b]\n", "job.yaml:4:7", "a quote is never closed"),
    "a quote inside of quotes": ("name: 'it's'\n", "job.yaml:4:11", "doesn't line up"),
    "a backslash": ('name: "a\\d"\n', "job.yaml:4:9", "a backslash inside double quotes"),
    "a reserved character": ("name: @me\n", "job.yaml:4:7", "a character that YAML keeps for itself"),
    "a list among keys": ("- a\n", "job.yaml:4:1", "doesn't line up"),
    "a list beside its key": ("keep: - a\n", "job.yaml:4:7", 'a "- " where no list can begin'),
    "deeper by one": ("name: a\n  keep: [b]\n", "job.yaml:5:7", 'a ":" where none can be'),
    "a control character": ("name: \x07\n", "job.yaml:4:7", "a control character"),
}


@pytest.mark.parametrize(("text", "job", "cause"), BROKEN.values(), ids=BROKEN)
def test_text_that_is_not_yaml_is_told_with_line_column_and_cause(refuse, text, job, cause):
    (problem,) = refuse(JOB + text)
    assert problem.facts["job"] == job
    assert problem.title.startswith("the job isn't YAML: ")
    assert cause in problem.title
    assert problem.fix


def test_where_a_list_that_is_never_closed_begins_is_told_too(refuse):
    (problem,) = refuse(JOB + "keep: [a, b\nname: c\n")
    assert problem.facts["found"] == "name: c"
    assert problem.facts["begun"] == "line 4: keep: [a, b"


def test_columns_are_right_behind_a_variable(refuse):
    (problem,) = refuse(JOB + "name: {{ a }}: b\n", a="long enough to shift")
    assert problem.facts["job"] == "job.yaml:4:14"
    assert problem.facts["found"] == "name: {{ a }}: b"


def test_unset_variables_before_a_syntax_error_are_told_with_it(refuse):
    titles = [problem.title for problem in refuse(JOB + "name: {{ a }}\nkeep: @\n")]
    assert titles[0] == 'variable "a" has no value'
    assert titles[1].startswith("the job isn't YAML")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "# a comment\n\n", "---\n"])
def test_lines_are_those_of_an_editor(load, newline, start):
    text = "model:\n  path: m.onnx\ninput:\n  path:\n    - a\n    - b\noutput: {path: out}\nkeep: [x,\n  y]\n"
    job = load((start + text).replace("\n", newline).encode())
    before = start.count("\n")
    assert {key: line - before for key, line in job.lines.items()} == {
        "model": 1,
        "model.path": 2,
        "input": 3,
        "input.path": 4,
        "input.path.0": 5,
        "input.path.1": 6,
        "output": 7,
        "output.path": 7,
        "keep": 8,
        "keep.0": 8,
        "keep.1": 9,
    }


def test_a_place_is_shown_with_the_line_of_the_nearest_key_above(load):
    job = load(JOB + "features:\n  a.b: {column: c}\n")
    assert job.where("features.a.b.column") == "job.yaml:5  features.a.b.column"
    assert job.where("features.x.fill") == "job.yaml:4  features.x.fill"
    assert job.where("engine.workers") == "job.yaml  engine.workers"


def test_every_key_given_twice_is_named_with_both_lines(refuse):
    problems = refuse(JOB + "name: a\nkeep: [x]\nname: b\nfeatures:\n  x: {column: a, column: b}\n")
    assert [(p.title, p.facts["job"], p.facts["first"]) for p in problems] == [
        ('key "name" is given twice', "job.yaml:6  name", "line 4"),
        ('key "features.x.column" is given twice', "job.yaml:8  features.x.column", "line 8"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0x1f", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("2026-11-22", "2026-11-22"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("!!str 5", "5"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("|\n      5", "5\n"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_what_yaml_1_2_says(load, text, value):
    feature = (load(f"{JOB}features:\n  x:\n    value: {text}\n").job.features or {})["x"]
    assert feature.value == value
    assert type(feature.value) is type(value)


def test_not_a_number_can_be_written(load):
    feature = (load(JOB + "features: {x: {column: a, fill: .nan}}\n").job.features or {})["x"]
    assert isinstance(feature.fill, float)
    assert math.isnan(feature.fill)


@pytest.mark.parametrize("text", ["0", "true", "2026-11-22", "input.1", "y"])
def test_any_name_of_a_model_input_is_a_key_without_quotes(load, text):
    assert list(load(f"{JOB}features: {{{text}: {{column: a}}}}\n").job.features or {}) == [text]


def test_a_value_can_be_used_again(load):
    job = load(JOB + "features:\n  x: &both {column: a, fill: 0}\n  y: *both\n")
    features = job.job.features or {}
    assert features["x"] == features["y"]
    assert job.lines["features.y"] == 6


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("keep: *all\n", "*all refers to nothing"),
        ("features: &f {x: {value: [*f]}}\n", "*f stands inside of &f"),
        ("name: !env HOME\n", "a tag, !env, means nothing in a job"),
        ("? [a]\n: b\n", "a key isn't text"),
        ("---\nname: a\n", "a second document begins"),
    ],
)
def test_yaml_that_no_job_needs_is_refused_with_its_line(refuse, text, title):
    (problem,) = refuse(JOB + text)
    assert problem.title == title
    assert problem.facts["job"].startswith("job.yaml:4")


@pytest.mark.parametrize(("brackets", "depth"), [("[]", 50), ("[]", 5000), ("{}", 5000)])
def test_brackets_without_end_are_refused(refuse, brackets, depth):
    problems = refuse(f"{JOB}features: {{x: {{value: {brackets[0] * depth}1{brackets[1] * depth}}}}}\n")
    assert problems[-1].title == "the job is nested too deeply"


def test_braces_within_braces_are_refused(refuse):
    problems = refuse("{" * 5000 + "}" * 5000)
    assert problems[-1].title == "the job is nested too deeply"


def test_aliases_that_stand_for_more_than_a_machine_holds_are_refused(refuse):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (problem,) = refuse(JOB + "\n".join(lines) + "\n")
    assert problem.title == "the job's aliases stand for too many values"
    assert problem.facts["job"].startswith("job.yaml:9")
