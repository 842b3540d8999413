"""Monitors: collect the calls of a deployment, hold them against the training, keep the report."""

from nbmlops.monitors.asking import monitor, monitor_all
from nbmlops.monitors.due import look_at_due
from nbmlops.monitors.files import compare
from nbmlops.monitors.frames import compare_frames
from nbmlops.monitors.looking import KIND, between, latest

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
