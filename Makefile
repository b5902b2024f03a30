# Three commands for people: `make demo` shows what iftplan does, `make test` runs every check, `make docs` builds the site.
# `make test-newest` runs the tests, and a sweep over networks of other libraries, with the newest PyTorch that is supported,
# `make test-lowest` with the lowest release of everything, `make test-unpinned` with whatever is newest today.
# They make the environment they need, in .venv (.venv-newest …) unless VENV (NEWEST …) names another place.

PYTHON ?= python3
VENV   ?= .venv
NEWEST ?= .venv-newest
JAX    ?= .venv-jax
BIN     = $(VENV)/bin
CONSTRAINTS = constraints.txt
INSTALL = -m pip install --quiet --disable-pip-version-check
PIP     = $(BIN)/python $(INSTALL) $(addprefix -c ,$(CONSTRAINTS))
OUT     = demo-out
SWEPT   = torchvision timm diffusers segmentation-models-pytorch
JOBS   ?= 2

SITE    = docs/_build

.PHONY: demo test lint suite test-jax test-newest test-lowest test-unpinned coverage hooks docs notebooks dist try-dist try-extras check-release venv check-python clean
.DELETE_ON_ERROR:

demo: $(VENV)/.all
	mkdir -p $(OUT)
	@printf '\n--- one layer, every family, at the same cost\n\n'
	$(BIN)/iftplan solve --layer conv3x3 --sparsity 0.75
	$(BIN)/iftplan solve --layer conv3x3:64-128@16x16 --sparsity 0.75
	@printf '\n--- ResNet-18 (CIFAR form): four times the search space, the same MACs; three engines have to agree\n\n'
	$(BIN)/iftplan plan zoo:resnet18-cifar --transform wide --sparsity 0.75 -o $(OUT)/resnet18-wide.json
	$(BIN)/iftplan audit $(OUT)/resnet18-wide.json --cross-check
	$(BIN)/iftplan plan zoo:resnet18-cifar --transform parallel --sparsity 0.75 -o $(OUT)/resnet18-parallel.json
	$(BIN)/iftplan audit $(OUT)/resnet18-parallel.json --cross-check -o $(OUT)/resnet18-parallel-audit.json
	@printf '\n--- GPT-3 Small, wide: equal in one scope is not equal in the others; see the last column\n\n'
	$(BIN)/iftplan spec zoo:gpt3-small -o $(OUT)/gpt3-small.json
	$(BIN)/iftplan plan $(OUT)/gpt3-small.json --transform wide --sparsity 0.5 --scope matrices -o $(OUT)/gpt3-wide50.json
	$(BIN)/iftplan plan $(OUT)/gpt3-small.json --transform wide --sparsity 0.75 --scope matrices -o $(OUT)/gpt3-wide75.json
	@printf '\n--- the whole forward pass held equal instead, and measured\n\n'
	$(BIN)/iftplan plan $(OUT)/gpt3-small.json --transform wide --sparsity 0.5 --scope model -o $(OUT)/gpt3-wide50-model.json
	$(BIN)/iftplan audit $(OUT)/gpt3-wide50-model.json --cross-check -o $(OUT)/gpt3-wide50-model-audit.json
	@printf '\n--- GPT-3 Small, parallel: outer shapes stay, so every scope closes at once\n\n'
	$(BIN)/iftplan plan $(OUT)/gpt3-small.json --transform parallel --sparsity 0.75 -o $(OUT)/gpt3-parallel75.json
	$(BIN)/iftplan audit $(OUT)/gpt3-parallel75.json -o $(OUT)/gpt3-parallel75-audit.json
	@printf '\nThe plans and audit reports are in $(OUT)/.\n'

test: lint suite

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

suite: venv
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --doctest-modules --ignore=iftplan/jaxnn iftplan tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile -m 'slow or long'

