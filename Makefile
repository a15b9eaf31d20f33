# One environment, in .venv, made on first use and again when the dependencies change. Paths may hold spaces.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Where byte code is not kept, each process that a test starts compiles all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage slow lint docs screenshots wheel sbom bench fuzz soak clean

demo: .venv/run
	$(BIN)/pacemark demo

# What times itself can fail once on a machine that stood still: `--reruns 1 -r fER` tries it again and names it.
AGAIN ?=

# Lint goes on beside the tests; what it says comes last.
test: .venv/test
	@make --no-print-directory lint >.venv/lint.log 2>&1 & \
	$(BIN)/pytest $(AGAIN) -n 3 --dist loadgroup -m "not slow"; tested=$$?; \
	wait $$!; linted=$$?; cat .venv/lint.log; [ $$tested = 0 ] && [ $$linted = 0 ]

# The same tests, traced: three times as long, and too slow for what they time themselves.
coverage: .venv/test
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow" --cov --cov-report term

slow: .venv/test
	$(BIN)/pytest $(AGAIN) -n 3 --dist loadgroup -m "slow(shared=True)"
	$(BIN)/pytest $(AGAIN) -m "slow and not slow(shared=True)"
	$(BIN)/pytest $(AGAIN) -n 3 -m "hypothesis and not slow" --hypothesis-profile=many

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mkdocs build --strict --quiet

# What docs holds that is made from the code.
docs: .venv/test
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_python.py

# The pictures in docs, from real runs against the embedded endpoint; some minutes, and Chromium.
screenshots: .venv/test
	$(BIN)/python docs/make_screenshots.py

# One file to put on a volume or a cluster: dist/pacemark-VERSION-py3-none-any.whl. The same bytes from the same commit.
wheel: export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
wheel: .venv/made
	umask 022 && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# What is in an installation, as CycloneDX: dist/pacemark.cdx.json.
sbom: wheel .venv/test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt cyclonedx-bom
	rm -rf dist/clean && $(PYTHON) -m venv --without-pip dist/clean
	$(BIN)/python -m pip --python dist/clean install --quiet --constraint constraints.txt dist/pacemark-*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/pacemark.cdx.json dist/clean
	rm -rf dist/clean

bench: .venv/test
	$(BIN)/python benchmarks/client.py --repeats 3
	$(BIN)/python benchmarks/apis.py
	$(BIN)/python benchmarks/media.py
	$(BIN)/python benchmarks/server_metrics.py
	$(BIN)/python benchmarks/open_loop.py
	$(BIN)/python benchmarks/simulator_lateness.py
	$(BIN)/python benchmarks/real_vs_virtual.py
	$(BIN)/python benchmarks/nodes.py

# What breaks a parser: a minute for each.
fuzz: .venv/test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt atheris
	$(BIN)/python benchmarks/fuzz.py --seconds 60

# Half an hour of load, and whether anything grows.
soak: .venv/test
	$(BIN)/python benchmarks/soak.py --minutes 30

clean:
	rm -rf .venv

.venv/made:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("pacemark needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/run: .venv/made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test: .venv/run requirements-test.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements-test.txt
	touch $@
