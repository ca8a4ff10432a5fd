"""Where Alibaba's documents are silent or disagree: what the emulator answers. Each is a flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EXPIRED_TOKEN_CODES: Final = (
    "AccessDenied",
    "InvalidAccessKeyId",
    "InvalidSecurityToken",
    "SecurityTokenExpired",
)
TIME_EXPIRED_STATUSES: Final = (400, 408)
DEAD_HANDLE_CODES: Final = ("MessageNotExist", "ReceiptHandleError")
WRONG_DIGEST_CODES: Final = ("InvalidDegist", "InvalidDigest")
RAM_DENIAL_CODES: Final = ("AccessDenied", "AccessDeniedByRamPolicy")


@dataclass(frozen=True)
class OpenQuestions:
    """One answer to each question; the defaults are the table of errors and what was observed.

    Attributes:
        expired_token_code: how an expired or wrong token is refused; no document says.
        time_expired_status: of TimeExpired: 408 by the table of errors (27501), 400 by the page
            about signatures (27487).
        dead_handle_code: how a handle that is no longer good is refused: ``ReceiptHandleError``
            (35138) or ``MessageNotExist`` (27477).
        wrong_digest_code: ``InvalidDigest`` (the service, Go) or ``InvalidDegist`` (27501, sic).
        ram_denial_code: what a token hears that asks for more than its queue:
            ``AccessDeniedByRamPolicy`` (observed) or ``AccessDenied`` (27501).
        allow_zero_visibility: whether ChangeMessageVisibility takes 0 for "visible at once";
            35142 begins at 1, the Python client lets 0 through.
        allow_token_attributes: whether a token may call GetQueueAttributes; no document says.
        check_content_type: whether a Content-Type that is no XML is refused; the code is in the Go
            client only, and no page insists on a value.
        zero_depths: whether the three counts of messages are always 0, as the documents of 2025
            announce.
        deleted_queue_secs: for how long the name of a deleted queue cannot be used again; the
            table of errors has QueueDeletedRecently and no time. 0: not at all.
        queue_qps: how many requests a queue takes per second, where each message of a batch send
            counts; 3000 historically, and newer documents call the limit soft. 0: no limit.
        details_of_2017: whether QuerySendDetails answers as the documents of 2017: TotalCount as
            a number, and TotalPage.
    """

    expired_token_code: str = "AccessDenied"  # noqa: S105 (an error code)
    time_expired_status: int = 408
    dead_handle_code: str = "ReceiptHandleError"
    wrong_digest_code: str = "InvalidDigest"
    ram_denial_code: str = "AccessDeniedByRamPolicy"
    allow_zero_visibility: bool = False
    allow_token_attributes: bool = False
    check_content_type: bool = False
    zero_depths: bool = False
    deleted_queue_secs: int = 0
    queue_qps: int = 0
    details_of_2017: bool = False
