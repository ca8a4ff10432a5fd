"""The table of error codes (doc 27501): each code has its HTTP status."""

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
        "InvalidQueueName", "QueueNameLengthError", "QpsLimitExceeded",
    ),
    403: (
        "SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "AccessDeniedByRamPolicy",
    ),
    404: ("MessageNotExist", "QueueNotExist"),
    408: ("TimeExpired",),
    409: ("QueueAlreadyExist",),
    500: ("InternalError", "InternalServerError"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code"),
    [case("27501", code, status, code) for status, codes in TABLE.items() for code in codes],
)
def test_a_code_has_its_status(status: int, code: str) -> None:
    assert MnsError(code).status == status
