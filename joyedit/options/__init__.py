"""Every option of joyedit, spelled once: name, type, default, limits, and what the help says.

The command line makes its flags from these classes (`cli/options.py`), the Python interface takes the same names
as keywords, and `request` turns them into a checked request. Nothing heavy is imported here.
"""

from joyedit.options.bench import BenchOptions
from joyedit.options.doctor import DoctorOptions
from joyedit.options.option import Option, fault_of_text, faults_of, names_of, option, option_of, same_as
from joyedit.options.run import DeviceName, DtypeName, JsonName, RunOptions, ScheduleWish

__all__ = [
    "BenchOptions",
    "DeviceName",
    "DoctorOptions",
    "DtypeName",
    "JsonName",
    "Option",
    "RunOptions",
    "ScheduleWish",
    "fault_of_text",
    "faults_of",
    "names_of",
    "option",
    "option_of",
    "same_as",
]
