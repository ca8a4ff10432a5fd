"""Who may ask: the account's key, and the short-lived keys of QueryTokenForMnsQueue."""

from __future__ import annotations

import random
import string
from typing import NamedTuple

_ALPHANUMERIC = string.ascii_letters + string.digits


class QueueToken(NamedTuple):
    """A temporary key (STS) that may consume one queue until it expires."""

    key_id: str
    key_secret: str
    security_token: str
    queue_name: str
    created_at_ms: int
    expires_at_ms: int


class Keyring:
    """The keys that exist."""

    def __init__(self, key_id: str, key_secret: str, lifetime_ms: int, seed: str) -> None:
        """Start with the account's own key; tokens issued later live for ``lifetime_ms``."""
        self.key_id = key_id
        self._key_secret = key_secret
        self._lifetime_ms = lifetime_ms
        self._tokens: dict[str, QueueToken] = {}
        self._random = random.Random(f"{seed}/keys")  # noqa: S311 (an emulator's keys guard nothing)

    def issue(self, queue_name: str, now_ms: int) -> QueueToken:
        """Make a token for one queue."""
        token = QueueToken(
            key_id="STS." + self._text(24),
            key_secret=self._text(44),
            security_token="CAIS" + self._text(160) + "+/==",
            queue_name=queue_name,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + self._lifetime_ms,
        )
        # Expired tokens stay known for one more lifetime: the service says something else to
        # somebody with an old key than to a stranger.
        self._tokens = {
            key: known
            for key, known in self._tokens.items()
            if known.expires_at_ms + self._lifetime_ms > now_ms
        }
        self._tokens[token.key_id] = token
        return token

    def revoke(self, key_id: str, now_ms: int) -> None:
        """Let the token with that key id expire now."""
        self._tokens[key_id] = self._tokens[key_id]._replace(expires_at_ms=now_ms)

    def account_secret(self, key_id: str) -> str | None:
        """Return the account's secret when that is the account's key."""
        return self._key_secret if key_id == self.key_id else None

    def token(self, key_id: str) -> QueueToken | None:
        """Return the token with that key id, also when it has expired."""
        return self._tokens.get(key_id)

    def _text(self, length: int) -> str:
        return "".join(self._random.choices(_ALPHANUMERIC, k=length))
