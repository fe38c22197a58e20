"""Files that can't be read, keys and values that no job has."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pytest

from batchonnx.errors import JobFileError
from batchonnx.job.load import job_from_dict, load_job

MINIMAL = "model: {path: m.onnx}\ninput: {path: data}\noutput: {path: out}\n"

DESIGN = """\
name: score-events
model:
  path: s3://models/events/model.onnx
  sha256: {digest}
input:
  path: s3://lake/events/day={{{{ day }}}}/     # file, directory, glob or list
  filter: amount > 0 and country in ('DE', 'FR')
features:
  x: {{columns: [f0, f1, f2], fill: 0, cast: true}}
  pixels: {{column: image, shape: [3, 224, 224]}}
  magic: {{column: bytes, bytes: {{head: 1024, tail: 1024, window: 4096, strip: true}}}}
  custom: {{columns: [a, b], python: mypkg.features:encode, inputs: [ids, mask]}}
  temperature: {{value: 1.5}}
outputs:
  score: {{from: probabilities, softmax: true, index: 1}}
  label: {{from: probabilities, argmax: true, labels: labels.txt}}
  spam: {{from: logit, sigmoid: true, threshold: 1, labels: [no, yes]}}
  top: {{from: probabilities, top_k: 5}}
keep: [event_id]
output:
  path: scores/day={{{{ day }}}}/
  compression: snappy
engine:
  workers: 4
  batch_rows: auto
