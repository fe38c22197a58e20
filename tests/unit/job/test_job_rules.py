"""Rules between keys of one section: each told with the key to look at."""

from __future__ import annotations

import pytest

JOB = "model: {path: m.onnx}\ninput: {path: data}\noutput: {path: out}\n"

RULES = [
    # A feature comes from one place.
    ("features: {x: {}}", "features.x", "features.x: a feature comes from exactly one", "none of them"),
    (
        "features: {x: {fill: 0}}",
        "features.x",
        "features.x: a feature comes from exactly one",
        "none of them",
    ),
    (
        "features: {x: {column: a, value: 1}}",
        "features.x",
        "features.x: a feature comes from exactly one",
        "column, value",
    ),
    (
        "features: {x: {column: a, columns: [b], value: 1}}",
        "features.x",
        "features.x: a feature comes from exactly one",
        "column, columns, value",
    ),
    (
        "features: {x: {column: a, python: m:f}}",
        "features.x.python",
        "features.x: python needs columns",
        "column",
    ),
    (
        "features: {x: {columns: [a], image: {}}}",
        "features.x.image",
        "features.x: image goes with column only",
        "columns",
    ),
    (
        "features: {x: {column: a, image: {}, audio: {rate: 8}}}",
        "features.x.audio",
        "features.x: image and audio exclude each other",
        "image, audio",
    ),
    (
        "features: {x: {column: a, max_length: 3}}",
        "features.x.max_length",
        "features.x: max_length goes with tokenizer only",
        "max_length without tokenizer",
    ),
    (
        "features: {x: {columns: [a, b, c], tokenizer: t.json}}",
        "features.x.tokenizer",
        "features.x: tokenizer takes one column, or two for pairs",
        "3 columns",
    ),
    (
        "features: {x: {column: a, tokenizer: t.json, image: {}}}",
        "features.x.image",
        "features.x: tokenizer and image exclude each other",
        "tokenizer with image",
    ),
    (
        "features: {x: {column: a, tokenizer: t.json, fill: 0}}",
        "features.x.fill",
        "features.x: fill of a text is no text",
        "0",
    ),
    (
        "outputs: {y: {from: p, precision: int8}}",
        "outputs.y.precision",
        "outputs.y: int8 needs vectors of length 1",
        "precision: int8 alone",
    ),
    (
        "outputs: {y: {from: p, normalize: true, argmax: true}}",
        "outputs.y.argmax",
        "outputs.y: argmax goes with scores, not with a vector",
        "normalize, argmax",
    ),
    (
        "features: {x: {column: a, image: {edge: 3, resize: exact}}}",
        "features.x.image.edge",
        "features.x.image: edge goes with resize: shortest only",
        "resize: exact",
    ),
    (
        "features: {x: {column: a, image: {std: [1, 0, 1]}}}",
        "features.x.image.std",
        "features.x.image: std divides, so it can't be 0",
        "0",
    ),
    (
        "features: {x: {column: a, audio: {rate: 8, samples: 1, window: 2}}}",
        "features.x.audio.window",
        "features.x.audio: samples and window exclude each other",
        "both",
    ),
    (
        "features: {x: {column: a, audio: {rate: 8, hop: 2}}}",
        "features.x.audio.hop",
        "features.x.audio: hop goes with window only",
        "hop without window",
    ),
    (
        "features: {x: {columns: [a], inputs: [b]}}",
        "features.x.inputs",
        "features.x: inputs goes with python only",
        "inputs without python",
    ),
    (
        "features: {x: {columns: [a], bytes: {head: 1}}}",
        "features.x.bytes",
        "features.x: bytes goes with column only",
        "columns",
    ),
    (
        "features: {x: {column: a, bytes: {pad: 0}}}",
        "features.x.bytes",
        "features.x.bytes: no bytes are taken",
        "head: 0, tail: 0",
    ),
    # An output's steps fit together.
    (
        "outputs: {y: {from: p, softmax: true, sigmoid: true}}",
        "outputs.y.sigmoid",
        "outputs.y: softmax and sigmoid exclude each other",
        "softmax, sigmoid",
    ),
    (
        "outputs: {y: {from: p, index: 0, top_k: 2}}",
        "outputs.y.top_k",
        "outputs.y: index, argmax and top_k exclude each other",
        "index, top_k",
    ),
    (
        "outputs: {y: {from: p, argmax: true, threshold: 0}}",
        "outputs.y.threshold",
        "outputs.y: threshold goes with a single value per row",
        "threshold with argmax",
    ),
    (
        "outputs: {y: {from: p, top_k: 2, threshold: 0}}",
        "outputs.y.threshold",
        "outputs.y: threshold goes with a single value per row",
        "threshold with top_k",
    ),
    (
        "outputs: {y: {from: p, labels: [a]}}",
        "outputs.y.labels",
        "outputs.y: labels needs something to label",
        "labels alone",
    ),
    (
        "outputs: {y: {from: p, softmax: true, labels: [a]}}",
        "outputs.y.labels",
        "outputs.y: labels needs something to label",
        "labels with softmax",
    ),
    (
        "outputs: {y: {from: p, python: m:f, softmax: true, index: 0}}",
        "outputs.y.python",
        "outputs.y: python goes alone",
        "python with softmax, index",
    ),
    (
        "outputs: {y: {from: p, python: m:f, threshold: 0}}",
        "outputs.y.python",
        "outputs.y: python goes alone",
        "python with threshold",
    ),
    ("schedule: {cron: 15 2 * *}", "schedule.cron", "schedule.cron: a cron expression has five", "15 2 * *"),
    (
        "schedule: {cron: 0 15 2 * * *}",
        "schedule.cron",
        "schedule.cron: a cron expression has five",
        "0 15 2 * * *",
    ),
    (
        "schedule: {cron: 61 2 * * *}",
        "schedule.cron",
        "schedule.cron: no cron expression: bad minute",
        "61 2 * * *",
    ),
    (
        "schedule: {cron: 0 2 * * MOO}",
        "schedule.cron",
        "schedule.cron: no cron expression: bad day-of-week",
        "0 2 * * MOO",
    ),
    (
        "schedule: {cron: 0 0 30 2 *}",
        "schedule.cron",
        "schedule.cron: no cron expression: bad day-of-month",
        "0 0 30 2 *",
    ),
    ("schedule: {cron: 0 2 L * *}", "schedule.cron", "schedule.cron: not every scheduler knows", "L"),
    ("schedule: {cron: 0 2 15W * *}", "schedule.cron", "schedule.cron: not every scheduler knows", "W"),
    ("schedule: {cron: 0 2 * * 1-7}", "schedule.cron", "schedule.cron: not every scheduler knows", "7"),
    ("schedule: {cron: '0 2 * * MON#1'}", "schedule.cron", "schedule.cron: not every scheduler knows", "#"),
    (
        "schedule: {cron: 0 2 * * *, time_zone: Berlin}",
        "schedule.time_zone",
        "schedule.time_zone: there is no such time zone",
        "Berlin",
    ),
    (
        "schedule: {cron: 0 2 * * *, time_zone: ../../etc}",
        "schedule.time_zone",
        "schedule.time_zone: there is no such time zone",
        "../../etc",
    ),
    (
        "schedule: {cron: 0 2 * * *, date: today}",
        "schedule.date",
        "schedule.date: this can't write a date",
        "today",
    ),
    (
        "schedule: {cron: 0 2 * * *, date: '%Y-%m-%d %H'}",
        "schedule.date",
        "schedule.date: this can't write a date",
        "%Y-%m-%d %H",
    ),
    (
        "schedule: {cron: 0 2 * * *, start: 2026-11-31}",
        "schedule.start",
        "schedule.start: start is no date",
        "2026-11-31",
    ),
    (
        "schedule: {cron: 0 2 * * *, catch_up: 3}",
        "schedule.catch_up",
        "schedule: catch_up needs start",
        "no start",
    ),
    ("keep: [a, b, a]", "keep", "keep: a column is kept twice", "a"),
]


