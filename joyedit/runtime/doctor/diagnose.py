"""One examination from the first row to the last. torch is imported only where it can be."""

from __future__ import annotations

from joyedit.job.run_config import RunConfig
from joyedit.job.source.source_options import BUILT_IN
from joyedit.job.spec import Settings
from joyedit.runtime.doctor.checkpoint import open_networks, stands_for_published, tell_checkpoint
from joyedit.runtime.doctor.findings import Examination
from joyedit.runtime.doctor.host import tell_disks, tell_host
from joyedit.runtime.doctor.software import tell_software
from joyedit.runtime.model import is_fake, let_missing_operations_run_on_the_cpu, model_settings
from joyedit.weights.wanted import Wanted


def diagnose(config: RunConfig, own: Settings) -> Examination:
    """Look at everything that a run with this configuration needs. Loads no weights, and asks no network.

    `own` are settings of items that the user names. Writes nothing but measurements and compiled kernels, into the
    cache folder. Whatever is wrong is in the result.
    """
    report = Examination()
    wanted = Wanted.of(config)
    let_missing_operations_run_on_the_cpu(config.device)
    works = tell_software(report)
    tell_host(report)
    tell_disks(report, config.output)
    found = tell_checkpoint(report, config)
    if not works:
        return report
    from joyedit.runtime.doctor.device import tell_device
    from joyedit.runtime.doctor.outlook import tell_outlook

    device = tell_device(report, config)
    checkpoint = open_networks(report, config) if found is not None and found.is_complete else None
    if device is None or is_fake(config.model) or (checkpoint is None and not stands_for_published(wanted)):
        return report
    settings = own.over(BUILT_IN)
    with report.part("model"):
        settings = own.over(model_settings(wanted)).over(BUILT_IN)
    tell_outlook(report, config, checkpoint, settings, stops=wanted.is_enough)
    return report