""".format(digest="0a" * 32)


def test_a_full_job_loads_as_it_is_written(load, tmp_path):
    file = load(DESIGN, day="2026-11-22")
    job = file.job
    assert job.input.path == "s3://lake/events/day=2026-11-22/"
    assert job.features is not None
    assert job.features["magic"].bytes is not None
    assert job.features["magic"].bytes.pad == 256
    assert job.outputs is not None
    assert job.outputs["spam"].threshold == 1.0
    assert job.outputs["spam"].labels == ["no", "yes"]
    assert job.engine.workers == 4
    assert file.path == Path("job.yaml")
    assert file.folder == tmp_path
    assert file.lines["outputs.label.labels"] == 16
    assert file.where("outputs.label.labels") == "job.yaml:16  outputs.label.labels"


def test_what_is_left_out_has_its_default(load):
    job = load(MINIMAL).job
    assert (job.name, job.features, job.outputs, job.keep) == ("job", None, None, [])
    assert (job.engine.workers, job.engine.batch_rows, job.output.compression) == ("auto", "auto", None)


def test_keys_without_a_value_are_left_out(load):
    assert load(MINIMAL + "features:\noutputs:\n").job.features is None


def test_relative_paths_count_from_the_folder_of_the_job(tmp_path, monkeypatch):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/score.yaml").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    file = load_job("jobs/score.yaml")
    monkeypatch.chdir("/")
    assert file.path == Path("jobs/score.yaml")
    assert file.resolve("m.onnx") == str(tmp_path / "jobs/m.onnx")
    assert file.resolve("/a/m.onnx") == "/a/m.onnx"
    assert file.resolve("~/m.onnx") == str(Path.home() / "m.onnx")
    assert file.resolve("s3://a/b") == "s3://a/b"
    assert file.resolve("~nobody-of-that-name/m.onnx") == str(tmp_path / "jobs/~nobody-of-that-name/m.onnx")


# --- the file itself


def refused(path: str | Path) -> JobFileError:
    with pytest.raises(JobFileError) as caught:
        load_job(path)
    assert len(caught.value.problems) == 1
    return caught.value


def test_a_missing_file_is_named_with_the_nearest_one_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("score.yaml").write_text(MINIMAL)
    (problem,) = refused("scores.yaml").problems
    assert problem.title == 'there is no job file "scores.yaml"'
    assert problem.fix == "did you mean score.yaml?"
    assert "batchonnx init" in refused("other.json").problems[0].fix


def test_a_missing_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (problem,) = refused("jobs/score.yaml").problems
    assert problem.facts == {"job": "jobs/score.yaml", "found": 'no folder "jobs"'}


def test_a_folder_is_not_a_job_and_its_jobs_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("jobs").mkdir()
    assert refused("jobs").problems[0].fix == "name the job file itself"
    Path("jobs/a.yaml").touch()
    Path("jobs/b.yml").touch()
    (problem,) = refused("jobs").problems
    assert problem.title == '"jobs" is a folder, not a job file'
    assert problem.fix == "name the file: jobs/a.yaml, jobs/b.yml"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(MINIMAL)
    path.chmod(0)
    assert "Permission denied" in refused(path).problems[0].title


@pytest.mark.parametrize("name", ["file/job.yaml", "a" * 300 + ".yaml", "a\0b"])
def test_a_path_that_can_be_no_file_is_an_error_of_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert "can't be read: " in refused(name).problems[0].title


def test_a_file_that_is_not_utf_8_is_named_with_line_and_byte(refuse):
    (problem,) = refuse(MINIMAL.encode() + "name: café\n".encode("latin-1"))
    assert problem.facts == {"job": "job.yaml:4", "expected": "UTF-8 text", "found": "byte 0xe9"}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_is_named_with_what_writes_one(refuse, text):
    (problem,) = refuse(text)
    assert problem.title == 'job file "job.yaml" is empty'
    assert "batchonnx init" in problem.fix


@pytest.mark.parametrize(
    ("text", "found"),
    [("- a\n- b\n", "[a, b]"), ("model.onnx", "model.onnx"), ("---\n", "nothing"), ("5", "5")],
)
def test_a_file_without_keys_is_no_job(refuse, text, found):
    (problem,) = refuse(text)
    assert problem.title == '"job.yaml" isn\'t a job'
    assert problem.facts["found"] == found


# --- keys


def test_an_unknown_key_is_told_with_its_line_and_the_nearest_key_of_that_place(refuse):
    text = (
        MINIMAL
        + "features:\n  x:\n    columsn: [a]\noutputs:\n  y: {from: p, Top-K: 3}\nengin: {workers: 1}\n"
    )
    assert [(p.title, p.facts["job"], p.fix) for p in refuse(text)] == [
        ('unknown key "columsn" in features.x', "job.yaml:6  features.x.columsn", 'did you mean "columns"?'),
        ('unknown key "Top-K" in outputs.y', "job.yaml:8  outputs.y.Top-K", 'did you mean "top_k"?'),
        ('unknown key "engin"', "job.yaml:9  engin", 'did you mean "engine"?'),
    ]


def test_the_keys_of_a_place_are_listed(refuse):
    (problem,) = refuse(MINIMAL.replace("path: data", "path: data, zzz: 1"))
    assert problem.facts["expected"] == "one of: path, format, table, version, filter"
    assert problem.fix == "leave it out"


def test_a_key_of_another_place_is_sent_there(refuse):
    problems = refuse(MINIMAL + "batch_rows: 5\nsoftmax: true\n")
    assert [problem.fix for problem in problems] == [
        "it belongs to engine: move it there",
        "it belongs to outputs.NAME: move it there",
    ]


def test_a_typo_of_a_required_key_is_one_problem_and_hides_no_other(refuse):
    problems = refuse("modle: {path: 5}\ninput: {pth: data}\noutput: {path: out, overwrite: 1}\n")
    assert [problem.title for problem in problems] == [
        'unknown key "modle"',
        'unknown key "pth" in input',
        "output.overwrite must be true or false",
    ]


def test_the_python_name_of_a_key_is_no_key_of_the_file(refuse):
    (problem,) = refuse(MINIMAL + "outputs: {y: {from_: p}}\n")
    assert problem.fix == 'did you mean "from"?'


def test_every_missing_key_is_told_with_the_line_of_its_section(refuse):
    problems = refuse("model: {}\noutput: {path: out}\noutputs:\n  y: {argmax: true}\n")
    assert [(p.title, p.facts["job"], p.facts["expected"]) for p in problems] == [
        (
            'the job has no "input"',
            "job.yaml",
            "input: keys with values (path, format, table, version, filter)",
        ),
        ('model has no "path"', "job.yaml:1  model", "path: text (not empty)"),
        ('outputs.y has no "from"', "job.yaml:4  outputs.y", "from: text or a list of text (not empty)"),
    ]
    assert problems[2].fix == 'add "from: …" under outputs.y'
    assert problems[2].facts["found"] == "argmax"


WITHOUT_QUOTES = "write it without quotes: workers: 64"

# --- values: key, as written -> expected, found, fix

NUMBERS = "a list of 1 to 3 numbers"
SIDE = "a whole number (1 to 65535)"
SIDES = "a list of 2 whole numbers (1 to 65535)"
WORKERS = '"auto", a whole number (1 or more) or keys with values (min, max)'

VALUES = [
    ("name: 5", "text", "5 (a number)", 'write it in quotes: name: "5"'),
    ("name: true", "text", "true (true or false)", 'write it in quotes: name: "true"'),
    ("name:", "text", "nothing", 'give "name" a value, or leave it out where it isn\'t needed'),
    ("name: [a]", "text", "[a] (a list)", "write text"),
    ("keep: id", "a list of text", "id (text)", "write a list: keep: [id]"),
    ("keep: 7", "a list of text", "7 (a number)", 'write a list: keep: ["7"]'),
    ("keep: {a: 1}", "a list of text", "{a: 1} (keys)", "write a list of text"),
    ("keep: [a, 7]", "text", "7 (a number)", 'write it in quotes: "7"'),
    ("features: {x: {column: a, cast: yes}}", "true or false", "yes (text)", "write cast: true"),
    ("features: {x: {column: a, cast: Off}}", "true or false", "Off (text)", "write cast: false"),
    ("features: {x: {column: a, cast: 1}}", "true or false", "1 (a number)", "write true or false"),
    ("features: {x: {column: [a]}}", "text", "[a] (a list)", "name one column, or use columns: [A, B]"),
    ("features: {x: {columns: []}}", "a list of text (not empty)", "[]", "write a list of text (not empty)"),
    (
        "features: {x: {column: a, shape: 3}}",
        "a list of whole numbers (1 or more)",
        "3 (a number)",
        "write a list: shape: [3]",
    ),
    (
        "features: {x: {column: a, shape: [0]}}",
        "a whole number (1 or more)",
        "0",
        "write a whole number (1 or more)",
    ),
    ("features: {x: {column: a, bytes: {head: 1.5}}}", "a whole number (0 or more)", "1.5 (a number)", ""),
    ('features: {x: {column: a, bytes: {head: "5"}}}', "a whole number (0 or more)", '"5" (text)', ""),
    ("features: {x: {value: {a: 1}}}", "true or false, a number, text or a list", "{a: 1} (keys)", ""),
    ("features: {x: {columns: [a], python: f}}", "text like module:function", "f", ""),
    ("features: [x]", "names, each with its keys", "[x] (a list)", ""),
    ("features: {x: {column: a, image: {mean: [1, 2, 3, 4]}}}", f"a number or {NUMBERS}", "[1, 2, 3, 4]", ""),
    ("features: {x: {column: a, image: {std: .nan}}}", f"a number or {NUMBERS}", ".nan", ""),
    ("features: {x: {column: a, image: {scale: .inf}}}", "a number", ".inf", "write a number"),
    ("features: {x: {column: a, image: {size: [1, 2, 3]}}}", f"{SIDE} or {SIDES}", "[1, 2, 3]", ""),
    ("features: {x: {column: a, image: {size: 0.5}}}", f"{SIDE} or {SIDES}", "0.5 (a number)", ""),
    ("features: {x: {column: a, image: {edge: 70000}}}", SIDE, "70000", f"write {SIDE}"),
    ("outputs: {y: {from: p, detect: {min_score: 7}}}", "a number (0 to 1)", "7", ""),
    ("outputs: {y: {from: p, threshold: a}}", "a number", "a (text)", "write a number"),
    ("outputs: {y: {from: p, top_k: 0}}", "a whole number (1 or more)", "0", ""),
    (
        "outputs: {y: {from: p, argmax: true, labels: 5}}",
        "text or a list of text (not empty)",
        "5 (a number)",
        "",
    ),
    ("engine: {workers: 0}", WORKERS, "0", f"write {WORKERS}"),
    ("engine: {workers: Auto}", WORKERS, "Auto", ""),
    ("engine: {name: rya}", "one of: local, ray", "rya", 'did you mean "ray"?'),
    (
        "engine: {batch_rows: autp}",
        '"auto" or a whole number (1 or more)',
        "autp",
        'did you mean "auto"?',
    ),
    ("engine: {name: '64'}", "one of: local, ray", "'64'", "write one of: local, ray"),
    ("engine: {workers: '64'}", WORKERS, "'64'", WITHOUT_QUOTES),
]


@pytest.mark.parametrize(("text", "expected", "found", "fix"), VALUES, ids=[value[0] for value in VALUES])
def test_a_wrong_value_is_told_with_what_was_expected_and_what_to_write(refuse, text, expected, found, fix):
    (problem,) = refuse(MINIMAL + text + "\n")
    assert problem.facts["job"].startswith("job.yaml:4  ")
    assert (problem.facts["expected"], problem.facts["found"]) == (expected, found)
    assert problem.fix == fix or not fix
    assert problem.fix


@pytest.mark.parametrize(
    ("section", "fix"),
    [
        ("model: m.onnx", "write model: {path: m.onnx}"),
        ("input: data/", "write input: {path: data/}"),
        ("output: out", "write output: {path: out}"),
        ("features: {x: f0}", "write x: {column: f0}"),
        ("outputs: {y: p}", "write y: {from: p}"),
    ],
)
def test_a_value_where_keys_are_wanted_is_shown_as_keys(refuse, section, fix):
    key = section.partition(":")[0]
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(f"{key}:")]
    (problem,) = refuse("\n".join([section, *lines]))
    assert problem.title.endswith("must be keys with values")
    assert problem.fix == fix


def test_a_format_has_its_choices_listed(refuse):
    (problem,) = refuse(MINIMAL.replace("path: data", "path: data, format: parqet"))
    assert problem.facts["expected"] == "one of: parquet, arrow, csv, jsonl, files, delta, iceberg"
    assert problem.fix == 'did you mean "parquet"?'


def test_a_digest_is_64_hexadecimal_digits(refuse):
    (problem,) = refuse(MINIMAL.replace("m.onnx", "m.onnx, sha256: ABC"))
    assert problem.facts["expected"] == "64 hexadecimal digits, in lower case"


def test_all_problems_of_a_file_are_told_at_once_in_the_order_of_its_lines(refuse):
    problems = refuse(
        """\
        model: {path: 5}
        input: {path: [a, 6], fliter: x > 0}
        features:
          x: {column: a, columns: [b]}
          y: {column: a, column: b}
          z: {column: "{{ z }}"}
        outputs:
          p: {softmax: 1}
        output: {path: out}
        """,
        day="1",
    )
    assert [problem.title for problem in problems] == [
        'the job has no variable "day"',
        "model.path must be text (not empty)",
        'unknown key "fliter" in input',
        "input.path.1 must be text (not empty)",
        "features.x: a feature comes from exactly one of column, columns and value",
        'key "features.y.column" is given twice',
        'variable "z" has no value',
        'outputs.p has no "from"',
        "outputs.p.softmax must be true or false",
    ]


def test_no_word_of_the_validator_reaches_the_user(refuse):
    text = (
        "".join(f"# {value[0]}\n" for value in VALUES)
        + "model: 1\ninput: []\noutput: {path: 2, x: 3}\nengine:\n"
    )
    shown = "\n".join(map(str, refuse(text)))
    for word in ("Input should", "pydantic", "literal", "str_type", "extra", "valid dictionary", "NoneType"):
        assert word not in shown


# --- from Python

SPEC = {"model": {"path": "m.onnx"}, "input": {"path": "data"}, "output": {"path": "out"}}


def test_a_dict_is_a_job_whose_paths_count_from_the_given_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = job_from_dict(SPEC, "sub")
    assert (file.path, file.lines) == (None, {})
    assert file.resolve("m.onnx") == str(tmp_path / "sub/m.onnx")
    assert job_from_dict(SPEC).folder == tmp_path


def test_paths_tuples_and_mappings_are_taken_for_what_they_mean():
    spec = MappingProxyType({**SPEC, "model": {"path": PurePosixPath("a/m.onnx")}, "keep": ("a", "b")})
    job = job_from_dict(spec).job
    assert (job.model.path, job.keep) == ("a/m.onnx", ["a", "b"])


def test_a_file_and_its_dict_are_the_same_job(load):
    from_dict = job_from_dict({**SPEC, "outputs": {"y": {"from": "p", "threshold": 1}}})
    assert from_dict.job == load(MINIMAL + "outputs: {y: {from: p, threshold: 1}}\n").job


def test_all_problems_of_a_dict_are_told_at_once_by_key():
    with pytest.raises(JobFileError) as caught:
        job_from_dict(
            {**SPEC, "input": {"pth": 5}, "features": {"x": {"column": object()}, "y": {"value": {}}}}
        )
    assert [problem.facts["job"] for problem in caught.value.problems] == [
        "input.pth",
        "features.x.column",
        "features.y.value",
    ]


def test_a_dict_inside_of_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(JobFileError, match="nested too deeply"):
        job_from_dict({**SPEC, "features": {"x": {"value": endless}}})
