"""What MNS and the token service complain about, sorted by what helps: another try, or the operator.

Sorted by code, never by status: an empty queue and a missing queue are both 404, and throttling is
400 (docs 27500, 27501).
"""

from __future__ import annotations

from typing import Final

from pipeline.account import KEY_CODES, KEYS_FIX, PERMISSION_CODES
from pipeline.errors import (
    CredentialsError,
    EndpointError,
    OperatorError,
    QueueError,
    TransientError,
)
from pipeline.mns.transport import UnreachableError

NO_MESSAGE: Final = "MessageNotExist"
# A handle past its time: the documents disagree on which of the two says so (27477, 35138).
LOST_LEASE: Final = frozenset({"ReceiptHandleError", "MessageNotExist"})
_CLOCK_CODES: Final = ("TimeExpired", "InvalidTimeStamp", "InvalidDateHeader")
_PARAMETER_CODES: Final = ("isv.INVALID_PARAMETERS", "InvalidParameter", "InvalidMessageType")
_QUEUE_NAME_SHAPE: Final = "Alicom-Queue-<16-digit account id>-<message type>"
# How Python says it (Modules/_threadmodule.c); the exception has no type of its own.
_NO_THREAD: Final = "can't start new thread"


class ServiceFaultError(TransientError):
    """Raised when a service answered that it cannot do it now; its text is a sentence."""


class UnclearAnswerError(ServiceFaultError):
    """Raised when an answer does not tell whether the service acted on the request."""


def is_refusal(status: int, code: str) -> bool:
    """Answer whether a fresh token may help: no source names the code of an expired one."""
    return status == 403 or code == "InvalidAuthorizationHeader"  # noqa: PLR2004


def token_fault(endpoint: str, queue_name: str, code: str) -> OperatorError | ServiceFaultError:
    """Turn the token service's error code into what to raise."""
    if code.startswith(KEY_CODES):
        return CredentialsError(
            f"Alibaba Cloud refused the account keys at {endpoint} ({code}): {KEYS_FIX}"
        )
    if code.startswith(PERMISSION_CODES):
        return CredentialsError(
            f"These account keys may not ask for queue tokens at {endpoint} ({code}): give the RAM "
            "user the policies AliyunDysmsFullAccess and AliyunMNSFullAccess"
        )
    if code.startswith(_PARAMETER_CODES):
        return QueueError(
            f"The token service at {endpoint} gives no token for the queue {queue_name} ({code}): "
            f"check --mns_queues ({_QUEUE_NAME_SHAPE}, e.g. ending in -SmsReport or -SmsUp)"
        )
    return _passing_fault(f"The token service at {endpoint}", code)


def queue_refusal(
    endpoint: str, queue_name: str, forbidden: str, status: int, code: str
) -> OperatorError:
    """Say what it means when a queue refuses fresh tokens; ``forbidden``: "may not be read"."""
    if code.startswith(PERMISSION_CODES):
        return QueueError(
            f"The queue {queue_name} at {endpoint} {forbidden} with these keys ({code}): "
            "check the name in --mns_queues, the region in --mns_endpoint, and that the RAM "
            "user has the policy AliyunMNSFullAccess"
        )
    return CredentialsError(
        f"{endpoint} refused a fresh token for {queue_name} ({code or status}): {KEYS_FIX}, "
        "and check that --mns_endpoint and --dybaseapi_endpoint belong together"
    )


def queue_fault(
    endpoint: str, queue_name: str, status: int, code: str
) -> OperatorError | ServiceFaultError:
    """Turn an MNS error that is no refusal into what to raise."""
    if code == "QueueNotExist":
        return QueueError(
            f"The queue {queue_name} does not exist at {endpoint}: check --mns_queues "
            f"({_QUEUE_NAME_SHAPE}) and --mns_endpoint"
        )
    if not code:
        return UnclearAnswerError(
            f"MNS at {endpoint} answers with HTTP {status} and not as MNS does: check that "
            "--mns_endpoint is an MNS endpoint, and the network between"
        )
    return _passing_fault(f"MNS at {endpoint}", code)


def may_pass(refusal: OperatorError) -> ServiceFaultError:
    """Turn the refusal of a service that has worked before into a fault that is waited out."""
    return ServiceFaultError(str(refusal))


def unreadable(queue_name: str) -> ServiceFaultError:
    """Say that a receive brought a message that can be neither archived nor deleted."""
    return ServiceFaultError(
        f"A message of {queue_name} has no id, handle or time that can be read, and stays in its "
        "queue: ask Alibaba about it"
    )


def in_a_sentence(failure: Exception) -> Exception:
    """Turn what the machine lacks into the operator's sentence; anything else stays as it is."""
    if isinstance(failure, RuntimeError) and str(failure) == _NO_THREAD:
        return OperatorError(
            "This machine lets the process start no more threads: raise the limit (ulimit -u, or "
            "pids of the container), or run with fewer --landing_processes or --mns_fetchers"
        )
    return failure


def surrender(fault: TransientError) -> OperatorError:
    """Turn a fault that outlived every try at the start into the operator's sentence."""
    if isinstance(fault, UnreachableError):
        return EndpointError(
            f"{fault}: check --mns_endpoint and --dybaseapi_endpoint, and the network between"
        )
    return OperatorError(str(fault))


def _passing_fault(service: str, code: str) -> ServiceFaultError:
    if code.startswith(_CLOCK_CODES):
        return ServiceFaultError(
            f"{service} finds this machine's clock wrong by more than 15 minutes ({code}): set the "
            "clock right, e.g. with NTP"
        )
    what = f"the error {code}" if code else "an error whose code is of no known form"
    return ServiceFaultError(
        f"{service} answers with {what}: try again later, and if it stays, look the code "
        "up in Alibaba's documentation of MNS and Dybaseapi"
    )
