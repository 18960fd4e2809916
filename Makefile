# make setup   everything a checkout needs, in .venv
# make demo    raw tables to a served model on real flights
# make test    what CI runs
# make bench   the races against peers, written to benchmarks/RESULTS.md
PYTHON3 ?= python3
PYTHON := .venv/bin/python
READY := .venv/.ready
CHROMIUM := chromium chromium-browser google-chrome

# One number for every library: a test must not behave differently on a larger machine. Threads
# that wait let others work: more of them run here than there are cores.
THREADS := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 MKL_NUM_THREADS=2 POLARS_MAX_THREADS=2
EVERY_COMMIT := not fault and not lab and not gpu
WITH_ENGINES := spark or ray or browser or e2e

.PHONY: setup java chromium postgres demo lint test test-faults bench clean

setup: $(READY) java

$(READY): pyproject.toml constraints.txt
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "setup: Python 3.11 or newer is needed, got `$(PYTHON3) --version`; install one and run: make setup PYTHON3=python3.11" >&2; exit 2; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON3) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "`id -u`" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq $(notdir $(PYTHON3))-venv; \
	  else echo "setup: Python's venv is needed; on Debian and Ubuntu: apt-get install -y $(notdir $(PYTHON3))-venv" >&2; exit 2; fi; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Java is not a Python package: installed when that needs no question, otherwise named.
java: $(READY)
	@$(PYTHON) -m cluster.java || { \
	  if [ "`id -u`" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && { apt-get install -y -qq openjdk-21-jre-headless 2>/dev/null \
	      || apt-get install -y -qq openjdk-17-jre-headless; } && $(PYTHON) -m cluster.java; \
	  else exit 2; fi; }

# Browser tests skip, and say so, where there is none.
chromium:
	@for name in $(CHROMIUM); do command -v $$name >/dev/null && exit 0; done; \
	  if [ "`id -u`" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq chromium >/dev/null || echo "chromium: not installed, browser tests skip" >&2; \
	  else echo "chromium: not found, browser tests skip; install it with: apt-get install -y chromium" >&2; fi

# Not installed by itself: the package starts a server of the system.
postgres:
	@for file in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb `command -v initdb`; do \
	  test -x "$$file" && exit 0; done; \
	  echo "postgres: not found, its tests skip; install it with: apt-get install -y postgresql" >&2

demo: setup
	$(PYTHON) -m examples.flights.fetch
	$(PYTHON) -m examples.flights.demo

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# Tests without engines share the cores, and so do Spark's and Ray's, each group one after another
# (tests/conftest.py); engines are not started when something has failed before.
test: setup chromium postgres lint
	$(THREADS) $(PYTHON) -m pytest -n 2 --dist worksteal -m "$(EVERY_COMMIT) and not ($(WITH_ENGINES))"
	$(THREADS) $(PYTHON) -m pytest -n 2 --dist loadgroup -m "$(EVERY_COMMIT) and ($(WITH_ENGINES))"

test-faults: setup
	$(THREADS) $(PYTHON) -m pytest -m fault

bench: setup
	$(PYTHON) -m benchmarks --write

clean:
	rm -rf build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache \
	  .import_linter_cache .hypothesis examples/*/out
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
