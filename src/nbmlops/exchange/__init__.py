"""The first program of a pod: brings the inbox, runs the job's own program, ships the outbox.

It knows nothing of notebooks or models; what it is to do stands in a :class:`~nbmlops.parcels.Plan`
in its environment. See :mod:`nbmlops.parcels` for what travels.
"""
