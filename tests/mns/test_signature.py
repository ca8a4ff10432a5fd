"""The signature equals the documents' and the vendor client's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mns.auth import Credentials
from mns.mns_client import MNSClient

from pipeline.mns.signature import authorization


@pytest.mark.parametrize(
    ("secret", "method", "target", "headers", "signature"),
    [
        (  # doc 175633
            "TestAccessSecret",
            "GET",
            "/MyQueue",
            {"date": "Thu, 09 Jul 2015 03:01:34 GMT", "x-mns-version": "2015-06-06"},
            "uwx3yeWoILzgmvesW0BQSgfM7b8=",
        ),
        (  # aliyun/mns-nodejs-sdk, test/client.test.js
            "ACCESS_KEY_SECRET",
            "PUT",
            "/",
            {
                "content-md5": "574683b3684e3cff610afa155cc2506d",
                "content-type": "text/xml",
                "date": "Tue, 11 Apr 2017 10:09:19 GMT",
                "x-mns-version": "2015-06-06",
            },
            "A9zehggaYHHujmuRMxGIDrhWwx8=",
        ),
    ],
)
def test_the_known_answers_come_out(
    secret: str, method: str, target: str, headers: dict[str, str], signature: str
) -> None:
    assert authorization("id", secret, method, target, headers) == f"MNS id:{signature}"


_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)


@given(
    secret=_text.filter(bool),
    method=st.sampled_from(["GET", "PUT", "DELETE"]),
    target=_text,
    headers=st.fixed_dictionaries(
        {"date": _text},
        optional={
            name: _text
            for name in ("content-md5", "content-type", "x-mns-version", "x-mns-user-request-id")
        },
    ),
)
def test_the_signature_is_the_vendor_clients(
    secret: str, method: str, target: str, headers: dict[str, str]
) -> None:
    vendor = MNSClient.get_signature(
        MNSClient.__new__(MNSClient), method, headers, target, Credentials("id", secret)
    )
    assert authorization("id", secret, method, target, headers) == vendor
