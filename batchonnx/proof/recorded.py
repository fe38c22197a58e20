"""A result's plan, made again from its records: what explaining and scoring again start from."""

from __future__ import annotations

from batchonnx.errors import ChangedError, Problem
from batchonnx.job.load import job_from_dict
from batchonnx.job.spec import JobFile
from batchonnx.ledger.records import PlanRecord
from batchonnx.planning.identity import describe_file, input_name
from batchonnx.planning.inputs import list_job
from batchonnx.planning.listing import Listing
from batchonnx.planning.shards import Shard, Source


def recorded_job(plan: PlanRecord) -> JobFile:
    """The job that a run was of. Raises JobFileError if this version has no such settings any more."""
    return job_from_dict(plan.job, plan.folder)


def recorded_listing(plan: PlanRecord) -> Listing:
    """The job's input as it is now; a table's, as it was at its version. Raises InputError."""
    return list_job(recorded_job(plan))[1]


def recorded_shard(plan: PlanRecord, number: int, listing: Listing) -> Shard:
    """A shard of the run, with its files' places in the listing. Raises ChangedError if one has changed."""
    (record,) = (shard for shard in plan.shards if shard.shard == number)
    places = {file.path: place for place, file in enumerate(listing.files)}
    problems = []
    sources = []
    for path, groups, first, rows in record.sources:
        expected = plan.identity[input_name(path)]
        found = describe_file(listing.files[places[path]]) if path in places else "no such file"
        if found != expected:
            facts = {"file": path, "expected": expected, "found": found}
            fix = "restore the file; without it nothing more can be told"
            problems.append(Problem("an input file has changed since it was scored", facts, fix))
        else:
            sources.append(Source(places[path], groups, first, rows))
    if problems:
        raise ChangedError(*problems)
    known = [source.rows for source in sources if source.rows is not None]
    rows = sum(known) if len(known) == len(sources) else None
    return Shard(number, tuple(sources), rows, 0)
