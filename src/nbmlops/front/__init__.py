"""The front: an endpoint's socket, schema checks, routes and call log, on the tool side.

``protocol`` turns bytes into records and errors into answers, ``upstream`` calls the workers,
``metrics`` counts, ``openapi`` and ``page`` describe, ``app`` joins them, and ``python -m
nbmlops.front`` runs it. See docs/architecture.md, Endpoints and deployments.
"""
