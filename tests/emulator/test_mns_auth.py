"""Tokens over time, with the time as an argument."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from emulator.access import Keyring, QueueToken
from emulator.mns_auth import MnsAuthenticator, MnsRequest
from emulator.mns_errors import MnsError
from emulator.settings import EXPIRED_TOKEN_CODES
from emulator.signatures import mns_signature, mns_string_to_sign

NOW = 1_790_000_000_000
LIFETIME = 600_000


def signed(token: QueueToken, at_ms: int) -> MnsRequest:
    headers = {
        "date": formatdate(at_ms / 1000, usegmt=True),
        "x-mns-version": "2015-06-06",
        "security-token": token.security_token,
    }
    text = mns_string_to_sign("GET", "/queues/q/messages", headers)
    headers["authorization"] = f"MNS {token.key_id}:{mns_signature(token.key_secret, text)}"
    return MnsRequest("GET", "/queues/q/messages", "", headers, b"")


@pytest.mark.parametrize("code", EXPIRED_TOKEN_CODES)
def test_a_token_is_refused_from_its_expire_time_on(code: str) -> None:
    keyring = Keyring("id", "secret", LIFETIME, "seed")
    authenticator = MnsAuthenticator(keyring, code)
    token = keyring.issue("q", NOW)
    last = NOW + LIFETIME - 1
    assert authenticator.authenticate(signed(token, last), last).queue_name == "q"
    with pytest.raises(MnsError) as refused:
        authenticator.authenticate(signed(token, last + 1), last + 1)
    assert (refused.value.status, refused.value.code) == (403, code)


def test_a_new_token_leaves_the_old_one_alone() -> None:
    keyring = Keyring("id", "secret", LIFETIME, "seed")
    authenticator = MnsAuthenticator(keyring, "AccessDenied")
    old, _new = keyring.issue("q", NOW), keyring.issue("q", NOW + 1)
    assert authenticator.authenticate(signed(old, NOW + 2), NOW + 2).may_consume("q")


def test_the_clock_may_be_15_minutes_off_and_no_more() -> None:
    keyring = Keyring("id", "secret", LIFETIME, "seed")
    authenticator = MnsAuthenticator(keyring, "AccessDenied")
    token = keyring.issue("q", NOW)
    for skew_ms in (-900_000, 900_000):
        authenticator.authenticate(signed(token, NOW + skew_ms), NOW)
    for skew_ms in (-901_000, 901_000):
        with pytest.raises(MnsError, match="TimeExpired"):
            authenticator.authenticate(signed(token, NOW + skew_ms), NOW)
