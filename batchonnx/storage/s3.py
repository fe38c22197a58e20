"""An S3 service: read ranges fast, and make an object exist exactly once.

What no client of S3 can know by itself: whether a write whose answer was lost has happened, and how a read
that broke off goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from batchonnx.errors import BatchonnxError, InputError, Problem, StorageError
from batchonnx.storage.s3_codes import GONE, RACED, REFUSED, UNKNOWN
from batchonnx.storage.s3_requests import RACE_TRIES, Changed, Requests, wait
from batchonnx.storage.settings import StorageSettings, current_settings

BODY_BYTES = 1 << 18
ATTEMPT = "batchonnx-attempt"
"""The key of the metadata by which an object is known for one attempt's."""


@dataclass(frozen=True)
class S3Object:
    """An object as a listing or a HEAD tells of it."""

    key: str
    size: int
    etag: str
    metadata: Mapping[str, str] | None = None


class S3:
    """The objects of one service. Safe to share between threads.

    Every method raises StorageError, or the class given as `kind`, with the request's id.
    """

    def __init__(self, requests: Requests) -> None:
        self.requests = requests

    def list(self, bucket: str, prefix: str, kind: type[BatchonnxError] = StorageError) -> Iterator[S3Object]:
        """Objects whose key begins with `prefix`, by key."""
        token: dict[str, str] = {}
        while True:
            page = self.requests.ask(
                "list_objects_v2", f"s3://{bucket}/{prefix}", kind, Bucket=bucket, Prefix=prefix, **token
            )
            for entry in page.get("Contents", ()):
                yield S3Object(entry["Key"], entry["Size"], entry["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def head(self, bucket: str, key: str, kind: type[BatchonnxError] = StorageError) -> S3Object | None:
        """An object without its bytes; None if there is none."""
        found = self.requests.find("head_object", bucket, key, kind)
        if found is None:
            return None
        return S3Object(key, found["ContentLength"], found["ETag"].strip('"'), found.get("Metadata"))

    def get(self, bucket: str, key: str) -> tuple[bytes, str] | None:
        """A small object's bytes and etag; None if there is none."""
        for tries_left in reversed(range(RACE_TRIES)):
            found = self.requests.find("get_object", bucket, key, StorageError)
            if found is None:
                return None
            try:
                return found["Body"].read(), found["ETag"].strip('"')
            except Exception as error:
                self.requests.require_broken(error, tries_left, f"s3://{bucket}/{key}", StorageError)
        raise AssertionError

    def begin(
        self, bucket: str, key: str, most: int, kind: type[BatchonnxError] = InputError
    ) -> tuple[bytes, S3Object] | None:
        """The first bytes of an object, `most` of them at most, and what it is; None if there is none."""
        url = f"s3://{bucket}/{key}"
        for tries_left in reversed(range(RACE_TRIES)):
            try:
                answer = self.requests.call("get_object", Bucket=bucket, Key=key, Range=f"bytes=0-{most - 1}")
            except Exception as error:
                code = self.requests.code(error)
                if code in GONE:
                    return None
                if code != "InvalidRange":
                    raise self.requests.told(error, url, kind) from error
                found = self.head(bucket, key, kind)  # there is no first byte
                return None if found is None else (b"", found)
            try:
                data: bytes = answer["Body"].read()
                size = int(answer.get("ContentRange", f"/{len(data)}").rpartition("/")[2])
                return data, S3Object(key, size, answer["ETag"].strip('"'), answer.get("Metadata"))
            except Exception as error:
                self.requests.require_broken(error, tries_left, url, kind)
        raise AssertionError

    def read_into(
        self,
        bucket: str,
        key: str,
        start: int,
        out: memoryview,
        etag: str | None = None,
        kind: type[BatchonnxError] = InputError,
    ) -> None:
        """Fill `out` with an object's bytes from `start` on; what broke off is gone on with where it did.

        Raises Changed if the object isn't that of the etag; `kind` if it is gone.
        """
        url = f"s3://{bucket}/{key}"
        done, tries_left = 0, RACE_TRIES
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        while done < len(out):
            asked = {"Range": f"bytes={start + done}-{start + len(out) - 1}", **condition}
            answer = self.requests.ask("get_object", url, kind, Bucket=bucket, Key=key, **asked)
            if etag and answer["ETag"].strip('"') != etag:  # a store that ignores the condition
                raise Changed(url)
            if "ContentRange" not in answer:
                facts = {"path": url, "endpoint": self.requests.endpoint}
                raise kind(Problem("the store ignores ranges", facts, "use a store that answers them"))
            body = answer["Body"]
            try:
                while block := body.read(min(BODY_BYTES, len(out) - done)):
                    out[done : done + len(block)] = block
                    done += len(block)
                if done < len(out):
                    raise EOFError(f"{done:,} of {len(out):,} bytes")
            except Exception as error:
                tries_left -= 1
                self.requests.require_broken(error, tries_left, url, kind)
            finally:
                body.close()

    def create(self, bucket: str, key: str, data: bytes) -> str | None:
        """Make an object unless there is one: its etag. Of several attempts at once, one is told it.

        The data has to differ between attempts: after a lost answer, that tells whose object it is.
        """
        return self._put(bucket, key, data, {"IfNoneMatch": "*"})

    def swap(self, bucket: str, key: str, data: bytes, etag: str) -> str | None:
        """Replace the object of that etag: the new one's, or None if another one is there, or none.

        The data has to differ between attempts, as for `create`.
        """
        return self._put(bucket, key, data, {"IfMatch": f'"{etag}"'})

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Write an object, in place of any former one: its etag."""
        answer = self.requests.ask(
            "put_object", f"s3://{bucket}/{key}", StorageError, Bucket=bucket, Key=key, Body=data
        )
        return str(answer["ETag"]).strip('"')

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Remove objects; those that aren't there are no error."""
        for first in range(0, len(keys), 1000):
            wanted = [{"Key": key} for key in keys[first : first + 1000]]
            url = f"s3://{bucket}/{keys[first]}"
            gone = {"Objects": wanted, "Quiet": True}
            answer = self.requests.ask("delete_objects", url, StorageError, Bucket=bucket, Delete=gone)
            for error in answer.get("Errors", ()):
                facts = {
                    "path": f"s3://{bucket}/{error.get('Key')}",
                    "endpoint": self.requests.endpoint,
                    "expected": "s3:DeleteObject on the object",
                    "found": f"{error.get('Code')} {error.get('Message', '')}".strip(),
                    "operation": "DeleteObjects",
                }
                fix = "ask for the right to do this, or use other credentials"
                raise StorageError(Problem("an object can't be removed", facts, fix))

    def delete_if(self, bucket: str, key: str, etag: str) -> None:
        """Remove the object of that etag; another one stays, unless the store can't tell them apart here."""
        try:
            self.requests.call("delete_object", Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
        except Exception as error:
            code = self.requests.code(error)
            if code in UNKNOWN:
                self.delete(bucket, [key])
            elif code not in {*GONE, *REFUSED}:
                raise self.requests.told(error, f"s3://{bucket}/{key}", StorageError) from error

    def begin_upload(self, bucket: str, key: str, attempt: str) -> str:
        """Open an upload: nobody sees the object before it is completed. Its id."""
        url, named = f"s3://{bucket}/{key}", {ATTEMPT: attempt}
        answer = self.requests.ask(
            "create_multipart_upload", url, StorageError, Bucket=bucket, Key=key, Metadata=named
        )
        return str(answer["UploadId"])

    def upload(self, bucket: str, key: str, upload: str, number: int, data: bytes | memoryview) -> str:
        """Send a piece of an upload, from 1: its etag. All but the last have at least 5 MiB."""
        answer = self.requests.ask(
            "upload_part",
            f"s3://{bucket}/{key}",
            StorageError,
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=bytes(data),
        )
        return str(answer["ETag"])

    def complete_upload(
        self, bucket: str, key: str, upload: str, etags: Sequence[str], size: int, attempt: str
    ) -> None:
        """Make an upload's object exist; one that does already, by this very attempt, is left as it is."""
        pieces = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            self.requests.call(
                "complete_multipart_upload",
                Bucket=bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": pieces},
            )
        except Exception as error:
            # An answer that was lost, or a run that died after it had asked: the object tells.
            if self.requests.code(error) not in GONE or not self.is_of(bucket, key, size, attempt):
                raise self.requests.told(error, f"s3://{bucket}/{key}", StorageError) from error

    def is_of(self, bucket: str, key: str, size: int, attempt: str) -> bool:
        """Whether an object is that of an attempt's completed upload."""
        found = self.head(bucket, key)
        return found is not None and found.size == size and (found.metadata or {}).get(ATTEMPT) == attempt

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        """Give an upload up, with what was sent; one that isn't open is no error."""
        try:
            self.requests.call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
        except Exception as error:
            if self.requests.code(error) not in GONE:
                raise self.requests.told(error, f"s3://{bucket}/{key}", StorageError) from error

    def uploads(self, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and id of the uploads that are open below `prefix`."""
        markers: dict[str, str] = {}
        while True:
            page = self.requests.ask(
                "list_multipart_uploads",
                f"s3://{bucket}/{prefix}",
                StorageError,
                Bucket=bucket,
                Prefix=prefix,
                **markers,
            )
            for entry in page.get("Uploads", ()):
                if entry["Key"].startswith(prefix):
                    yield entry["Key"], entry["UploadId"]
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _put(self, bucket: str, key: str, data: bytes, condition: Mapping[str, str]) -> str | None:
        """Write under a condition: the new object's etag, or None if the condition doesn't hold.

        After a refusal, which may be of a retry whose first try has won, or an answer that was lost, the
        object itself tells whether it is ours.
        """
        for tries_left in reversed(range(RACE_TRIES)):
            try:
                answer = self.requests.call("put_object", Bucket=bucket, Key=key, Body=data, **condition)
                return str(answer["ETag"]).strip('"')
            except Exception as error:
                code = self.requests.code(error)
                found = self.get(bucket, key)
                if found is not None and found[0] == data:
                    return found[1]
                if code in REFUSED or (code in GONE and "IfMatch" in condition):
                    return None
                if code not in RACED or not tries_left:
                    raise self.requests.told(error, f"s3://{bucket}/{key}", StorageError) from error
            wait(RACE_TRIES - tries_left)
        raise AssertionError


def s3_client() -> S3:
    """The service that the settings in force name; one client for each set of settings.

    What the environment says is part of them: a process may be told of another store.
    """
    named = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client(current_settings(), named)


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key; the key is taken as it is, nothing in it is unescaped."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


@lru_cache(maxsize=8)
def _client(settings: StorageSettings, environment: tuple[tuple[str, str], ...]) -> S3:
    return S3(Requests(settings))
