"""Jobs in a Kubernetes cluster: what would be sent is pure, sending it another module.

``manifests`` makes the documents of a job and ``restricted`` holds them against the rules;
``cluster`` speaks to the API server, ``troubles`` says what its objects mean, ``launcher`` does
both, and ``rbac`` is the role that it needs.
"""
