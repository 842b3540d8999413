# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
DEMO_VENV := build/demo-venv
# Libraries are imported in every job; without their bytecode each import takes seconds.
unexport PYTHONDONTWRITEBYTECODE

SOURCES := pyproject.toml labextension/package.json labextension/package-lock.json \
  $(wildcard labextension/src/*.ts labextension/src/*/*.ts labextension/src/*.tsx labextension/src/*/*.tsx labextension/style/* labextension/schema/*)

.PHONY: demo test test-fast test-system test-cluster cluster-image bench golden clean

demo: $(DEMO_VENV)/installed
	$(DEMO_VENV)/bin/python scripts/demo.py

test: $(VENV)/installed
	$(VENV)/bin/python scripts/check.py

test-fast: $(VENV)/installed
	$(VENV)/bin/python scripts/check.py --fast

# Debian packages that the tests can use; nothing else ever installs system packages.
test-system:
	sh scripts/test_system.sh

# On a real cluster, which five variables name: see docs/kubernetes.md. Fails when one is missing.
test-cluster: $(VENV)/installed
	NBMLOPS_TEST_CLUSTER=1 $(VENV)/bin/python -m pytest tests -m cluster -q -rs

# The image that test-cluster runs: its reference by digest is the last line.
cluster-image: $(VENV)/installed
	$(VENV)/bin/python scripts/cluster_image.py $(REGISTRY)

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --editable '.[lab,test]'
	touch $@

# The demo has what `pip install 'nbmlops[lab]'` gives, from these very sources.
$(DEMO_VENV)/installed: $(SOURCES) $(shell find src -name '*.py' -o -name '*.js' -o -name '*.css' -o -name '*.ipynb' -o -name '*.toml')
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(DEMO_VENV)/bin/uv pip install --quiet --python $(DEMO_VENV)/bin/python --reinstall-package nbmlops '.[lab]'
	touch $@

# Ratios against peers and floors; nothing is timed in the tests.
bench: $(VENV)/installed
	failed=0; for script in benchmarks/*_against_*.py benchmarks/trace_in_ten_million.py; do $(VENV)/bin/python $$script || failed=1; done; exit $$failed

golden: $(VENV)/installed
	$(VENV)/bin/python -m pytest tests --renew-golden -q

clean:
	rm -rf build dist $(VENV) src/nbmlops/labextension labextension/lib labextension/node_modules
