"""npm's @alicloud/sms-sdk, unmodified, against the emulator."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from emulator.clock import BEIJING
from tests.emulator_process import EmulatorProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PACKAGE = "@alicloud/sms-sdk@1.1.6"
INSTALLED = Path(__file__).parents[2] / ".sms-receipts" / "node"

SCRIPT = """
const SMS = require('@alicloud/sms-sdk')
const [url, accessKeyId, secretAccessKey, prefix, day] = process.argv.slice(1)
const client = new SMS({
  accessKeyId, secretAccessKey,
  smsApiEndpoint: url, baseApiEndpoint: url, mnsVpc: {endpoint: url},
})
async function main() {
  const message = {
    PhoneNumbers: '13800000001', SignName: '星河商城', TemplateCode: 'SMS_154950901',
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
    PhoneNumber: '13800000001', SendDate: day, PageSize: '10', CurrentPage: '1',
  })
  const refused = await client.sendSMS({...message, PhoneNumbers: 'x'}).catch(error => error.code)
  console.log(JSON.stringify({
    sent, posted, kept: kept.body, deleted: deleted.body, reply: reply.body, empty, details, refused,
  }))
}
main().catch(error => { console.error(error); process.exit(1) })
"""


@pytest.fixture(scope="module")
def node() -> str:
    """Node with the client installed beside it (once, into a directory that git ignores)."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(
            f"Node.js with npm is not installed (nodejs.org, version 18 or later); "
            f"with it this test installs {PACKAGE} itself"
        )
    if not (INSTALLED / "node_modules" / "@alicloud" / "sms-sdk").is_dir():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        command += ["--prefix", str(INSTALLED)]
        installation = subprocess.run(  # noqa: S603 (npm, with a fixed package)
            command, cwd=INSTALLED, capture_output=True, text=True, timeout=200, check=False
        )
        if installation.returncode:
            pytest.skip(f"npm could not install {PACKAGE}: run `{' '.join(command)}` and see why")
    return node


def body(message: dict[str, Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.b64decode(message["MessageBody"]))
    return decoded


def test_the_node_client_sends_receives_deletes_and_asks(
    node: str, talkative: EmulatorProcess
) -> None:
    day = datetime.now(BEIJING).strftime("%Y%m%d")
    prefix = talkative.report_queue.removesuffix("SmsReport")
    arguments = [talkative.url, talkative.key_id, talkative.key_secret, prefix, day]
    run = subprocess.run(  # noqa: S603
        [node, "-e", SCRIPT, *arguments],
        cwd=INSTALLED,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["sent"]["Code"] == told["posted"]["Code"] == "OK"
    biz_ids = [told["sent"]["BizId"], told["posted"]["BizId"]]
    assert [body(told["kept"])["biz_id"], body(told["deleted"])["biz_id"]] == biz_ids
    assert body(told["reply"])["phone_number"] == "13800000001"
    assert told["empty"] == "MNSMessageNotExistError"
    rows = told["details"]["SmsSendDetailDTOs"]["SmsSendDetailDTO"]
    assert [(row["SendStatus"], row["OutId"]) for row in rows] == [(3, "node"), (3, "node")]
    assert told["refused"] == "isv.MOBILE_NUMBER_ILLEGAL"
