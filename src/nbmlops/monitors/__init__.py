"""Monitors: collect the calls of a deployment, hold them against the training, keep the report."""

from nbmlops.monitors.files import compare
from nbmlops.monitors.frames import compare_frames
from nbmlops.monitors.looking import KIND, between, latest, look_at_due, monitor, monitor_all

__all__ = [
    "KIND",
    "between",
    "compare",
    "compare_frames",
    "latest",
    "look_at_due",
    "monitor",
    "monitor_all",
]
