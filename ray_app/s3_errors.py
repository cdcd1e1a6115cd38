"""What an S3 failure means to the person who runs the job, and which setting to look at."""

from boto3.exceptions import RetriesExceededError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

PRECONDITION = ("PreconditionFailed", "412")
_MISSING = ("NoSuchKey", "404", "NotFound")
_KEY = "storage.access_key_id (or AWS_ACCESS_KEY_ID)"
_SECRET = "storage.secret_access_key (or AWS_SECRET_ACCESS_KEY)"  # noqa: S105 (the name of a setting)
_ENDPOINT = "storage.endpoint (or AWS_ENDPOINT_URL)"
_REGION = "storage.region (or AWS_REGION)"
_REMEDIES = {
    "SignatureDoesNotMatch": f"the secret key is wrong; check {_SECRET}",
    "InvalidAccessKeyId": f"the access key is unknown there; check {_KEY}",
    "AccessDenied": f"this key may not do that; check {_KEY} and the bucket's policy",
    "403": f"refused; check {_KEY}, {_SECRET} and the bucket's policy",
    "ExpiredToken": "the credentials have expired; get new ones",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
    "PermanentRedirect": f"the bucket lies elsewhere; check {_REGION} and {_ENDPOINT}",
    "AuthorizationHeaderMalformed": f"the region is wrong; check {_REGION}",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "InvalidBucketName": "not a bucket name; check the bucket name",
}


def code_of(error: ClientError) -> str:
    """The S3 error code; requests without a body (HEAD) have only the HTTP status."""
    return error.response.get("Error", {}).get("Code", "")


def is_missing(error: ClientError) -> bool:
    """Whether the object (not the bucket) does not exist."""
    return code_of(error) in _MISSING


def explain(error: Exception, uri: str, endpoint: str | None) -> str:
    """One sentence: the URI, what happened with the error's code, the setting to look at."""
    server = endpoint or "AWS"
    if isinstance(error, ClientError):
        code = code_of(error)
        if code in _MISSING:
            return f"{uri}: does not exist ({code})"
        if code == "NoSuchBucket":
            bucket = uri.split("/")[2]
            return f"{uri}: no bucket {bucket!r} at {server} (NoSuchBucket); check the bucket name and {_ENDPOINT}"
        message = error.response.get("Error", {}).get("Message", "")
        return f"{uri}: {_REMEDIES.get(code, message)} ({code} from {server})"
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return f"{uri}: no usable credentials ({error}); set {_KEY} and {_SECRET}"
    if isinstance(error, ParamValidationError):
        return f"{uri}: not a usable name ({' '.join(str(error).split())}); check the bucket name"
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return f"{uri}: {server} cannot be reached ({type(error).__name__}: {error}); check {_ENDPOINT}"
    if isinstance(error, RetriesExceededError):
        return f"{uri}: broke off again and again ({error})"
    if isinstance(error, ValueError) and not isinstance(error, BotoCoreError):
        return f"{uri}: {server} is not the URL of a server ({error}); check {_ENDPOINT}"
    return f"{uri}: {type(error).__name__}: {error}"