@pytest.mark.parametrize(("text", "place", "title", "found"), RULES, ids=[rule[0] for rule in RULES])
def test_keys_that_do_not_go_together_are_told_at_the_key_to_look_at(refuse, text, place, title, found):
    (problem,) = refuse(JOB + text + "\n")
    assert problem.title.startswith(title)
    assert problem.facts["job"] == f"job.yaml:4  {place}"
    assert problem.facts["found"] == found
    assert problem.fix


def test_the_line_is_that_of_the_key_and_not_of_its_section(refuse):
    (problem,) = refuse(JOB + "outputs:\n  y:\n    from: p\n    softmax: true\n    sigmoid: true\n")
    assert problem.facts["job"] == "job.yaml:8  outputs.y.sigmoid"


@pytest.mark.parametrize(
    "text",
    [
        "features: {x: {column: a, bytes: {tail: 5}}}",
        "features: {x: {columns: [a, a]}}",
        "features: {x: {columns: [a], python: 'a.b:c', inputs: [y, z]}}",
        "features: {x: {value: 0}}",
        "features: {x: {value: false}}",
        "features: {x: {value: ''}}",
        "outputs: {y: {from: p, index: 0, threshold: 0.5}}",
        "outputs: {y: {from: p, index: -1, softmax: true}}",
        "outputs: {y: {from: p, top_k: 3, labels: a.txt, sigmoid: true}}",
        "outputs: {y: {from: p, threshold: 0, labels: [a, b]}}",
        "outputs: {y: {from: p, python: m:f, batch_axis: 1}}",
        "schedule: {cron: '*/15 1-5,22 1,15 JAN-MAR WED,FRI', date: 'y=%Y/d=%m-%d/%H%M%z'}",
        "schedule: {cron: 0 0 17 7 *, start: 2026-11-01, catch_up: 0}",
    ],
)
def test_keys_that_do_go_together_are_accepted(load, text):
    load(JOB + text + "\n")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('model: {path: "m\\0"}', "model.path"),
        ('input: {path: "d\\0"}', "input.path"),
        ('input: {path: [a, "d\\0"]}', "input.path.1"),
        ('output: {path: "o\\0"}', "output.path"),
        ('outputs: {y: {from: p, argmax: true, labels: "l\\0"}}', "outputs.y.labels"),
        ("outputs: {y: {from: p, argmax: true, labels: []}}", "outputs.y.labels"),
        ("output: {path: /}", "output.path"),
        ("output: {path: //}", "output.path"),
        ("engine: {batch_rows: 1000000000000}", "engine.batch_rows"),
    ],
)
def test_what_no_path_and_no_batch_can_be_is_refused(refuse, text, place):
    key = text.partition(":")[0]
    job = "".join(line for line in JOB.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    (problem,) = refuse(f"{job}{text}\n")
    assert problem.facts["job"].endswith(place)
    assert problem.fix
