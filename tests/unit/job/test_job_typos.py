"""Any slip of the hand in any key of a job is found on its line."""

from __future__ import annotations

import re
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchonnx.errors import JobFileError, Problem
from batchonnx.job.load import load_job
from batchonnx.job.spec import (
    Audio,
    BytesWindow,
    Check,
    Dependencies,
    Detect,
    Engine,
    Errors,
    Feature,
    Image,
    Input,
    Job,
    Metrics,
    Model,
    Notice,
    Notify,
    Output,
    Resources,
    Result,
    Schedule,
    Session,
    Span,
    State,
    Storage,
    Table,
)
from batchonnx.job.words import fields_by_key

LINES = """\
name: typos
model:
  path: m.onnx
  sha256: 0000000000000000000000000000000000000000000000000000000000000abc
input:
  format: iceberg
  table:
    name: db.events
    catalog: lake
    properties: {type: sql}
  version: 12
  filter: a > 0
features:
  x0:
    columns: [a, b]
    python: m:f
    inputs: [p, q]
    fill: 0
    cast: true
    batch_axis: 1
  x1:
    column: c
    shape: [2, 3]
    bytes:
      head: 1
      tail: 2
      window: 4
      strip: true
      pad: 0
  x2:
    value: 1
  x3:
    columns: [a, b]
    tokenizer: tokenizer.json
    max_length: 8
    truncate: left
    prefix: "query: "
    pad: 0
  x8:
    column: i
    image:
      preset: preprocessor_config.json
      folder: images
      size: [224, 224]
      resize: shortest
      edge: 256
      resample: bicubic
      channels: RGB
      background: [255, 255, 255]
      border: [0, 0, 0]
      scale: 0.5
      mean: [0.5]
      std: [0.5]
      layout: NCHW
      upright: true
      draft: true
      max_pixels: 1000
  x9:
    column: s
    audio:
      rate: 16000
      folder: sounds
      window: 512
      hop: 256
      context: 64
      mono: first
      normalize: true
      max_seconds: 60
  x6:
    column: s
    audio:
      rate: 16000
      samples: 3
scan:
  x7:
    from: p
    batch_axis: 1
outputs:
  y0:
    from: p
    softmax: true
    argmax: true
    labels: l.txt
    batch_axis: 1
    mask: r
    explode: true
  y1:
    from: q
    sigmoid: true
    index: 1
    threshold: 0.5
  y2:
    from: r
    top_k: 3
    length: s
  y6:
    from: r
    detect:
      boxes: q
      classes: s
      corners: center
      normalized: true
      coordinates: image
      channels_first: true
      min_score: 0.1
      max_overlap: 0.9
      across_classes: true
      most: 9
  y7:
    from: r
    detect:
      objectness: true
  y3:
    from: s
    python: m:f
  y4:
    from: t
    pool: mean
    normalize: true
    precision: int8
keep: [id]
output:
  path: out
  format: iceberg
  table:
    name: db.scores
  overwrite: true
  single_writer: proved
  compression: lz4
  row_group_rows: 1000
  file_bytes: 1000000
  partition_by: []
engine:
  name: ray
  device: openvino
  provider_options: {num_streams: 1}
  fallback: forbid
  workers:
    min: 1
    max: 2
  hook_processes: 2
  batch_rows: 64
  address: 10.0.0.1:6379
  wait_s: 30
  shared_output: true
  resources:
    num_cpus: 1
    num_gpus: 0.5
    memory: 1000000
    custom: {}
    accelerator_type: A100
session:
  custom_ops: [onnxruntime-extensions]
errors:
  max_bad_rows: 5
storage:
  endpoint: https://s3.example.com
  region: eu-central-1
  profile: scoring
  role_arn: arn:aws:iam::123456789012:role/scorer
  path_style: true
  ca_file: ca.pem
schedule:
  cron: 15 2 * * *
  time_zone: UTC
  lag: 1d
  date: "%Y-%m-%d"
  start: 2026-11-01
  catch_up: 7
  overlap: skip
  deadline: 6h
gate:
  y0:
    max_null: 1%
    varies: true
    max_shift: 5%
  y1:
    min: 0
    max: 1
    max_psi: 0.2
metrics:
  port: 9464
  textfile: typos.prom
  pushgateway: http://gateway:9091
notify:
  on_success:
    webhook: https://hooks.example.com/x
    secret_env: HOOK_KEY
  on_failure:
    webhook_env: HOOK_URL
  on_quarantine:
    command: [tell]
dependencies:
  pip: [pillow]
""".splitlines()

