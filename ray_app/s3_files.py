"""Files on S3 or a server that speaks its protocol: boto3 for writes, conditions and ETags, Arrow for reading."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import RetriesExceededError
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs
from pydantic import SecretStr

from ray_app.config import StorageConfig
from ray_app.errors import StorageError
from ray_app.s3_errors import PRECONDITION, code_of, explain, is_missing
from ray_app.uri import FileEntry, bucket_and_key, glob_pattern, literal_prefix

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

ATTEMPTS = 5
READ_TIMEOUT_S = 60.0
_CONFLICT_ATTEMPTS = 10


@dataclass(frozen=True)
class S3Files:
    """What `Storage` needs, for `s3://`. Methods raise `StorageError`.

    The first use of a bucket in a process asks for its listing with few, short attempts: a wrong name, key or endpoint
    is answered in seconds and in words, before patient clients, and Arrow with its terse errors, get to see it.
    """

    config: StorageConfig

    def filesystem(self, uri: str) -> tuple[fs.FileSystem, str]:
        """The Arrow filesystem and the path `bucket/key` inside it."""
        bucket, key = bucket_and_key(uri)
        return _filesystem(self.config, self._region(bucket, uri)), f"{bucket}/{key}".rstrip("/")

    def full(self, uri: str) -> str:
        """`uri` as the entries of objects below it begin."""
        return uri.rstrip("/")

    def read(self, uri: str) -> tuple[bytes, str]:
        """Content and ETag, from one request."""
        with self._request(uri) as (client, bucket, key):
            answer = client.get_object(Bucket=bucket, Key=key)
            return answer["Body"].read(), answer["ETag"]

    def write(self, uri: str, data: bytes) -> None:
        """Put, in parts when large; S3 shows an object only when it is complete."""
        with self._request(uri) as (client, bucket, key):
            client.upload_fileobj(BytesIO(data), bucket, key)

    def create(self, uri: str, data: bytes) -> bool:
        """Put with `If-None-Match: *`."""
        return self._put_if(uri, data, {"IfNoneMatch": "*"})

    def replace(self, uri: str, data: bytes, version: str) -> bool:
        """Put with `If-Match: version`."""
        return self._put_if(uri, data, {"IfMatch": version})

    def _put_if(self, uri: str, data: bytes, condition: dict[str, Any]) -> bool:
        with self._request(uri) as (client, bucket, key):
            for attempt in range(_CONFLICT_ATTEMPTS):
                try:
                    client.put_object(Bucket=bucket, Key=key, Body=data, **condition)
                except ClientError as error:
                    if code_of(error) in PRECONDITION or is_missing(error):
                        # Sent twice by a retry, our own first copy is what the second finds: then we did win.
                        retried = attempt > 0 or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                        return retried and self._holds(uri, data)
                    if code_of(error) != "ConditionalRequestConflict" or attempt == _CONFLICT_ATTEMPTS - 1:
                        raise
                else:
                    return True
        raise AssertionError("unreachable")

    def _holds(self, uri: str, data: bytes) -> bool:
        return self.is_file(uri) and self.read(uri)[0] == data

    def is_file(self, uri: str) -> bool:
        """Whether an object has exactly this name."""
        with self._request(uri) as (client, bucket, key):
            if not key or key.endswith("/"):
                return False
            try:
                client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if is_missing(error):
                    return False
                raise
            return True

    def find_folder(self, uri: str) -> list[FileEntry]:
        """Every object below a folder; none when there is no such folder."""
        return self._with_prefix(uri if uri.endswith("/") else f"{uri}/")

    def find_file(self, uri: str) -> FileEntry:
        """The entry of one object."""
        with self._request(uri) as (client, bucket, key):
            answer = client.head_object(Bucket=bucket, Key=key)
            return FileEntry(uri, answer["ContentLength"], answer["ETag"].strip('"'))

    def find_glob(self, uri: str) -> list[FileEntry]:
        """Objects that the pattern names, and objects below folders that it names."""
        matches = glob_pattern(uri).fullmatch
        return [entry for entry in self._with_prefix(literal_prefix(uri)) if matches(entry.uri)]

    def _with_prefix(self, uri: str) -> list[FileEntry]:
        with self._request(uri) as (client, bucket, prefix):
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [
                FileEntry(f"s3://{bucket}/{found['Key']}", found["Size"], found["ETag"].strip('"'))
                for page in pages
                for found in page.get("Contents", [])
                if not found["Key"].endswith("/")  # an empty object that some tools make to stand for a folder
            ]

    def delete_tree(self, uri: str) -> None:
        """Remove an object, and all below it as a folder; nothing happens when there is none."""
        name = bucket_and_key(uri)[1].rstrip("/")
        if not name:
            raise StorageError(f"{uri}: refused to delete a whole bucket")
        with self._request(uri) as (client, bucket, _):
            client.delete_object(Bucket=bucket, Key=name)
            # A page has at most 1000 keys, which is also the most that one deletion may name.
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{name}/"):
                names: list[ObjectIdentifierTypeDef] = [{"Key": found["Key"]} for found in page.get("Contents", [])]
                if names:
                    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": names, "Quiet": True})
                    for fault in answer.get("Errors", []):
                        raise StorageError(f"s3://{bucket}/{fault.get('Key')}: not deleted ({fault.get('Code')})")

    def upload(self, source: Path, uri: str) -> None:
        """Copy one file in, in parts when large."""
        with self._request(uri) as (client, bucket, key), source.open("rb") as file:
            client.upload_fileobj(file, bucket, key)

    def download(self, uri: str, target: Path) -> None:
        """Copy one file out; `target` appears when it is complete."""
        with self._request(uri) as (client, bucket, key):
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))

    @contextmanager
    def _request(self, uri: str) -> Iterator[tuple["S3Client", str, str]]:
        bucket, key = bucket_and_key(uri)
        self._region(bucket, uri)
        with self._errors(uri):
            yield _client(self.config, ATTEMPTS, READ_TIMEOUT_S), bucket, key

    def _region(self, bucket: str, uri: str) -> str:
        with self._errors(uri):
            return _reach(self.config, bucket)

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        try:
            yield
        # OSError: of the local file that is copied. ValueError: boto3 makes no client for this endpoint.
        except (ClientError, BotoCoreError, RetriesExceededError, OSError, ValueError) as error:
            raise StorageError(explain(error, uri, endpoint(self.config))) from error


def endpoint(config: StorageConfig) -> str | None:
    """The server's URL: from the configuration, else from the environment, else AWS (None)."""
    return config.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=8)  # clients and what they learn live as long as the process, and never travel in a pickle
