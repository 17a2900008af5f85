"""Addresses of object stores: which outputs are one, and in what form joyedit keeps them.

An output comes as a `Path`, which makes one slash of two: `s3:/bucket/prefix` stands for `s3://bucket/prefix`.
`file:` and `local:` name folders of this machine, and become plain paths.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from joyedit.errors import UsageError
from joyedit.printable import printable

_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):(?:/+(?P<rest>.*))?", re.DOTALL | re.IGNORECASE)
_FOLDERS = frozenset({"file", "local"})
PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    "oci": "ocifs", "oss": "ossfs", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
"""What pip installs for an address of this kind."""


def address_of(output: str | os.PathLike[str]) -> str | None:
    """The address of an object store, without a slash at its end; None for a folder of this machine."""
    found = _ADDRESS.fullmatch(os.fspath(output))
    if found is None or found["scheme"].lower() in _FOLDERS:
        return None
    return f"{found['scheme'].lower()}://{(found['rest'] or '').strip('/')}"


def folder_of(output: Path) -> Path:
    """The same output, as a plain path where it is `file:///folder` or `local:///folder`."""
    found = _ADDRESS.fullmatch(os.fspath(output))
    if found is None or found["scheme"].lower() not in _FOLDERS:
        return output
    return Path("/" + (found["rest"] or ""))


def check_address(address: str) -> None:
    """Raises UsageError where the address names no place, or where no installed package reads and writes it."""
    scheme, _, rest = address.partition("://")
    name = printable(address)
    if not rest:
        raise UsageError(f"{name}: this address names no place (write {scheme}://bucket/prefix)")
    if any(part in ("", ".", "..") for part in rest.split("/")):
        raise UsageError(f"{name}: an address has no empty parts, and no . or .. between its slashes")
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{name}: an object store needs fsspec: {_install(scheme)}") from error
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise UsageError(f"{name}: {scheme}:// needs a package that is not installed: {_install(scheme)}") from error
    except ValueError as error:
        raise UsageError(f"{name}: no package is known that reads and writes {scheme}:// ({error})") from error


def refuse_address(output: str | os.PathLike[str], what: str, remedy: str, *, taken: str = "a folder") -> None:
    """Raises UsageError for an address of an object store, where `what` takes only what `taken` says."""
    address = address_of(output)
    if address is not None:
        raise UsageError(f"{printable(address)}: {what} takes {taken}, and no address of an object store ({remedy})")


def _install(scheme: str) -> str:
    packages = ["fsspec", PACKAGES[scheme]] if scheme in PACKAGES else ["fsspec"]
    return f"pip install {' '.join(packages)}"