SECTIONS = (
    Job,
    Model,
    Input,
    Feature,
    BytesWindow,
    Image,
    Audio,
    State,
    Output,
    Detect,
    Result,
    Engine,
    Resources,
    Span,
    Errors,
    Storage,
    Check,
    Table,
    Schedule,
    Session,
    Metrics,
    Notify,
    Notice,
    Dependencies,
)

KEY = re.compile(r"\s*([a-z_][a-z0-9_]*):")
KEYS = [
    (number, match.span(1))
    for number, line in enumerate(LINES)
    if (match := KEY.match(line)) and not re.fullmatch(r"[xy]\d", match[1])
]


def test_the_job_to_make_slips_in_is_right_and_has_every_key(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("\n".join(LINES))
    load_job(path)
    used = {LINES[number][slice(*span)] for number, span in KEYS} | {"models"}  # which goes without model
    assert used == {key for section in SECTIONS for key in fields_by_key(section)}


@st.composite
def slips(draw: st.DrawFn) -> tuple[int, str]:
    """A line's index and the line with one letter of its key lost, replaced or swapped with the next."""
    number, (start, end) = draw(st.sampled_from(KEYS))
    line = LINES[number]
    key = line[start:end]
    at = draw(st.integers(0, len(key) - 1))
    letter = draw(st.sampled_from(ascii_lowercase + "_"))
    swapped = key[:at] + key[at + 1 : at + 2] + key[at] + key[at + 2 :]
    typo = draw(st.sampled_from([key[:at] + key[at + 1 :], key[:at] + letter + key[at + 1 :], swapped]))
    assume(typo != key)
    return number, line[:start] + typo + line[end:]


@given(slips())
def test_a_slip_in_any_key_is_reported_with_its_line(tmp_path_factory, slip):
    number, line = slip
    path = tmp_path_factory.getbasetemp() / "typo.yaml"
    path.write_text("\n".join([*LINES[:number], line, *LINES[number + 1 :]]))
    with pytest.raises(JobFileError) as caught:
        load_job(path)
    places = [problem.facts["job"] for problem in caught.value.problems]
    assert any(place.startswith(f"{path}:{number + 1} ") for place in places), places


@given(slips())
def test_a_slip_is_one_problem_that_names_the_right_key(tmp_path_factory, slip):
    number, line = slip
    key, typo = (match[1] for match in map(KEY.match, (LINES[number], line)) if match)
    # A short key can be as near to another one; one letter less of these is a key of its own.
    assume(len(key) > 4 and typo not in ("column", "output"))
    path = tmp_path_factory.getbasetemp() / "typo.yaml"
    path.write_text("\n".join([*LINES[:number], line, *LINES[number + 1 :]]))
    with pytest.raises(JobFileError) as caught:
        load_job(path)
    (problem,) = caught.value.problems
    assert problem.fix == f'did you mean "{key}"?'


@given(st.data())
def test_a_job_cut_and_garbled_anywhere_is_refused_or_loads_but_never_crashes(tmp_path_factory, data):
    text = "\n".join(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 12))
        text = (
            text[:start] + data.draw(st.text("{}[]:,#&*!|>'\"%@`-? \n\t~<a0.é\x00", max_size=4)) + text[end:]
        )
    path = tmp_path_factory.getbasetemp() / "garbled.yaml"
    path.write_text(text)
    problems = problems_of(path, {"a": "1"} if data.draw(st.booleans()) else {})
    assert all(problem.title and problem.fix for problem in problems)
    assert all(problem.facts["job"].startswith(str(path)) for problem in problems)


def problems_of(path: Path, variables: dict[str, str]) -> tuple[Problem, ...]:
    try:
        load_job(path, variables)
    except JobFileError as error:
        return error.problems
    return ()
