"""npm's @alicloud/sms-sdk, unmodified, against the emulator."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import pytest

from emulator.clock import BEIJING
from tests.emulator.node import Node
from tests.emulator_process import EmulatorProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SCRIPT = """
const SMS = require('@alicloud/sms-sdk')
const [url, accessKeyId, secretAccessKey, prefix, day] = process.argv.slice(1)
const client = new SMS({
  accessKeyId, secretAccessKey,
  smsApiEndpoint: url, baseApiEndpoint: url, mnsVpc: {endpoint: url},
})
async function main() {
  const message = {
    PhoneNumbers: '13800000005', SignName: '星河商城', TemplateCode: 'SMS_154950901',
    TemplateParam: JSON.stringify({code: '123456'}), OutId: 'node',
  }
  const sent = await client.sendSMS(message)
  const posted = await client.sendSMS(message, {method: 'POST'})
  const kept = await client.receiveMsg(0, prefix, 2)
  const deleted = await client.receiveMsg(0, prefix, 2, true)
  const reply = await client.receiveMsg(1, prefix, 2, true)
  await client.receiveMsg(1, prefix, 2, true)
  const empty = await client.receiveMsg(1, prefix, 0).catch(error => error.name)
  const details = await client.queryDetail({
    PhoneNumber: '13800000005', SendDate: day, PageSize: '10', CurrentPage: '1',
  })
  const refused = await client.sendSMS({...message, PhoneNumbers: 'x'}).catch(error => error.code)
  console.log(JSON.stringify({
    sent, posted, kept: kept.body, deleted: deleted.body, reply: reply.body, empty, details, refused,
  }))
}
main().catch(error => { console.error(error); process.exit(1) })
"""


def body(message: dict[str, Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.b64decode(message["MessageBody"]))
    return decoded


def test_the_node_client_sends_receives_deletes_and_asks(
    node: Node, talkative: EmulatorProcess
) -> None:
    day = datetime.now(BEIJING).strftime("%Y%m%d")
    prefix = talkative.report_queue.removesuffix("SmsReport")
    told = node.run(SCRIPT, talkative.url, talkative.key_id, talkative.key_secret, prefix, day)
    assert told["sent"]["Code"] == told["posted"]["Code"] == "OK"
    biz_ids = [told["sent"]["BizId"], told["posted"]["BizId"]]
    assert [body(told["kept"])["biz_id"], body(told["deleted"])["biz_id"]] == biz_ids
    assert body(told["reply"])["phone_number"] == "13800000005"
    assert told["empty"] == "MNSMessageNotExistError"
    rows = told["details"]["SmsSendDetailDTOs"]["SmsSendDetailDTO"]
    assert [(row["SendStatus"], row["OutId"]) for row in rows] == [(3, "node"), (3, "node")]
    assert told["refused"] == "isv.MOBILE_NUMBER_ILLEGAL"