def _client(config: StorageConfig, attempts: int, read_timeout_s: float) -> "S3Client":
    url = endpoint(config)
    # Servers other than AWS rarely know buckets as host names, and many refuse AWS's newer checksum trailers.
    other: dict[str, Any] = {
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    session = boto3.session.Session()
    return session.client(
        "s3",
        endpoint_url=url,
        region_name=_region_setting(config) or session.region_name or "us-east-1",
        aws_access_key_id=_plain(config.access_key_id),
        aws_secret_access_key=_plain(config.secret_access_key),
        config=BotoConfig(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=config.connect_timeout_s,
            read_timeout=read_timeout_s,
            max_pool_connections=32,
            **(other if url else {}),
        ),
    )


@lru_cache(maxsize=64)
def _reach(config: StorageConfig, bucket: str) -> str:
    """The bucket's region, once the server has answered for it; failures are not remembered."""
    client = _client(config, 2, config.connect_timeout_s)
    try:
        headers = client.list_objects_v2(Bucket=bucket, MaxKeys=1)["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:
        if code_of(error) != "AccessDenied":  # may still read or write by name
            raise
        headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    return headers.get("x-amz-bucket-region") or client.meta.region_name


@lru_cache(maxsize=8)
def _filesystem(config: StorageConfig, region: str) -> fs.S3FileSystem:
    url = urlsplit(endpoint(config) or "")
    return fs.S3FileSystem(
        access_key=_plain(config.access_key_id),
        secret_key=_plain(config.secret_access_key),
        region=region,
        scheme="http" if url.scheme == "http" else "https",
        endpoint_override=url.netloc or None,
        connect_timeout=config.connect_timeout_s,
        request_timeout=READ_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _region_setting(config: StorageConfig) -> str | None:
    return config.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
