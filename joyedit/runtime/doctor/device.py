"""The device that a run would take, why it would not take another one, and the kernels that run on it."""

from __future__ import annotations

import warnings

import torch

from joyedit.errors import DeviceError, first_line
from joyedit.job.run_config import RunConfig
from joyedit.models.config import DiTConfig
from joyedit.printable import gigabytes
from joyedit.runtime.doctor import nvidia
from joyedit.runtime.doctor.findings import Examination
from joyedit.runtime.joyimage.memory import available_bytes
from joyedit.runtime.joyimage.networks import DeviceChoice
from joyedit.runtime.tuning import fused_check
from joyedit.runtime.tuning.compile import worth_compiling
from joyedit.runtime.tuning.device import DTYPES, choose_device
from joyedit.runtime.tuning.processor import processor_name

FLASH_4 = (9, 0)
"""The least compute capability of the GPUs that FlashAttention 4 is for."""


def tell_device(report: Examination, config: RunConfig) -> torch.device | None:
    """The device of a run with this configuration; None if there is none."""
    cuda = torch.version.cuda
    build = f"built for CUDA {cuda}" if cuda else f"built for ROCm {torch.version.hip}" if torch.version.hip else ""
    found = nvidia.look()
    shown = ", ".join(found.gpus)
    driver = f"driver {found.driver}" if found.driver else "no driver"
    text = f"{shown}, {driver}" if found.gpus else "no NVIDIA GPU"
    report.tell("GPU", text, names=list(found.gpus), driver=found.driver)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    reason = "" if there else _reason([str(one.message) for one in said])
    text = f"{torch.__version__}, {build or 'without CUDA'}, {'sees' if there else 'sees no'} CUDA device"
    report.tell("torch", text, version=str(torch.__version__), cuda=cuda, hip=torch.version.hip, sees_cuda=there)
    if not there and config.device in ("auto", "cuda"):
        why = nvidia.why_unseen(found, cuda, reason)
        if why is not None:
            report.add("GPU", *why, stops=config.device == "cuda")
        elif config.device == "cuda":
            report.add("GPU", "--device cuda: no NVIDIA GPU is there", "use --device cpu", stops=True)
    has_mps = torch.backends.mps.is_available()
    if config.device == "auto" and not there and has_mps:
        remedy = "--device mps uses it; nobody has measured it yet, so auto does not take it"
        report.add("GPU", "an Apple GPU is there, and auto takes the CPU", remedy, stops=False)
    if config.device == "cuda" and not there:
        return None
    with report.part("device"):
        device = choose_device(config.device)
        _tell_one(report, device)
        return device
    return None


def _reason(said: list[str]) -> str:
    """Why CUDA does not start, in torch's words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            return first_line(error)
    return first_line(said[0]) if said else ""


def _tell_one(report: Examination, device: torch.device) -> None:
    """Name, memory and what is to be said of the device. CUDA's errors come from here if it does not answer."""
    if device.type == "cuda":
        _tell_cuda(report, device)
    elif device.type == "mps":
        free = available_bytes(device)
        name = processor_name() or "Apple GPU"
        report.tell("device", f"mps ({name}), {gigabytes(free)} available", device="mps", name=name, available=free)
        report.add(
            "device", "joyedit was never measured on an Apple GPU", "compare a picture with --device cpu", stops=False
        )
    else:
        threads = torch.get_num_threads()
        report.tell("device", f"cpu ({threads} threads)", device="cpu", threads=threads)


def _tell_cuda(report: Examination, device: torch.device) -> None:
    try:
        properties = torch.cuda.get_device_properties(device)
        free = available_bytes(device)
    except RuntimeError as error:
        raise DeviceError(
            f"the GPU does not answer ({first_line(error)})\nend other programs that hold it (nvidia-smi names them); a"
            " GPU that fell off needs a restart of the machine"
        ) from error
    count = torch.cuda.device_count()
    others = f"; GPU {device.index} of {count}, CUDA_VISIBLE_DEVICES chooses, --gpus all takes all" if count > 1 else ""
    capability = torch.cuda.get_device_capability(device)
    version = ".".join(map(str, capability))
    report.tell(
        "device",
        f"cuda ({properties.name}), {gigabytes(free)} of {gigabytes(properties.total_memory)} free, compute capability"
        f" {version}{others}",
        device="cuda", name=properties.name, available=free, total=properties.total_memory, capability=version,
        count=count,
    )  # fmt: skip
    if free < properties.total_memory // 2:
        taken = gigabytes(properties.total_memory - free)
        report.add("device", f"other programs take {taken} of its memory", "nvidia-smi names them", stops=False)
    if torch.version.hip is None and not _has_kernels(capability):
        found = nvidia.Nvidia(gpus=(properties.name,), driver=nvidia.look().driver, capability=float(version))
        report.add(
            "device",
            f"torch has no kernels for compute capability {version}, only for {', '.join(torch.cuda.get_arch_list())}",
            nvidia.install(found),
            stops=True,
        )
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        report.add("device", "it has no units for bf16", "edits take several times as long as they could", stops=False)


def _has_kernels(capability: tuple[int, int]) -> bool:
    """Whether torch was built for this GPU: for its generation and no newer member of it, or for what can be
    translated."""
    for one in torch.cuda.get_arch_list():
        kind, _, number = one.partition("_")
        digits = "".join(sign for sign in number if sign.isdigit())
        if not digits:
            return True
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def tell_kernels(report: Examination, config: RunConfig, wanted: DeviceChoice, dit: DiTConfig) -> None:
    """Attention, fused kernels and compiling, each with the reasons. On a GPU they are checked, and measured once."""
    with report.part("attention"):
        chosen = wanted.attention(config.attention, dit)
        text = chosen.note.removeprefix("attention: ") or chosen.name
        faults = "; ".join(f"{name}: {fault}" for name, fault in chosen.faults.items())
        text += f"; not {faults}" if faults else ""
        rates = {name: round(rate, 1) for name, rate in chosen.rates.items()}
        report.tell("attention", text, name=chosen.name, tflops=rates, faults=dict(chosen.faults))
        _advise_flash(report, wanted.device, chosen.faults.get("fa4", ""))
    with report.part("fused kernels", stops=False):
        fault = fused_check.fault(dit, wanted.device, DTYPES[wanted.dtype], wanted.precision)
        report.tell("fused kernels", f"off: {fault}" if fault else "on", on=not fault, fault=fault or None)
        if fault and wanted.device.type == "cuda":
            remedy = (
                "pip install triton" if "not installed" in fault else "install a C compiler (gcc) and Python's headers"
            )
            report.add("fused kernels", f"off: {fault}", f"{remedy}; edits run without them, more slowly", stops=False)
        compiles = worth_compiling(config, wanted.device, not fault)
        why = _why_not_compiled(wanted.device, fused=not fault)
        report.tell("compiling", "on" if compiles else f"off: {why}", on=compiles)


def _why_not_compiled(device: torch.device, *, fused: bool) -> str:
    if device.type != "cuda":
        return "auto compiles on CUDA alone"
    return "the fused kernels run" if fused else "auto compiles for long runs alone"


def _advise_flash(report: Examination, device: torch.device, fault: str) -> None:
    """FlashAttention 4, where it would be faster and is not installed."""
    is_able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= FLASH_4
    if is_able and fault.startswith("not installed") and (torch.version.cuda or "").startswith("13"):
        report.add(
            "attention",
            "FlashAttention 4 is not installed",
            'pip install "flash-attn-4[cu13]" makes edits faster',
            stops=False,
        )
