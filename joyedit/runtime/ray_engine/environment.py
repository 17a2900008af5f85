"""The variables of the driver that count in its processes on other machines, too.

They go with the work, and not as Ray's `runtime_env`: Ray would start every process anew for them, and keep them in
plain text for everybody. No token is among them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_NAMES = ("JOYEDIT_", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "HF_HOME", "TRITON_INTERPRET")
_OF_STORES = frozenset(
    {
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "FSSPEC_S3_ENDPOINT_URL",
        "AZURE_STORAGE_ACCOUNT_NAME",
        "GOOGLE_CLOUD_PROJECT",
    }
)
"""Where an object store is, and no key to it."""


def own() -> dict[str, str]:
    """Those of this process."""
    return {name: value for name, value in os.environ.items() if name.startswith(_NAMES) or name in _OF_STORES}


def take(variables: Mapping[str, str]) -> None:
    """Let them hold in this process, before it loads anything heavy."""
    os.environ.update(variables)