# What is about JAX, in an environment that has it; everywhere else its tests are skipped.
test-jax: | check-python
	test -x $(JAX)/bin/python || $(PYTHON) -m venv $(JAX)
	$(JAX)/bin/python $(INSTALL) -c constraints.txt -e '.[dev,jax]'
	OMP_NUM_THREADS=1 JAX_PLATFORMS=cpu $(JAX)/bin/python -m pytest -m '' --doctest-modules iftplan/jaxnn tests/jaxnn

# The whole suite where PyTorch is the newest, then the sample of the sweep: a crash or a wrong answer there fails, a
# deprecation does not.
test-newest: $(NEWEST)/.swept
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest -W default -n auto --dist loadfile --doctest-modules --ignore=iftplan/jaxnn iftplan tests
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest -W default -n auto --dist loadfile -m 'slow or long'
	$(NEWEST)/bin/python benchmarks/counting/zoos.py --quick --jobs $(JOBS) --journal $(NEWEST)/zoos.jsonl --again --strict

$(NEWEST)/.swept: pyproject.toml constraints-newest.txt | check-python
	@printf 'Installing into $(NEWEST); PyTorch with CUDA takes 5.6 GB.\n'
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python $(INSTALL) -c constraints-newest.txt -e '.[dev]' $(SWEPT)
	touch $@

# The suite at both ends of every range of pyproject.toml: constraints-lowest.txt holds the lower ends, the package index has the
# upper ones of today. Their warnings of each other are no errors: an old release cannot know what a new one deprecates.
test-lowest:
	$(MAKE) suite VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt PYTEST_ADDOPTS='-W default'

test-unpinned:
	$(MAKE) suite VENV=.venv-unpinned CONSTRAINTS= PYTEST_ADDOPTS='-W default'

# Lines and branches that the quick tests reach, in their own process and in those that they start; below `fail_under` it fails.
coverage: venv
	rm -rf .coverage
	mkdir .coverage
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -m 'not slow' -n $(JOBS) --dist loadfile --doctest-modules --ignore=iftplan/jaxnn iftplan tests
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --sort cover

hooks: venv  # what is checked before a commit, on every file
	$(BIN)/pre-commit run --all-files --show-diff-on-failure

# The site in docs/_build; a warning is an error. `make test` builds it too.
docs: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -n -q -d $(SITE)/.trees -c docs . $(SITE)
	@printf 'Open $(SITE)/index.html.\n'

notebooks: venv  # runs them and writes what they say
	IFTPLAN_GOLDEN=write OMP_NUM_THREADS=1 $(BIN)/pytest -m 'slow or not slow' tests/project/test_notebooks.py

# What a release uploads, in dist/, its metadata read as the package index does.
dist: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

# The wheel in dist/, installed by itself and used.
try-dist: | check-python
	$(PYTHON) -m venv --clear $(VENV)-wheel
	$(VENV)-wheel/bin/python $(INSTALL) dist/*.whl
	$(VENV)-wheel/bin/iftplan --version
	$(VENV)-wheel/bin/iftplan solve --layer conv3x3:64-128@16x16 --sparsity 0.75

# The same with each extra, in an environment of its own, and with uv and pipx; EXTRAS=bare,report tries these alone.
try-extras: | check-python
	$(PYTHON) .ci/try_extras.py dist --only '$(EXTRAS)' $(addprefix --constraints ,$(CONSTRAINTS))

# Whether dist/ may go out under the tag TAG, from the repository at SOURCE.
check-release: | check-python
	$(PYTHON) .ci/check_release.py dist --tag '$(TAG)' --source '$(SOURCE)'

venv: $(VENV)/.dev

$(VENV)/.%: pyproject.toml $(CONSTRAINTS) | check-python
	@printf 'Installing into $(VENV); with PyTorch and transformers this takes a minute or two.\n'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[$*]'
	touch $@

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "iftplan needs Python 3.11 or newer; name one with: make PYTHON=python3.11 …")'

clean:
	rm -rf .venv .venv-* .coverage $(OUT) $(SITE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
