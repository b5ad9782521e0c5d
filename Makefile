# `make quickstart` and `make test` need Python 3.11 or newer with pip, and make. Both create the virtual environment
# if it is missing or older than the files it depends on.
#   make quickstart PYTHON=python3.12 VENV=/some/folder
#   make test WORKERS=4 MARK="not slow"
#   make test-wheel PYTHONS="python3.11 python3.12 python3.13"

PYTHON ?= python3
PYTHONS ?= $(PYTHON)
VENV ?= .venv
WORKERS ?= auto
MARK ?= not slow

BIN := $(VENV)/bin
MINIPROGRAM := applet/miniprogram

# Compiled at installation: if one of these changes, install again.
COMPILED := hatch_build.py $(wildcard ffem_jax/kernels/source/*)

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow test-wheel test-e2e test-miniprogram lint format node settings clean

help:
	@echo "make quickstart   install, and plot a frontier from synthetic faces (minutes)"
	@echo "make test         install, then run lint, type checks and the fast tests"
	@echo "make test-slow    run the tests that take more than about two seconds each"
	@echo "make test-wheel   install the wheel into an empty environment and use it from another folder"
	@echo "make test-miniprogram   test the WeChat mini-program: types, build, pages (needs Node 18 or newer with npm)"
	@echo "make test-e2e     test the page and the report in a browser, with a server (needs Node and Chromium)"
	@echo "make lint         run only ruff and mypy"
	@echo "make format       apply ruff's formatter and its safe fixes"
	@echo "make settings     regenerate docs/settings.md from the declarations of the settings"
	@echo "make node         install TensorFlow.js from npm, which ffem export uses to check tfjs files (90 MB)"
	@echo "make clean        remove caches and build products; keep outputs/ and $(VENV)"

quickstart: $(VENV)/.installed
	$(BIN)/ffem sweep quickstart
	@echo "The frontier: $(CURDIR)/outputs/quickstart-synthetic/frontier/frontier.png"

test: lint
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "$(MARK)"

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m slow

test-wheel: $(VENV)/.installed-dev
	.ci/wheel $(BIN)/python $(PYTHONS)

test-miniprogram: $(MINIPROGRAM)/node_modules/.installed
	cd $(MINIPROGRAM) && npm test --silent

# Uses the system's Chromium: no browser is downloaded.
test-e2e: $(VENV)/.installed-e2e
	@command -v npm >/dev/null || { echo "error: no npm; on Debian and Ubuntu: apt install nodejs npm" >&2; exit 1; }
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ echo "error: no Chromium; on Debian and Ubuntu: apt install chromium" >&2; exit 1; }
	cd applet/web && npm install --silent && npm run --silent vendor
	FFEM_E2E=1 $(BIN)/python -m pytest -q tests/applet/test_page.py \
		tests/applet/test_strangers_in_the_page.py tests/reports/html/test_report_browser.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

settings: $(VENV)/.installed
	$(BIN)/ffem settings --markdown > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

node:
	cd ffem_jax/export/node && npm install --no-audit --no-fund

clean:
	rm -rf build dist $(MINIPROGRAM)/build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ffem_jax tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(MINIPROGRAM)/node_modules/.installed: $(MINIPROGRAM)/package.json $(MINIPROGRAM)/.npmrc
	@node -e "process.exit(Number(parseInt(process.versions.node) < 18))" 2>/dev/null || \
		{ echo "error: Node is missing or older than 18; on Debian: apt install nodejs npm" >&2; exit 1; }
	@cd $(MINIPROGRAM) && npm install --silent
	@touch $@

# The stamps are written last, so an interrupted install is repeated.
define make_environment
@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || \
	{ echo "error: $(PYTHON) is missing or older than 3.11; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
@$(PYTHON) -m venv "$(VENV)" && $(BIN)/python -m pip --version >/dev/null 2>&1 || \
	{ echo "error: $(PYTHON) -m venv $(VENV) created no environment with pip; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
@echo "Installing into $(VENV): this takes some minutes the first time."
endef

$(VENV)/.installed: pyproject.toml constraints.txt $(COMPILED)
	$(make_environment)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[report]" -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(COMPILED)
	$(make_environment)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[dev]" -c constraints.txt
	@touch $(VENV)/.installed $@

$(VENV)/.installed-e2e: pyproject.toml constraints.txt $(COMPILED)
	$(make_environment)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e ".[dev,export,serve,e2e]" -c constraints.txt
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@
