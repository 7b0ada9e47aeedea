# Carillon's commands; `make` alone lists them. Each sets up what it needs in .venv.
.DEFAULT_GOAL := help
.PHONY: help run test test-long test-deploy chaos bench bench-quick fuzz lint fmt docs locks secrets chart sbom audit clean

PY := .venv/bin/python
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
LOCK := $(COMPILE) pyproject.toml

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "make %-11s %s\n", $$1, $$2}'

# The recipe ends in exec: SIGTERM to make reaches the supervisor itself.
run: ## Start Valkey, two pods and Nginx; PORT=8080 PYTHON=python3 CARILLON_PODS=2 WEB_CONCURRENCY=2
	@sh local/venv.sh --apt run && $(PY) -m app build && exec $(PY) -m local

test: ## Run the tests against real parts (5 minutes on two cores)
	@sh local/venv.sh test && sh local/venv.sh load && $(PY) -m app build && $(PY) -m tests.support.kube_tools && exec $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long and not deploy"

test-long: ## Run the tests that take longer
	@sh local/venv.sh test && sh local/venv.sh load && $(PY) -m app build && exec $(PY) -m pytest -m "long and not deploy"

test-deploy: ## Build the images and run them in Docker (as root; CARILLON_REQUIRE=docker installs what is missing); KUBECONFIG: there too
	@sh local/venv.sh test && $(PY) -m app build && $(PY) -m tests.support.kube_tools && exec $(PY) -m pytest -m deploy tests/deploy

.PHONY: load load-quick
# Reads URL, API_URL, SCENARIO, USERS, RATE, RAMP, DURATION, PROCESSES and others from the environment: docs/load.md.
load: ## Locust against URL=..., else a stack of its own; SCENARIO=chat USERS=500 RATE=20 DURATION=30; report in .cache/load
	@sh local/venv.sh --apt run && sh local/venv.sh load && $(PY) -m app build && exec $(PY) -m loadtest

load-quick: ## All scenarios of that, small, in 10 seconds
	@sh local/venv.sh --apt run && sh local/venv.sh load && $(PY) -m app build && \
		SCENARIO=all USERS=90 RAMP=90 DURATION=5 STORM_EVERY=5 exec $(PY) -m loadtest

chaos: ## Break parts under load and count what was lost, 10 minutes at most; ONLY="kill -9,reload"
	@sh local/venv.sh test && $(PY) -m app build && exec $(PY) -m tests.chaos --only "$(ONLY)"

bench: ## Measure beside a floor and peers; writes bench/results (needs a C compiler)
	@sh local/venv.sh test && $(PY) -m app build && sh local/venv.sh bench && exec $(PY) -m bench

bench-quick: ## The main figures of that, in under 3 minutes; writes .cache/bench/results
	@sh local/venv.sh test && $(PY) -m app build && sh local/venv.sh bench && exec $(PY) -m bench --quick --results .cache/bench/results

FUZZ_SECONDS ?= 60

fuzz: ## Fuzz what reads bytes from outside; FUZZ_SECONDS=60 for each target
	@sh local/venv.sh test && sh local/venv.sh fuzz && exec $(PY) -m fuzz --seconds $(FUZZ_SECONDS)

lint: ## Check style and types
	@sh local/venv.sh test && sh local/venv.sh load
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

fmt: ## Format the code
	@sh local/venv.sh test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: ## Write the generated parts of docs/ anew
	@sh local/venv.sh test
	$(PY) docs/generate.py
	$(PY) helm/generate.py

locks: ## Compile requirements/*.txt anew from pyproject.toml (needs uv)
	$(LOCK) --group run -o requirements/run.txt
	$(LOCK) -c requirements/run.txt -o requirements/image.txt
	$(LOCK) --group run --group test -c requirements/run.txt -o requirements/test.txt
	$(LOCK) --group test --group fuzz -c requirements/test.txt -o requirements/fuzz.txt
	$(COMPILE) --group audit -o requirements/audit.txt
	$(COMPILE) --group kube --no-deps -o requirements/kube.txt
	$(LOCK) --group load -c requirements/test.txt -o requirements/load.txt
	$(LOCK) --group bench -c requirements/test.txt -o requirements/bench.txt

secrets: ## Make what compose.yaml needs to start: ./secrets and .env
	@sh images/secrets.sh

chart: ## Package the chart with the digests of a release; GATEWAY=registry/name@sha256:... EDGE=... (needs helm)
	@rm -rf dist/chart && python3 helm/pin_images.py "$${GATEWAY-}" "$${EDGE-}" dist/chart/carillon
	helm package dist/chart/carillon --destination dist

sbom: ## Write dist/carillon.cdx.json: what the gateway's image installs, with hashes (CycloneDX)
	@sh local/venv.sh audit && mkdir -p dist
	PYTHONWARNINGS=ignore .cache/audit/venv/bin/cyclonedx-py requirements requirements/image.txt --pyproject pyproject.toml \
		--output-reproducible --output-file dist/carillon.cdx.json

audit: ## Look up known vulnerabilities of everything in requirements/ (needs the internet)
	@sh local/venv.sh audit
	.cache/audit/venv/bin/pip-audit --strict --disable-pip --require-hashes $(addprefix --requirement ,$(wildcard requirements/*.txt))

clean: ## Remove .venv, caches and what `make run` left
	rm -rf .venv .cache .local .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
