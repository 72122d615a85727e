# make run: from a clean clone to results. make help lists the rest.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
IS_311 := import sys; sys.exit(sys.version_info[:2] != (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c '$(IS_311)' >/dev/null 2>&1 && { command -v $$p; break; }; done)

# Another source of torch's wheels, for instance a CUDA build's: make run TORCH_INDEX=ADDRESS
TORCH_INDEX ?=
TORCH_STAMP := $(VENV)/.torch$(shell printf %s '$(TORCH_INDEX)' | cksum | cut -d ' ' -f 1)

# make lock UPGRADE=--upgrade takes the newest versions; without it only what pyproject.toml asks for changes.
UPGRADE ?=
UV := uv==0.13.9

# They look at the locked packages from an environment of their own, so that theirs are not among them.
AUDIT := pip-audit==2.10.1
SBOM := cyclonedx-bom==7.5.0

# No dependency reports its use.
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export ORT_DISABLE_TELEMETRY := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0

# Prefect's database is the one that `make run` writes to, so that its pages show every run.
export PREFECT_HOME := $(CURDIR)/.prefect
# What these would keep in the home directory or in /var/tmp stays in the project.
export DVC_SITE_CACHE_DIR := $(CURDIR)/.dvc/tmp/site
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
# pip's cache too, but only where the home directory cannot be written: a new clone would download everything again.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
endif

.PHONY: help run setup bench-setup check test test-slow lock audit sbom tools
.DEFAULT_GOAL := help

help:
	@echo "make run        set up .venv where needed, then run the whole pipeline"
	@echo "make setup      only set up .venv (TORCH_INDEX=ADDRESS picks another torch build)"
	@echo "make test       check, then the fast tests"
	@echo "make test-slow  the slow tests"
	@echo "make check      ruff, mypy --strict, import directions"
	@echo "make bench-setup  the environment of others' packages that btcai bench measures beside ours"
	@echo "make lock       bring requirements.lock up to pyproject.toml"
	@echo "make audit      ask PyPI for known vulnerabilities of the locked packages (needs its network)"
	@echo "make sbom       write what is installed, with licences, to reports/sbom.json (CycloneDX)"

run: setup
	$(BIN)/btcai run

test: check
	$(BIN)/pytest -m "not slow"

test-slow: setup
	$(BIN)/pytest -m slow --durations=20

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict bench btcai flows
	$(BIN)/lint-imports

setup: $(VENV)/.locked $(TORCH_STAMP) $(VENV)/.project

# Each stamp is younger than what it was made from, so nothing is installed twice.
$(VENV)/.locked: requirements.lock | tools
	@$(BIN)/python -c '$(IS_311)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the locked packages into $(VENV): a few minutes, once"
	@$(PIP) install --quiet --require-hashes --no-deps -r requirements.lock
	@touch $@

$(TORCH_STAMP): constraints.txt $(VENV)/.locked
	@echo "Installing torch: the largest download, once"
	@$(if $(TORCH_INDEX),$(PIP) install --quiet --no-deps --force-reinstall torch -c constraints.txt --index-url $(TORCH_INDEX))
	@$(PIP) install --quiet torch -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@rm -f $(VENV)/.torch* && touch $@

$(VENV)/.project: pyproject.toml $(VENV)/.locked
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

bench-setup: .bench/.made

# Others' packages stay out of our environment: they pin, and patch, what we use too.
.bench/.made: bench/peers.txt | tools
	@$(PYTHON) -m venv --clear .bench
	@echo "Installing what btcai bench compares with into .bench: a minute, once"
	@.bench/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	@touch $@

lock: | tools
	@test -x .lock-tools/bin/uv || { $(PYTHON) -m venv .lock-tools && .lock-tools/bin/pip install --quiet "$(UV)"; }
	@.lock-tools/bin/uv pip compile --quiet --universal --python-version 3.11 --python $(PYTHON) --extra dev \
		--constraints constraints.txt --generate-hashes --no-annotate --no-emit-index-url --no-emit-package torch \
		--custom-compile-command "make lock" $(UPGRADE) --output-file requirements.lock pyproject.toml

# --strict: a package that could not be asked about is a failure, not a pass.
audit: .lock-tools/.audit
	.lock-tools/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r requirements.lock
	.lock-tools/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps -r constraints.txt

sbom: setup .lock-tools/.audit
	@mkdir -p reports
	.lock-tools/bin/cyclonedx-py environment --of JSON --output-reproducible --pyproject pyproject.toml \
		--output-file reports/sbom.json $(VENV)

.lock-tools/.audit: Makefile | tools
	@$(PYTHON) -m venv .lock-tools
	@.lock-tools/bin/pip --disable-pip-version-check install --quiet "$(AUDIT)" "$(SBOM)"
	@touch $@

tools:
	@ok=true; need() { echo "btcai: $$1" >&2; ok=false; }; \
	if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c '$(IS_311)' >/dev/null 2>&1; then \
		need "Python 3.11 is missing; install it: apt-get install python3.11 python3.11-venv, brew install python@3.11 or pyenv install 3.11"; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		need "Python's venv module is missing; install it: apt-get install python3.11-venv"; \
	fi; \
	if ! command -v git >/dev/null; then need "git is missing; install it: apt-get install git"; \
	elif ! git rev-parse --git-dir >/dev/null 2>&1; then \
		need "this folder is no git checkout and DVC needs one; clone the project, or run: git init"; \
	fi; \
	$$ok
