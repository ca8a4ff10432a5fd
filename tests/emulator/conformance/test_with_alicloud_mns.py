"""What npm's @alicloud/mns makes of the emulator.

One script asks everything, each test looks at one answer.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.conformance.sources import case, source
from tests.emulator.node import Node
from tests.emulator.rpc_caller import query_token
from tests.emulator_process import EmulatorProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SCRIPT = """
const MNS = require('@alicloud/mns')
const [endpoint, accessKeyId, accessKeySecret, tokenId, tokenSecret, securityToken, own, other] =
  process.argv.slice(1)
const client = new MNS('acc', {endpoint, accessKeyId, accessKeySecret})
const consumer = new MNS('acc', {
  endpoint, accessKeyId: tokenId, accessKeySecret: tokenSecret, securityToken,
})
const q = 'Test-Node'
const told = {}
const ask = (name, promise) => promise
  .then(answer => { told[name] = answer; return answer })
  .catch(error => { told[name] = error.name })
async function main() {
  await ask('create', client.createQueue(q, {VisibilityTimeout: 45}))
  await ask('create again', client.createQueue(q, {VisibilityTimeout: 45}))
  await ask('create otherwise', client.createQueue(q, {VisibilityTimeout: 46}))
  await ask('create badly', client.createQueue('-q'))
  await ask('create too long', client.createQueue('q'.repeat(121)))
  await ask('empty', client.receiveMessage(q))
  await ask('empty batch', client.batchReceiveMessage(q, 16))
  await ask('empty peek', client.peekMessage(q))
  await ask('wait too long', client.receiveMessage(q, 31))
  await ask('batch of 17', client.batchReceiveMessage(q, 17))
  await ask('batch of 0', client.batchReceiveMessage(q, 0))
  await ask('priority 17', client.sendMessage(q, {MessageBody: 'a', Priority: 17}))
  await ask('delay too long', client.sendMessage(q, {MessageBody: 'a', DelaySeconds: 604801}))
  await ask('too long', client.sendMessage(q, {MessageBody: 'x'.repeat(65537)}))
  await ask('send', client.sendMessage(q, {MessageBody: 'a', Priority: 1}))
  await ask('send later', client.sendMessage(q, {MessageBody: 'later', DelaySeconds: 60}))
  await ask('batch send', client.batchSendMessage(q, [{MessageBody: 'b'}, {MessageBody: 'c'}]))
  await ask('peek', client.peekMessage(q))
  await ask('batch peek', client.batchPeekMessage(q, 16))
  const first = await ask('receive', client.receiveMessage(q, 1))
  const rest = await ask('batch receive', client.batchReceiveMessage(q, 16, 1))
  const handle = first.body.ReceiptHandle
  const handles = rest.body.map(message => message.ReceiptHandle)
  const renewed = await ask('renew', client.changeMessageVisibility(q, handle, 100))
  await ask('renew again', client.changeMessageVisibility(q, handle, 100))
  await ask('renew for 0', client.changeMessageVisibility(q, renewed.body.ReceiptHandle, 0))
  await ask('delete', client.deleteMessage(q, renewed.body.ReceiptHandle))
  await ask('delete again', client.deleteMessage(q, renewed.body.ReceiptHandle))
  await ask('partial', client.batchDeleteMessage(q, ['8-x', handles[0], '8-y']))
  await ask('batch delete', client.batchDeleteMessage(q, [handles[1]]))
  await ask('delete 17', client.batchDeleteMessage(q, Array(17).fill('8-x')))
  await ask('set', client.setQueueAttributes(q, {PollingWaitSeconds: 3}))
  await ask('set too much', client.setQueueAttributes(q, {PollingWaitSeconds: 31}))
  await ask('get', client.getQueueAttributes(q))
  await ask('list', client.listQueue('', 10, q))
  await ask('list too many', client.listQueue('', 1001, q))
  await ask('drop', client.deleteQueue(q))
  await ask('gone', client.receiveMessage(q))
  await ask('set what is gone', client.setQueueAttributes(q, {PollingWaitSeconds: 3}))
  const wrong = new MNS('acc', {endpoint, accessKeyId, accessKeySecret: 'wrong'})
  await ask('wrong secret', wrong.receiveMessage(own))
  const nobody = new MNS('acc', {endpoint, accessKeyId: 'nobody', accessKeySecret})
  await ask('unknown key', nobody.receiveMessage(own))
  await ask('own queue', consumer.deleteMessage(own, '8-x'))
  await ask('other queue', consumer.receiveMessage(other))
  await ask('token sends', consumer.sendMessage(own, {MessageBody: 'a'}))
  await ask('token lists', consumer.listQueue())
  console.log(JSON.stringify(told))
}
main().catch(error => { console.error(error); process.exit(1) })
"""


@pytest.fixture(scope="module")
def told(node: Node, emulator: EmulatorProcess) -> dict[str, Any]:
    """What the client was told, by question: an answer, or the name of the error that it threw."""
    token = query_token(emulator)[1]["MessageTokenDTO"]
    keys = (token["AccessKeyId"], token["AccessKeySecret"], token["SecurityToken"])
    account = (emulator.url, emulator.key_id, emulator.key_secret)
    answers: dict[str, Any] = node.run(
        SCRIPT, *account, *keys, emulator.report_queue, emulator.reply_queue
    )
    return answers


@pytest.mark.parametrize(
    ("question", "error"),
    [
        case("protocol 1.7", "other attributes", "create otherwise", "QueueAlreadyExist"),
        case("protocol 1.7", "a hyphen first", "create badly", "InvalidQueueName"),
        case("protocol 1.7", "121 characters", "create too long", "QueueNameLengthError"),
        case("35136", "receive", "empty", "MessageNotExist"),
        case("35137", "batch receive", "empty batch", "MessageNotExist"),
        case("35140", "peek", "empty peek", "MessageNotExist"),
        case("protocol 1.7", "wait 31 s", "wait too long", "InvalidArgument"),
        case("protocol 1.7", "a batch of 17", "batch of 17", "InvalidArgument"),
        case("protocol 1.7", "a batch of 0", "batch of 0", "InvalidArgument"),
        case("35134", "priority 17", "priority 17", "InvalidArgument"),
        case("35134", "7 days and 1 s", "delay too long", "InvalidArgument"),
        case("128343", "64 KB and a byte", "too long", "InvalidArgument"),
        case("35142", "a dead handle", "renew again", "ReceiptHandleError"),
        case("35142", "0 s", "renew for 0", "InvalidArgument"),
        case("35138", "a dead handle of a delete", "delete again", "ReceiptHandleError"),
        case("35139", "17 handles", "delete 17", "InvalidArgument"),
        case("protocol 1.7", "an attribute of 31 s", "set too much", "InvalidArgument"),
        case("protocol 1.7", "a page of 1001", "list too many", "InvalidArgument"),
        case("35132", "receive from what is gone", "gone", "QueueNotExist"),
        case("protocol 1.7", "set what is gone", "set what is gone", "QueueNotExist"),
        case("27501", "a wrong secret", "wrong secret", "SignatureDoesNotMatch"),
        case("27501", "an unknown key", "unknown key", "InvalidAccessKeyId"),
        case("101641", "a token's own queue", "own queue", "ReceiptHandleError"),
        case("101641", "another queue", "other queue", "AccessDeniedByRamPolicy"),
        case("101641", "a token sends", "token sends", "AccessDeniedByRamPolicy"),
        case("protocol 2", "a token lists", "token lists", "AccessDeniedByRamPolicy"),
    ],
)
def test_the_client_throws_what_the_service_answers(
    told: dict[str, Any], question: str, error: str
) -> None:
    assert told[question] == f"MNS{error}Error"


@pytest.mark.parametrize(
    ("question", "status"),
    [
        case("protocol 1.7", "create", "create", 201),
        case("protocol 1.7", "create again", "create again", 204),
        case("35134", "send", "send", 201),
        case("35134", "send later", "send later", 201),
        case("35135", "batch send", "batch send", 201),
        case("35140", "peek", "peek", 200),
        case("35141", "batch peek", "batch peek", 200),
        case("35136", "receive", "receive", 200),
        case("35137", "batch receive", "batch receive", 200),
        case("35142", "renew", "renew", 200),
        case("35138", "delete", "delete", 204),
        case("35139", "batch delete", "batch delete", 204),
        case("SDK", "a partial batch delete is not thrown", "partial", 404),
        case("protocol 1.7", "set", "set", 204),
        case("protocol 1.7", "get", "get", 200),
        case("protocol 1.7", "list", "list", 200),
        case("35132", "drop", "drop", 204),
    ],
)
def test_the_client_returns_the_status(told: dict[str, Any], question: str, status: int) -> None:
    assert told[question]["code"] == status


@source("SDK")
def test_the_client_reads_what_it_is_told(told: dict[str, Any]) -> None:
    assert told["receive"]["body"]["MessageBody"] == "a"
    assert [message["MessageBody"] for message in told["batch receive"]["body"]] == ["b", "c"]
    assert [error["ReceiptHandle"] for error in told["partial"]["body"]] == ["8-x", "8-y"]
    assert "ReceiptHandle" in told["send later"]["body"]
    attributes = told["get"]["body"]
    assert (attributes["VisibilityTimeout"], attributes["PollingWaitSeconds"]) == ("45", "3")
    assert told["list"]["body"][0]["QueueURL"].endswith("/queues/Test-Node")
