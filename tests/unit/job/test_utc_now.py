from __future__ import annotations

from datetime import datetime, timedelta

from joyedit.job.clock import utc_now


def test_the_time_is_utc_in_iso_8601() -> None:
    for text, length in ((utc_now(), 25), (utc_now("milliseconds"), 29)):
        assert len(text) == length
        assert datetime.fromisoformat(text).utcoffset() == timedelta(0)
