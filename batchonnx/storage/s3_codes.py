"""Words of an S3 service, or statuses where it gives none, that callers act on."""

from __future__ import annotations

GONE = frozenset({"NoSuchKey", "404", "NoSuchUpload"})
REFUSED = frozenset({"PreconditionFailed", "412"})
"""A precondition didn't hold."""
RACED = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
"""Another request for the same key was under way: nobody knows who won."""
UNKNOWN = frozenset({"NotImplemented", "501"})
"""The store hasn't got what was asked for."""
