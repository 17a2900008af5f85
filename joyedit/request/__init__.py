"""What a person asks for becomes a checked request. The command line and the Python interface both go through here.

Every fault of the options is told at once, before anything is read.
"""

from joyedit.request.build import Request, build_request, run_request
from joyedit.request.objects import shown_place
from joyedit.request.without_run import build_item, doctor_request, loaded_loras, loading_config

__all__ = [
    "Request",
    "build_item",
    "build_request",
    "doctor_request",
    "loaded_loras",
    "loading_config",
    "run_request",
    "shown_place",
]
