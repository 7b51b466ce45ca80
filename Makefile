# Two commands matter: make reproduce and make test. Both build the environment if it is missing.
PYTHON ?= python3
BIN := .venv/bin
# Notebook parameters for `make reproduce`, e.g. make reproduce PARAMETERS="n_images=100 faces=/data/celeba"
PARAMETERS ?=
# A larger sample of your own data, e.g. make reproduce PROFILE=tiny DATA=/data/celeba; an interrupted run resumes
PROFILE ?=
DATA ?=
# A package index that serves smaller builds of torch, for example CPU only. Used once, at installation.
TORCH_INDEX ?=

.PHONY: reproduce figures gallery test lab app docs docs-tables lint bench train models-report lock clean

reproduce: .venv/ready
	$(BIN)/salattack reproduce $(if $(PROFILE),-p profile=$(PROFILE)) \
		$(if $(DATA),-p "faces=$(DATA)") $(foreach p,$(PARAMETERS),-p $(p))

# For maintainers: regenerate the committed figures/ and the outputs in notebooks/.
figures: .venv/ready
	$(BIN)/salattack reproduce --output figures
	$(BIN)/python -m salattack.workflow.notebooks results/notebooks notebooks
	$(BIN)/salattack run protect -o notebooks/protect.ipynb
	rm -f figures/ledger*.sqlite
	$(MAKE) gallery

gallery: .venv/ready
	$(BIN)/python -m salattack.reporting.captions > figures/README.md

# Both parts run, even if the first one fails. nbval runs small copies of the notebooks and compares
# their numbers and pictures; after a deliberate change: $(BIN)/python tests/small_notebooks.py --keep
test: .venv/ready
	@copies=$$(mktemp -d); trap 'rm -rf "$$copies"' EXIT; cp notebooks/protect.ipynb "$$copies"; \
	$(BIN)/python tests/small_notebooks.py "$$copies"; \
	$(BIN)/python -m pytest; tests=$$?; \
	PYTHONPATH="$(CURDIR)/tests" $(BIN)/python -m pytest -c pyproject.toml --nbval --nbval-cell-timeout=600 \
		-p small_notebooks -p no:cacheprovider "$$copies"; notebooks=$$?; \
	echo "exit codes: tests $$tests, notebooks $$notebooks"; \
	exit $$((tests > notebooks ? tests : notebooks))

lab: .venv/ready
	$(BIN)/jupyter lab notebooks

# Protect photos in a browser; photos stay on this machine. The setting lets uploads exceed 10 MB.
app: .venv/ready
	$(BIN)/voila notebooks/protect.ipynb --progressive_rendering=True \
		--Voila.tornado_settings='{"websocket_max_message_size": 200000000}'

# The documentation site, built without network; a broken link fails the build.
docs: .venv/ready
	$(BIN)/sphinx-build -W --keep-going -q -c docs . build/docs

# For maintainers, after `make figures`: rewrite the tables and numbers that the documentation quotes.
docs-tables: .venv/ready
	$(BIN)/python docs/refresh.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# Seconds per image and iteration, and the machine's own rate. Run nothing else at the same time.
bench: .venv/ready
	$(BIN)/python -m salattack.workflow.benchmark

# DATA holds stargan-celeba128-outputs/ and saliency/ as the model cards describe them. Both trainings
# write to results/, and resume after an interruption.
train: .venv/ready
	$(BIN)/python -m salattack.training saliency \
		"$(DATA)/saliency/duts_tr_192.tar" results/pfan-light
	$(BIN)/python -m salattack.training stargan \
		"$(DATA)/stargan-celeba128-outputs" results/stargan \
		--init salattack/resources/weights/stargan-celeba128-w32.safetensors

# Measure the shipped weights against the bars that were set for them.
models-report: .venv/ready
	$(BIN)/python -m salattack.training bars "$(DATA)"

.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "salattack needs Python 3.11 to 3.13; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Building .venv (some minutes, once)"
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--index-url "$(TORCH_INDEX)" $$(grep -oE '^torch(vision)?==[^ ;]+' requirements.lock))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c requirements.lock -e '.[notebooks,ray,protect,heic,generators,train,docs,test]'
	touch .venv/ready

# After a change of the dependencies: lock the newest versions that fit.
lock: .venv/ready
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --upgrade --quiet \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock

clean:
	rm -rf .venv results build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
