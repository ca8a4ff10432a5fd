"""What is installed carries the contracts, and the fault plans."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from schemas.contracts import contract_names
from tests.schemas.publish import releases

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_the_wheel_carries_every_contract(tmp_path: Path) -> None:
    # Built from a copy: setuptools leaves build/ and *.egg-info where it works.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("schemas", "transforms", "pipeline", "emulator"):
        shutil.copytree(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=50)  # noqa: S603 (our own command)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"schemas/avro/{name}.avsc" for name in contract_names()} <= names
    # What the writers of messages may have encoded with.
    published = {f"schemas/published/{release.name}/send_log_entry.avsc" for release in releases()}
    assert published <= names
    plans = (ROOT / "emulator" / "fault_plans").glob("*.json")
    assert {f"emulator/fault_plans/{plan.name}" for plan in plans} <= names
    assert not [name for name in names if name.startswith("tests/")]
