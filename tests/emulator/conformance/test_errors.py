"""The table of error codes (doc 27501): each code has its HTTP status, and the service's own text."""

from __future__ import annotations

import pytest

from emulator.mns_errors import MnsError
from tests.emulator.conformance.sources import case

TABLE = {
    400: (
        "InvalidArgument", "InvalidAuthorizationHeader", "MissingAuthorizationHeader",
        "InvalidDateHeader", "MissingDateHeader", "InvalidVersionHeader", "MissingVersionHeader",
        "InvalidDigest", "InvalidRequestURL", "InvalidQueryString", "MalformedXML",
        "MissingReceiptHandle", "MissingVisibilityTimeout", "ReceiptHandleError",
        "InvalidQueueName", "QueueNameLengthError", "QueueDeletedRecently", "QpsLimitExceeded",
        "InvalidDegist", "InvalidContentType",
    ),
    403: (
        "SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "AccessDeniedByRamPolicy",
    ),
    404: ("MessageNotExist", "QueueNotExist"),
    408: ("TimeExpired",),
    409: ("QueueAlreadyExist",),
    500: ("InternalError", "InternalServerError"),
}  # fmt: skip

SOURCES = {
    "AccessDeniedByRamPolicy": "observed",
    "InvalidDigest": "observed",
    # Known to the Go client only, which does not say a status.
    "InvalidContentType": "SDK",
    "InvalidVersionHeader": "SDK",
    "MissingVersionHeader": "SDK",
}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        case(SOURCES.get(code, "27501"), code, status, code)
        for status, codes in TABLE.items()
        for code in codes
    ],
)
def test_a_code_has_its_status(status: int, code: str) -> None:
    assert MnsError(code).status == status


@pytest.mark.parametrize(
    ("code", "text"),
    [
        case("observed", code, code, text)
        for code, text in {
            "AccessDeniedByRamPolicy": "The request is denied by ram policy.",
            "InvalidAccessKeyId": "The access Id you provided is not exist.",
            "MessageNotExist": "Message not exist.",
            "QpsLimitExceeded": "The qps limit of the queue is exceeded",
            "ReceiptHandleError": "The receipt handle you provide is not valid.",
            "InternalError": "Interal error.",
            "InternalServerError": "Interal error.",
        }.items()
    ],
)
def test_a_text_is_as_misspelt_as_the_services(code: str, text: str) -> None:
    assert MnsError(code).message == text
