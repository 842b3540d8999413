"""The tool side of a run, inside the job: steps through papermill, events out, result last.

Reads ``spec.json``, ``source.tar`` and ``files/`` from the inbox. Each notebook runs in a kernel of
the project's environment, in a checkout of the commit of its own. ``result.json`` is written last,
by rename.
"""
