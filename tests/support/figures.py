"""How much the tests try, and what the durability suite tried and survived."""

from __future__ import annotations

import os
from collections import Counter

SOAK = max(1, int(os.environ.get("JOYEDIT_SOAK", "1")))
"""How many times as much is tried: `make soak` sets 10."""

EXHAUSTIVE = SOAK > 1
"""Whether every member of a long series is tried, where `make test` takes a sample by a fixed rule."""

FIGURES: Counter[str] = Counter()
"""What was tried and survived; printed at the end."""
