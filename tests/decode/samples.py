"""Message bodies as the documents print them, and messages to put them in."""

import base64
import json
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from schemas.contracts import contract
from transforms.decode import DecodedMessages, decode_messages

ENQUEUED_AT = datetime(2026, 11, 1, 4, 0, 5, 678000, tzinfo=timezone.utc)
FAILED_AT = datetime(2026, 11, 1, 4, 1, 0, 999000, tzinfo=timezone.utc)

# 101641 and 218006.
MAINLAND: dict[str, Any] = {
    "phone_number": "13800001111",
    "success": True,
    "biz_id": "706715193751989145^0",
    "out_id": "order-1",
    "send_time": "2026-11-01 12:00:00",
    "report_time": "2026-11-01 12:00:03",
    "err_code": "DELIVERED",
    "err_msg": "用户接收成功",
    "sms_size": "1",
}

# 162962.
INTERNATIONAL: dict[str, Any] = {
    "To": "6581234567",
    "Status": "1",
    "MessageId": "123230165751989145",
    "SmsSize": "2",
    "SendDate": "Thu, 25 Nov 2021 10:27:00 +0800",
    "ReceiveDate": "Thu, 25 Nov 2021 10:27:05 +0800",
    "ErrorCode": "success",
    "ErrorDescription": "success",
}

# 106601, with the NumberDetail of 106598.
OLDER_INTERNATIONAL: dict[str, Any] = {
    "PhoneNumber": "6581234567",
    "SendStatus": "3",
    "BizId": "108170158^0",
    "ExternalId": "order-2",
    "SendDate": "2018-03-01 08:00:00",
    "ReceiveDate": "2018-03-01 08:00:09",
    "ErrorCode": "DELIVERED",
    "ErrorMessage": "success",
    "SmsQuantity": 1,
    "NumberDetail": {"Country": "Singapore", "Region": "", "Carrier": "X"},
}

# 197995.
GLOBE: dict[str, Any] = {
    "to": "6581234567",
    "status": "2",
    "message_id": "108170159^1",
    "send_date": "2026-11-01 12:00:00",
    "receive_date": "2026-11-01 12:00:04",
    "error_code": "EXPIRED",
    "error_description": "expired",
}

# 101847.
REPLY: dict[str, Any] = {
    "phone_number": "13800001111",
    "send_time": "2026-11-01 12:30:00",
    "content": "退订",
    "dest_code": "1065710012345",
    "sequence_id": "1234567890",
}


def json_text(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def body_of(value: object) -> bytes:
    """Write a body as it comes over MNS: base64 of JSON text."""
    return base64.b64encode(value if isinstance(value, bytes) else json_text(value))


def messages(bodies: Iterable[bytes], message_type: str = "SmsReport") -> pa.RecordBatch:
    return typed_messages((message_type, body) for body in bodies)


def typed_messages(typed: Iterable[tuple[str, bytes]]) -> pa.RecordBatch:
    rows = [
        {
            "message_id": f"M{number}",
            "queue_name": f"Alicom-Queue-1000000000000001-{message_type}",
            "message_type": message_type,
            "enqueued_at": ENQUEUED_AT,
            "dequeue_count": 1,
            "body": body,
        }
        for number, (message_type, body) in enumerate(typed)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=contract("mns_message").arrow)


def decode(*bodies: bytes, message_type: str = "SmsReport") -> DecodedMessages:
    return decode_messages(messages(bodies, message_type), FAILED_AT)


def beijing(text: str) -> datetime:
    """Read ``2026-11-01 12:00:00`` as Beijing time."""
    return datetime.fromisoformat(f"{text}+08:00").astimezone(timezone.utc)
