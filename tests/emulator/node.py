"""Node.js with Alibaba's clients beside it (installed once, into a directory that git ignores)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# It brings @alicloud/mns with it.
PACKAGE = "@alicloud/sms-sdk@1.1.6"
INSTALLED = Path(__file__).parents[2] / ".sms-receipts" / "node"


class Node:
    """Runs scripts that print one JSON document."""

    def __init__(self) -> None:
        """Install the clients if need be; skips the test where that cannot be done."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            pytest.skip(
                f"Node.js with npm is not installed (nodejs.org, version 18 or later); "
                f"with it this test installs {PACKAGE} itself"
            )
        self._node = node
        if not (INSTALLED / "node_modules" / "@alicloud" / "sms-sdk").is_dir():
            INSTALLED.mkdir(parents=True, exist_ok=True)
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
            command += ["--prefix", str(INSTALLED)]
            installation = subprocess.run(  # noqa: S603 (npm, with a fixed package)
                command, cwd=INSTALLED, capture_output=True, text=True, timeout=200, check=False
            )
            if installation.returncode:
                pytest.skip(
                    f"npm could not install {PACKAGE}: run `{' '.join(command)}` and see why"
                )

    def run(self, script: str, *arguments: str) -> Any:
        """Run a script; its arguments are ``process.argv`` from place 1 on."""
        run = subprocess.run(  # noqa: S603 (our own script)
            [self._node, "-e", script, *arguments],
            cwd=INSTALLED,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)
