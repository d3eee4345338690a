# `make` prints this help. Every target sets up .venv by itself, so each works on a fresh clone.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SDK := $(VENV)/.sdk-ready
BENCH := $(VENV)/.bench-ready
RAY := $(VENV)/.ray-ready
DOCS := $(VENV)/.docs-ready

.PHONY: help run test check schema docs docs-serve screenshots cron format clean bench bench-local torture torture-simulation torture-kills \
	torture-prefixes torture-disks torture-interrupts torture-batch torture-local torture-mutations shards ray remote

help:  ## Print this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("runner needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(SDK): $(READY)
	@echo "adding RunPod's own SDK, what reads tables and what makes the docs, for the tests (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,sdk,frames,docs]'
	@touch $@

$(RAY): $(READY)
	@echo "adding Ray (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ray]'
	@touch $@

$(BENCH): $(READY)
	@echo "adding what the benchmarks compare with (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,sdk,fast]'
	@touch $@

$(DOCS): $(READY)
	@echo "adding what makes the site of the docs (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@touch $@

run: $(READY)  ## Run jobs/hello.yaml on the embedded local endpoint
	@$(BIN)/runner run jobs/hello.yaml

# Most tests wait for processes of their own, so two files at a time take half the time.
test: $(SDK)  ## Run the test suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile

torture: $(SDK)  ## Try every fault, print the table, write docs/reliability.md: under 30 minutes
	@$(BIN)/python -m torture $(ARGS)

torture-simulation: $(SDK)  ## Live thousands of seeds on virtual time: ARGS="--seeds 5000"
	@$(BIN)/python -m torture.simulation $(ARGS)

torture-kills: $(SDK)  ## Kill real processes at each step and at random, and break the service: ARGS="--list"
	@$(BIN)/python -m torture.kills $(ARGS)

torture-prefixes: $(SDK)  ## Cut the power at every moment of a recorded batch
	@$(BIN)/python -m torture.prefixes $(ARGS)

torture-disks: $(SDK)  ## Let the disk fail under real processes: ARGS="--only EIO"
	@$(BIN)/python -m torture.disks $(ARGS)

torture-interrupts: $(SDK)  ## Signals, starts at once, memory, sleep, clocks, and 200 jobs in flight
	@$(BIN)/python -m torture.interrupts $(ARGS)
	@$(BIN)/python -m torture.load

torture-batch: $(SDK)  ## Kill a job in mode batch at every step of its drafts: ARGS="--runs 1200"
	@$(BIN)/python -m torture.batches $(ARGS)

torture-local: $(SDK)  ## Kill workers of the local endpoint at random: ARGS="--seeds 30"
	@$(BIN)/python -m torture.workers $(ARGS)

bench: $(BENCH)  ## Measure the runner against its bars and its peers: ARGS="--only 1,2 --rounds 3"
	@$(BIN)/python -m benchmarks $(ARGS)

bench-local: $(READY)  ## Time the local endpoint: ARGS="--jobs 3000"
	@$(BIN)/python -m benchmarks.local_server $(ARGS)

shards: $(SDK)  ## Run 16 shards at once, and compare them with one process: ARGS="--runs 1600"
	@$(BIN)/python -m torture.shards $(ARGS)

ray: $(RAY)  ## Kill two of three nodes of a Ray cluster under a batch of 20,000 runs: 15 minutes
	@$(BIN)/python -m torture.nodes $(ARGS)

remote: $(READY)  ## Kill batches whose folder is on a real S3 server, and go on with nothing left here: 5 minutes
	@$(BIN)/python -m torture.remote $(ARGS)

torture-mutations: $(SDK)  ## Break the engine in one place at a time, and see that the torture notices
	@$(BIN)/python -m torture.mutations $(ARGS)

check: $(READY)  ## Check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

schema: $(READY)  ## Rewrite schemas/job.schema.json and the references in docs/ from models and commands
	@$(BIN)/runner schema > schemas/.job.schema.json.tmp
	@mv schemas/.job.schema.json.tmp schemas/job.schema.json
	@$(BIN)/python -m runner.reference > docs/.job-file.md.tmp
	@mv docs/.job-file.md.tmp docs/job-file.md
	@$(BIN)/python -m runner.exit_codes > docs/.exit-codes.md.tmp
	@mv docs/.exit-codes.md.tmp docs/exit-codes.md
	@$(BIN)/python -m runner.manual > docs/.commands.md.tmp
	@mv docs/.commands.md.tmp docs/commands.md

docs: $(DOCS)  ## Build the site of the docs into site/; a broken link is an error
	@$(BIN)/zensical build --clean --strict

docs-serve: $(DOCS)  ## Show the docs at http://127.0.0.1:8000 while one writes them
	@$(BIN)/zensical serve --dev-addr 127.0.0.1:8000

screenshots: $(READY)  ## Take pictures of the report and of watch, into docs/screenshots: needs Chromium
	@$(BIN)/python tests/screenshots.py $(ARGS)

cron: $(READY)  ## Let Debian's cron start a good and a bad batch, and read its mail: as root, in a container
	@$(BIN)/python tests/under_cron.py

format: $(READY)  ## Rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .cache site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
