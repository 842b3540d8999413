"""Alerts: what monitoring has found for long enough is told, once, until it is over.

``advancing`` is pure: windows in, what people are to be told out. ``keeping`` has it in the store
before anybody is told, ``telling`` puts it into words, ``webhooks`` alone speaks to other hosts.

    monitors.monitor -> take -> advance -> the store -> alerts.jsonl, webhooks
                                               ^
    tick ------------> deliver ----------------+
"""

from nbmlops.alerts.advancing import advance
from nbmlops.alerts.keeping import KIND, STATES, deliver, listed, state_of, take

__all__ = ["KIND", "STATES", "advance", "deliver", "listed", "state_of", "take"]
