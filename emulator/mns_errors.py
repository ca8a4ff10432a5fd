"""Every refusal of the MNS emulator: code, HTTP status and text (docs 27500, 27501)."""

from __future__ import annotations

from typing import Final

# Where the documents give several spellings or none, the one that was observed stands here.
_ERRORS: Final[dict[str, tuple[int, str]]] = {
    "AccessDenied": (
        403,
        "The OwnerId that your Access Key Id associated to is forbidden for this operation.",
    ),
    "AccessDeniedByRamPolicy": (403, "The request is denied by ram policy."),
    "InternalError": (500, "Interal error."),
    "InternalServerError": (500, "Interal error."),
    "InvalidAccessKeyId": (403, "The access Id you provided is not exist."),
    "InvalidArgument": (400, "The value of {0} is not valid."),
    "InvalidAuthorizationHeader": (400, "The Authorization header format is invalid."),
    # Known to the Go client; in no table, and so its status is a guess (protocol 1.10).
    "InvalidContentType": (400, "The Content-Type header is not supported."),
    "InvalidDateHeader": (400, "The Date header format is invalid."),
    # As doc 27501 spells it.
    "InvalidDegist": (400, "The Content-MD5 you specified is invalid."),
    "InvalidDigest": (400, "The Content-MD5 you specified is invalid."),
    "InvalidQueryString": (400, "Http request URL contains invalid querystring item {0}."),
    "InvalidQueueName": (400, "The queue name you provided is invalid."),
    "InvalidRequestURL": (400, "The HTTP request URL or method is invalid."),
    "InvalidSecurityToken": (403, "The security token you provided is invalid."),
    "InvalidVersionHeader": (400, "The x-mns-version header is not supported."),
    "MalformedXML": (400, "The XML you provided is not well-formed."),
    "MessageNotExist": (404, "Message not exist."),
    "MissingAuthorizationHeader": (400, "The Authorization header is required."),
    "MissingDateHeader": (400, "The Date header is required."),
    "MissingReceiptHandle": (400, "The receipt handle is required."),
    "MissingVersionHeader": (400, "The x-mns-version header is required."),
    "MissingVisibilityTimeout": (400, "The visibility timeout is required."),
    "QpsLimitExceeded": (400, "The qps limit of the queue is exceeded"),
    "QueueAlreadyExist": (409, "The queue you want to create already exists."),
    "QueueDeletedRecently": (400, "The queue you want to create was deleted recently."),
    "QueueNameLengthError": (400, "The queue name must have 1 to 120 characters."),
    "QueueNotExist": (404, "The queue name you provided is not exist."),
    "ReceiptHandleError": (400, "The receipt handle you provide is not valid."),
    "SecurityTokenExpired": (403, "The security token you provided has expired."),
    # In no table of MNS: what an Alibaba service answers while it is down.
    "ServiceUnavailable": (503, "The request has failed due to a temporary failure of the server."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided.",
    ),
    "TimeExpired": (408, "The http request you sent is expired."),
}


class MnsError(Exception):
    """Raised to refuse a request; carries what the Error document says."""

    def __init__(self, code: str, subject: str = "", status: int | None = None) -> None:
        """Refuse with ``code``.

        Args:
            code: the code as the documents print it.
            subject: what the codes that mention an argument or element mention.
            status: the HTTP status, where it is not the table's.
        """
        super().__init__(code)
        self.code = code
        usual_status, text = _ERRORS[code]
        self.status = usual_status if status is None else status
        self.message = text.format(subject)
