# make demo | make test | make bench | make notebooks | make docs | make soak | make audit
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock
DASHBOARD ?= 1
PORT ?= 8501
WORKERS ?= 3

.PHONY: demo test lint types unit notebooks-check notebooks docs bench soak audit lock clean

demo: $(VENV)/.demo
	@$(BIN)/toolkit demo
	@if [ "$(DASHBOARD)" != 0 ]; then $(BIN)/toolkit dashboard --port $(PORT); fi

test: lint types unit notebooks-check

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

# nbval, which the notebooks need, imports for three seconds in each worker.
unit: $(VENV)/.test $(VENV)/.npm $(VENV)/.agent
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist loadfile -p no:nbval -q

notebooks-check: $(VENV)/.test
	CI=1 TOOLKIT_OFFLINE=1 TOOLKIT_HOME=$$(mktemp -d) $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 60 --nbval-sanitize-with tests/nbval-sanitize.cfg -p no:cacheprovider -q notebooks

notebooks: $(VENV)/.test
	$(BIN)/python scripts/refresh_notebooks.py

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.bench
	$(VENV)/bench/bin/python -m benchmarks $(QUESTIONS)

soak: $(VENV)/.test
	$(BIN)/python -m benchmarks.soak

# Known weaknesses of what the lock pins; it asks the index for advisories, so it is no part of the tests.
audit: $(BIN)/uv
	$(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit --requirement requirements.lock --no-deps --disable-pip

lock: $(BIN)/uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate --upgrade pyproject.toml -o requirements.lock
	$(PYTHON) scripts/write_environment.py

# Servers and a front end to test against that come from npm; without it their tests are skipped, which CI forbids.
$(VENV)/.npm: tests/foreign/package-lock.json | $(VENV)/.test
	@if command -v npm >/dev/null; then \
		mkdir -p $(VENV)/npm && cp tests/foreign/package.json tests/foreign/package-lock.json $(VENV)/npm/ && \
		npm ci --prefix $(VENV)/npm --ignore-scripts --no-audit --no-fund --loglevel=error; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.demo: $(BIN)/uv pyproject.toml requirements.lock
	$(INSTALL) --editable '.[dashboard,notebook]'
	@touch $@

# The OTLP receiver that exporters are tested against needs an older opentelemetry-proto than the exporter does.
$(VENV)/.agent: $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/agent
	$(BIN)/uv pip install --quiet --python $(VENV)/agent/bin/python ddapm-test-agent==1.69.1
	@touch $@

# Peers that the toolkit is measured beside want other versions than its tests do.
$(VENV)/.bench: $(BIN)/uv pyproject.toml benchmarks/peers.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/bench
	$(BIN)/uv pip install --quiet --python $(VENV)/bench/bin/python --editable '.[dashboard,fast]' --requirement benchmarks/peers.txt
	@touch $@

$(VENV)/.test: $(BIN)/uv pyproject.toml requirements.lock
	$(INSTALL) --editable '.[test,docs]'
	@touch $@ $(VENV)/.demo
