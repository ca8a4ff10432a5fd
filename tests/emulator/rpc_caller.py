"""A bare client of the RPC gateway, signature v1, dated by the machine's clock."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from emulator.signatures import rpc_signature, rpc_string_to_sign
from tests.emulator.mns_caller import Key, MnsCaller
from tests.emulator_process import EmulatorProcess


def call_rpc(emulator: EmulatorProcess, action: str, **given: str) -> tuple[int, dict[str, Any]]:
    """Call an action; return the status and the JSON answer."""
    parameters = {
        "AccessKeyId": emulator.key_id,
        "Action": action,
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": str(uuid4()),
        "SignatureVersion": "1.0",
        "Timestamp": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "Version": "2017-05-25",
        **given,
    }
    text = rpc_string_to_sign("GET", parameters.items())
    parameters["Signature"] = rpc_signature(emulator.key_secret, text)
    with closing(http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)) as connection:
        connection.request("GET", f"/?{urlencode(parameters)}")
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def query_token(
    emulator: EmulatorProcess, message_type: str = "SmsReport"
) -> tuple[int, dict[str, Any]]:
    """Ask for a queue token."""
    return call_rpc(emulator, "QueryTokenForMnsQueue", MessageType=message_type)


def with_token(emulator: EmulatorProcess) -> MnsCaller:
    """Return a caller with a fresh token for the queue of delivery reports."""
    token = query_token(emulator)[1]["MessageTokenDTO"]
    key = Key(token["AccessKeyId"], token["AccessKeySecret"], token["SecurityToken"])
    return MnsCaller(emulator, key)
