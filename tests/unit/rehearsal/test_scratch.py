"""Where a rehearsal writes."""

from __future__ import annotations

import pytest

from batchonnx.rehearsal.scratch import beside


@pytest.mark.parametrize(
    ("output", "parent", "mark"),
    [
        ("/data/scores", "/data", ".scores.rehearsal-"),
        ("s3://lake/events/scores", "s3://lake/events", ".scores.rehearsal-"),
        ("s3://lake/scores", "s3://lake", ".scores.rehearsal-"),
        ("s3://lake", "s3://lake", ".rehearsal-"),
        ("file:///data/scores", "file:///data", ".scores.rehearsal-"),
    ],
)
def test_places_are_beside_the_output_or_hidden_in_the_bucket_that_it_is(
    output: str, parent: str, mark: str
) -> None:
    assert beside(output) == (parent, mark)
