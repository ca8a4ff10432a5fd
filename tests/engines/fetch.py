"""Fetch the engines that the tests run, once for each version, or skip with the command that is missing."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apache_beam
import pytest

POM: Final = Path(__file__).parent / "flink" / "pom.xml"
# The cluster has Beam on its class path. The job server would upload its own with every job, 157 MB and half
# a minute, but for what is below such a directory (beam-sdks-java-core 2.70, PipelineResources.isStageable).
_NOT_STAGED: Final = "gradle/wrapper"
FETCH_SECS: Final = 400.0
# What Maven and Go say when nobody answers; whatever else goes wrong is ours.
_UNREACHABLE: Final = re.compile(
    "unknown host|name or service not known|no such host|could not transfer|connect(ion)? (refused|timed out)"
    "|network is unreachable|i/o timeout|timeout exceeded",
    re.IGNORECASE,
)


def prism() -> Path:
    """Beam's Prism at the version of the SDK, built with Go."""
    version = f"v{apache_beam.__version__}"
    home = _cache() / f"prism-{version}"
    if not (home / "prism").exists():
        _require("go", "install Go (https://go.dev/doc/install, or: apt-get install golang)")
        with _made_at(home) as fresh:
            package = f"github.com/apache/beam/sdks/v2/go/cmd/prism@{version}"
            _run(["go", "install", package], {"GOBIN": str(fresh)})
    return home / "prism"


def flink() -> Path:
    """Directory of the jars of ``flink/pom.xml``: a Flink cluster, and Beam's job server for it."""
    _require("java", "install a JDK, 17 or later (apt-get install openjdk-17-jdk-headless)")
    home = _cache() / f"flink-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if not home.exists():
        _require("mvn", "install Maven (apt-get install maven)")
        with _made_at(home) as fresh:
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime"]
            _run(
                [
                    "mvn",
                    "-q",
                    "-B",
                    "-f",
                    str(POM),
                    *goal,
                    f"-DoutputDirectory={fresh / _NOT_STAGED}",
                ],
                {},
            )
    return home / _NOT_STAGED


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sms-receipts" / "engines"


def _require(program: str, remedy: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}: {remedy}")


@contextmanager
def _made_at(home: Path) -> Iterator[Path]:
    """A directory that is there only when it is complete, whoever else makes it at the same time."""
    home.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        yield fresh
        if not home.exists():
            fresh.rename(home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(  # noqa: S603 (our own command)
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=FETCH_SECS,
        check=False,
    )
    if done.returncode:
        report = pytest.skip if _UNREACHABLE.search(done.stdout) else pytest.fail
        report(f"{' '.join(command)} failed: {done.stdout[-2000:]}")
