"""What is installed carries the contracts."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from schemas.contracts import contract_names

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_the_wheel_carries_every_contract(tmp_path: Path) -> None:
    # Built from a copy: setuptools leaves build/ and *.egg-info where it works.
    source = tmp_path / "source"
    tracked = ["setup.py", "pyproject.toml", "README.md", "schemas", "transforms", "pipeline"]
    source.mkdir()
    subprocess.run(["cp", "-r", *tracked, str(source)], cwd=ROOT, check=True)
    build = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=50)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"schemas/avro/{name}.avsc" for name in contract_names()} <= names
    assert not [name for name in names if name.startswith("tests/")]
