"""What can go wrong, as a tree.

SmsReceiptsError
├── OperatorError          the command stops with exit code 2; its text names the cause and the fix
│   ├── CredentialsError   Alibaba refused the keys, or none were found
│   ├── QueueError         the queue does not exist, or these keys may not read it
│   ├── EndpointError      nobody answers at the address
│   ├── SendLogError       the send log cannot be read
│   ├── OutputError        the archive or the dataset cannot be written
│   ├── UnusableMessagesError  too many messages of a queue cannot be decoded
│   ├── MetricsPortError   nobody can listen at --metrics_port
│   ├── EngineError        no engine that can stream, or one that cannot do what it was asked
│   ├── AlreadyRunningError  another process works on the same dataset
│   └── LandingProcessError  a process that landed for this one was killed
├── TransientError         worth another try; never reaches the operator on its own
│   ├── UnreachableError   no answer came (mns/transport.py)
│   ├── ServiceFaultError  a service answered that it cannot do it now (mns/faults.py)
│   ├── NoAnswerError      no usable answer came from the SMS API (sms_api.py)
│   └── ThrottledError     the SMS API takes no more calls for now (sms_api.py)
└── LedgerError            the counts do not add up: a bug (ledger.py)
"""


class SmsReceiptsError(Exception):
    """Raised by this project on purpose; anything else is a bug."""


class OperatorError(SmsReceiptsError):
    """Raised when only the operator can help; the text is one sentence with cause and fix."""


class CredentialsError(OperatorError):
    """Raised when Alibaba refuses the account keys, or when none are configured."""


class QueueError(OperatorError):
    """Raised when the queue does not exist or may not be read with these keys."""


class EndpointError(OperatorError):
    """Raised when an endpoint cannot be reached."""


class SendLogError(OperatorError):
    """Raised when the send log cannot be read."""


class OutputError(OperatorError):
    """Raised when the archive or the dataset cannot be written."""


class UnusableMessagesError(OperatorError):
    """Raised when too many messages of a queue cannot be decoded; the failed bundle went back to it."""


class MetricsPortError(OperatorError):
    """Raised when the address for metrics cannot be listened at."""


class EngineError(OperatorError):
    """Raised when an engine cannot stream, or does not do what it was asked."""


class AlreadyRunningError(OperatorError):
    """Raised when another process already works on the same dataset."""


class LandingProcessError(OperatorError):
    """Raised when a process that landed for this one has ended without a word, or says none."""


class TransientError(SmsReceiptsError):
    """Raised when the same call may succeed a moment later."""
