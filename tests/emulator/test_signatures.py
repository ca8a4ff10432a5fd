from emulator.signatures import (
    mns_signature,
    mns_string_to_sign,
    percent_encode,
    rpc_signature,
    rpc_string_to_sign,
)


def test_the_documents_example_of_an_mns_signature_is_met() -> None:
    headers = {"date": "Thu, 09 Jul 2015 03:01:34 GMT", "x-mns-version": "2015-06-06"}
    text = mns_string_to_sign("GET", "/MyQueue", headers)
    assert mns_signature("TestAccessSecret", text) == "uwx3yeWoILzgmvesW0BQSgfM7b8="


def test_the_node_clients_example_of_an_mns_signature_is_met() -> None:
    headers = {
        "content-md5": "574683b3684e3cff610afa155cc2506d",
        "content-type": "text/xml",
        "date": "Tue, 11 Apr 2017 10:09:19 GMT",
        "x-mns-version": "2015-06-06",
    }
    text = mns_string_to_sign("PUT", "/", headers)
    assert mns_signature("ACCESS_KEY_SECRET", text) == "A9zehggaYHHujmuRMxGIDrhWwx8="


def test_mns_headers_are_signed_in_order_and_others_are_not() -> None:
    headers = {
        "x-mns-version": "2015-06-06",
        "security-token": "token",
        "x-mns-prefix": "Alicom",
        "x-mns-date": "Thu, 09 Jul 2015 03:01:34 GMT",
    }
    assert mns_string_to_sign("GET", "/queues", headers) == (
        "GET\n\n\nThu, 09 Jul 2015 03:01:34 GMT\n"
        "x-mns-date:Thu, 09 Jul 2015 03:01:34 GMT\n"
        "x-mns-prefix:Alicom\n"
        "x-mns-version:2015-06-06\n"
        "/queues"
    )


def test_percent_encoding_leaves_only_the_unreserved_characters() -> None:
    assert percent_encode("a b*c~d^e/f+") == "a%20b%2Ac~d%5Ee%2Ff%2B"


def test_the_documents_example_of_an_rpc_signature_is_met() -> None:
    # The DescribeRegions example of Alibaba's "RPC signature" page (ECS, doc 25492).
    parameters = {
        "Timestamp": "2016-02-23T12:46:24Z",
        "Format": "XML",
        "AccessKeyId": "testid",
        "Action": "DescribeRegions",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
        "Version": "2014-05-26",
        "SignatureVersion": "1.0",
    }
    text = rpc_string_to_sign("GET", parameters.items())
    assert rpc_signature("testsecret", text) == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="
