"""A bucket by way of `obstore`, and the only room that it is in: one request at a time.

Nothing is tried again here, and the client's own retries are off: a conditional write whose reply was
lost and that the client sends again is refused because of *itself*, and looks like a rival's. Only
`ObjectStorage` knows what may be repeated, and how to settle it.

An exception of the client carries the store's answer in its text alone: the HTTP status and the body
with the store's own error code. Both are read from there. A 404 counts as absence only with the code
that says that it is about the key: a missing bucket and a proxy answer 404 as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from headway.model.errors import InputError
from headway.storage.bucket import Found, Kind, Listed, Refusal

Store = S3Store | GCSStore | AzureStore
BULK = 1 << 20  # bytes
_PATIENCE = 10  # times as long may a request take that carries more than that: links are slow

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})")
_ONE_MISSING = re.compile(r"^Object at location .* not found: Bulk delete request failed")
_BEYOND = re.compile(  # said by the client, of an answer that is none of the range
    r"Wanted range starting at \d+, but object was only|CONTENT_RANGE header: \"bytes 0--1/0\""
)
_NO_KEY = {"NoSuchKey", "BlobNotFound"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_EXISTS = {"BlobAlreadyExists", "PreconditionFailed", "ConditionNotMet"}
_NO_SPACE = {"QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage"}
_CONNECTION = (  # a word in the client's trace, and what it means to people
    ("ConnectionRefused", "the connection was refused"),
    ("dns error", "its host's name could not be resolved"),
    ("TimedOut", "it did not answer in time"),
    ("ConnectionReset", "the connection was reset"),
    ("IncompleteMessage", "the connection was closed before an answer"),
    ("UnexpectedEof", "the connection was closed in the middle of an answer"),
)


class ObstoreBucket:
    """A `Bucket` by way of `obstore`.

    Args:
        store: made with retries off.
        plain: the same, for deleting objects one by one where the store takes no list of them.
        patient: the same, for requests that carry more than `BULK` bytes either way.
    """

    def __init__(
        self, store: Store, plain: Store | None = None, patient: Store | None = None
    ) -> None:
        self._store = store
        self._plain = plain or store
        self._patient = patient or store

    def put(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """See `Bucket.put`."""
        try:
            obstore.put(self._for(len(data)), path, data, mode="create", use_multipart=False)
        except (BaseError, OSError) as error:
            raise refusal_of(error) from None

    def get(self, path: str, start: int, end: int) -> Found:
        """See `Bucket.get`."""
        try:
            result = obstore.get(self._for(end - start), path, options={"range": (start, end)})
            data = memoryview(result.bytes())
            size = result.meta["size"]
        except (BaseError, OSError) as error:
            raise refusal_of(error) from None
        if len(data) != min(end, size) - start:
            raise Refusal(Kind.UNKNOWN, f"it sent {len(data)} bytes of the {end - start} asked for")
        return Found(data, size)

    def below(self, prefix: str) -> Listed:
        """See `Bucket.below`."""
        try:
            found = obstore.list_with_delimiter(self._store, prefix or None)
        except (BaseError, OSError) as error:
            raise refusal_of(error) from None
        # A store that has directories may list an empty one as an object below itself.
        objects = [item["path"] for item in found["objects"] if item["path"] != prefix]
        return Listed([*found["common_prefixes"]], objects)

    def all_below(self, prefix: str) -> list[tuple[str, int]]:
        """See `Bucket.all_below`."""
        try:
            pages: Iterator[Any] = iter(obstore.list(self._store, prefix or None, chunk_size=1000))
            return sorted((item["path"], item["size"]) for page in pages for item in page)
        except (BaseError, OSError) as error:
            raise refusal_of(error) from None

    def delete(self, paths: Sequence[str]) -> None:
        """See `Bucket.delete`. Where the store takes no list, or stops at one that is not there, they
        are removed one by one."""
        try:
            if len(paths) == 1:
                obstore.delete(self._plain, paths[0])
            else:
                obstore.delete(self._store, paths)
        except (BaseError, OSError) as error:
            refusal = refusal_of(error)
            missing = refusal.kind is Kind.MISSING or _ONE_MISSING.search(str(error)) is not None
            if len(paths) > 1 and (missing or refusal.kind is Kind.WRONG):
                for path in paths:
                    self.delete([path])
            elif not missing:
                raise refusal from None

    def _for(self, size: int) -> Store:
        return self._patient if size > BULK else self._store


def refusal_of(error: Exception) -> Refusal:
    """What an exception of the client says about the request."""
    text = str(error)
    status = _found(_STATUS, text)
    code = _found(_CODE, text)
    said = ": ".join(part for part in (code, _found(_MESSAGE, text)) if part)
    reason = f"it answered {status}" + (f" ({said.rstrip('.')})" if said else "")
    if _BEYOND.search(text):
        return Refusal(Kind.BEYOND, "the object is shorter")
    if not status:
        return Refusal(Kind.UNKNOWN, _without_answer(text))
    return Refusal(_kind(int(status), code), reason)


def _kind(status: int, code: str) -> Kind:
    if status == 404:
        if code in _NO_KEY:
            return Kind.MISSING
        return Kind.WRONG if code in _NO_BUCKET else Kind.UNKNOWN
    if status in {304, 412} or code in _EXISTS:
        return Kind.TAKEN
    if code in _NO_SPACE or status == 507:
        return Kind.FULL
    named = {401: Kind.DENIED, 403: Kind.DENIED, 409: Kind.CONTENDED, 416: Kind.BEYOND}
    if status in named:
        return named[status]
    wrong = status == 501 or (400 <= status < 500 and status not in {408, 425, 429})
    return Kind.WRONG if wrong else Kind.UNKNOWN


def _without_answer(text: str) -> str:
    for word, meaning in _CONNECTION:
        if word in text:
            return meaning
    return text.partition("\n")[0].strip() or "there was no answer"


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "" if match is None else match[1]


def open_bucket(scheme: str, bucket: str, prefix: str, *, timeout: float) -> ObstoreBucket:
    """A bucket by its URL's parts. Credentials, region and endpoint come from where the ecosystem keeps
    them: `AWS_*`, `AZURE_*`, `GOOGLE_*` in the environment, a profile, or the machine's own identity.

    Args:
        scheme: "s3", "gs" or "az".
        bucket: its name; a container's on Azure.
        prefix: below which the home is; "" for the bucket itself.
        timeout: seconds that one request may take, from its connection to the last byte of the answer;
            ten times as many if it carries more than `BULK` bytes.

    Raises:
        InputError: a profile is named, and cannot be used.
    """
    options = _options(prefix, timeout)
    patient = _options(prefix, _PATIENCE * timeout)
    if scheme == "s3":
        profile = os.environ.get("AWS_PROFILE")
        if profile and not os.environ.get("AWS_ACCESS_KEY_ID"):
            options["credential_provider"] = patient["credential_provider"] = _profile(profile)
        plain = S3Store(bucket, disable_bulk_delete=True, **options)
        return ObstoreBucket(S3Store(bucket, **options), plain, S3Store(bucket, **patient))
    if scheme == "gs":
        return ObstoreBucket(GCSStore(bucket, **options), patient=GCSStore(bucket, **patient))
    return ObstoreBucket(AzureStore(bucket, **options), patient=AzureStore(bucket, **patient))


def _options(prefix: str, timeout: float) -> dict[str, Any]:
    limit = timedelta(seconds=timeout)
    client = {
        "allow_http": True,  # for endpoints that say http:// themselves, and no others
        "timeout": limit,
        "connect_timeout": min(limit, timedelta(seconds=5)),
    }
    retries = {"max_retries": 0, "retry_timeout": limit}
    return {"prefix": prefix or None, "client_options": client, "retry_config": retries}


def _profile(name: str) -> Any:
    """The credentials of a profile. Reading its files, logging in, taking roles: `boto3` knows how."""
    try:
        from boto3 import Session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError as error:
        raise InputError(
            f"AWS_PROFILE names {name!r}, and reading profiles needs the package {error.name}: "
            "pip install boto3, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    try:
        return Boto3CredentialProvider(Session(profile_name=name))
    except Exception as error:  # boto3 has a class of its own for each reason
        raise InputError(
            f"the profile that AWS_PROFILE names, {name!r}, cannot be used: {error}. Look at it with "
            "`aws configure list`."
        ) from error
