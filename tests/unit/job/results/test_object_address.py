"""Which outputs are addresses of an object store."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from joyedit.errors import UsageError
from joyedit.job.results.objects.address import address_of, check_address, folder_of, refuse_address


@pytest.mark.parametrize(
    ("output", "address"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("S3://bucket/a/", "s3://bucket/a"),
        ("memory://a", "memory://a"),
        ("gs://b//c", "gs://b/c"),
        ("s3://", "s3://"),
        ("out", None),
        ("a:/b", None),
        ("/s3:/bucket", None),
        ("file:///shared/out", None),
        ("local:///shared/out", None),
    ],
)
def test_the_address_of_an_output(output: str, address: str | None) -> None:
    assert address_of(Path(output)) == address


def test_a_file_address_is_a_folder() -> None:
    assert folder_of(Path("file:///shared/out")) == Path("/shared/out")
    assert folder_of(Path("local:///shared/out")) == Path("/shared/out")
    assert folder_of(Path("out")) == Path("out")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3://", "names no place"),
        ("memory://bucket/../other", "no . or .."),
        ("nosuch://bucket/a", "no package is known that reads and writes nosuch://"),
    ],
)
def test_an_address_that_cannot_work(address: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        check_address(address)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("address", "package"), [("s3://bucket/a", "s3fs"), ("gs://bucket/a", "gcsfs"), ("abfs://box/a", "adlfs")]
)
def test_a_missing_package_is_named_with_the_command(address: str, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(UsageError, match=f"pip install fsspec {package}"):
        check_address(address)


def test_what_takes_a_folder_only() -> None:
    refuse_address(Path("out"), "merge", "why")
    with pytest.raises(UsageError, match="s3://b/c: merge takes a folder"):
        refuse_address(Path("s3://b/c"), "merge", "why")
