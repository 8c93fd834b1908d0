# The book and its library. `make help` lists what there is to do.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
READY  := $(VENV)/ready
SITE   := _build/html
COLAB  := .venv-colab
ELSEWHERE := _build/elsewhere

# Two processes with one thread each. More threads than cores make small matrices slower.
WORKERS := 2
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(RUN) -m pytest -q -n $(WORKERS) --dist worksteal

# The kernels run on the CPU in Triton's interpreter, which has to be chosen before triton is
# imported, and cannot compile: compiling ahead of time is a run of its own, without it.
AHEAD_OF_TIME := tests/kernels/test_resources.py tests/kernels/test_ptx.py
ON_THE_SITE   := tests/book/test_site.py tests/book/test_browser.py
UNIT := tests examples $(addprefix --ignore=,$(AHEAD_OF_TIME) $(ON_THE_SITE))

SAY := @printf '\n\033[1m== %s\033[0m\n'

.NOTPARALLEL:
.PHONY: help book test lint unit coverage installs kernels gpu notebooks other-cpu colab-versions site offline pdf links lock audit execute address colab mutants clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

book: site ## Build the site from the committed notebooks, and say where to open it
	@printf '\nThe book is built. Open it in a browser:\n  file://%s/$(SITE)/index.html\n' "$$PWD"

test: lint unit kernels notebooks site ## Run everything that CI runs
	$(SAY) 'The built site: files, links, and a real browser'
	$(PYTEST) $(ON_THE_SITE)

lint: $(READY) ## Check style, types and spelling
	$(SAY) 'Style, types and spelling: ruff, pyright and codespell'
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright
	$(VENV)/bin/codespell

unit: $(READY) ## Test the library, the kernels in Triton's interpreter, examples, and the book's contracts
	$(SAY) 'Unit tests, kernels in Triton’s interpreter, examples, contracts of the book'
	TRITON_INTERPRET=1 $(PYTEST) $(UNIT)

coverage: $(READY) ## Say which lines of the library the unit tests do not run
	$(SAY) 'Lines of the library that no unit test runs'
	TRITON_INTERPRET=1 $(PYTEST) $(UNIT) --cov=assocmem --cov-report=term-missing:skip-covered

installs: $(READY) ## Test the wheel beside other versions of torch, which are large, and without Triton
	$(SAY) 'The wheel beside other versions of torch, without Triton'
	$(ONE_THREAD) $(RUN) -m tests.installs

kernels: $(READY) ## Compile the kernels, check what they need of each GPU, and run them in an emulator
	$(SAY) 'Kernels compiled ahead of time for every target, and run in an emulator of two'
	$(PYTEST) $(AHEAD_OF_TIME)

# On such a machine the package is not installed, and nothing can be: it takes the python3 it finds.
gpu: ## Test the kernels on this machine's GPU, and time them (ARGS=--help says more)
	PYTHONPATH="src:kernels:$$PYTHONPATH" $(PYTHON) -m benchmarks.gpu $(ARGS)

# The cells of a notebook for Colab are those of the book, so that one run answers for both.
notebooks: $(READY) ## Run every notebook as on Colab, and compare its outputs with the committed ones
	$(SAY) 'Every notebook: in an empty folder, with the wheel, its code must give the book’s outputs'
	$(RUN) -m tests.colab.elsewhere $(ELSEWHERE)
	JUPYTER_PATH="$(CURDIR)/$(ELSEWHERE)/jupyter" $(PYTEST) --dist loadfile -p tests.book.nbval_policy \
	    --nbval --nbval-cell-timeout=120 $(ELSEWHERE)/notebooks

# What PyTorch, MKL, oneDNN, OpenBLAS and NumPy read; exported to all that this target needs.
other-cpu: export ATEN_CPU_CAPABILITY := avx2
other-cpu: export MKL_CBWR := AVX2
other-cpu: export ONEDNN_MAX_CPU_ISA := AVX2
other-cpu: export OPENBLAS_CORETYPE := Haswell
other-cpu: export NPY_DISABLE_CPU_FEATURES := AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL
other-cpu: unit notebooks ## Test as on a CPU without AVX-512, which rounds otherwise

colab-versions: ## Run notebooks, compile kernels and operators with Colab’s versions, which are large
	$(SAY) 'Every notebook and kernel, and compiled operators: with Colab’s torch, Triton, NumPy and IPython'
	test -x $(COLAB)/bin/python || $(PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install --disable-pip-version-check -r colab/requirements.txt
	$(COLAB)/bin/python -m tests.colab.elsewhere $(ELSEWHERE)
	$(ONE_THREAD) JUPYTER_PATH="$(CURDIR)/$(ELSEWHERE)/jupyter" $(COLAB)/bin/jupyter-execute \
	    --timeout=120 $(ELSEWHERE)/notebooks/*/*.ipynb
	$(ONE_THREAD) PYTHONPATH=src:kernels $(COLAB)/bin/python -m pytest -q $(AHEAD_OF_TIME)
	$(ONE_THREAD) PYTHONPATH=src:kernels $(COLAB)/bin/python -m pytest -q -k "compile or graph" tests/ops tests/nn

site: $(READY) ## Build the site strictly: a warning is an error
	$(SAY) 'The site, strictly: a warning is an error'
	rm -rf _build # what an earlier build left behind could hide what is missing now
	$(VENV)/bin/jupyter-book build . -W -n --keep-going

offline: site ## Pack the built site into one file, to be read without a server
	$(SAY) 'The site as one file'
	cd $(dir $(SITE)) && "$(CURDIR)/$(RUN)" -m zipfile -c offline.zip $(notdir $(SITE))
	@printf '\nUnpack it, and open html/index.html in a browser:\n  %s/_build/offline.zip\n' "$$PWD"

pdf: $(READY) ## Print the whole book into one PDF (needs Chromium)
	$(SAY) 'The whole book as one PDF'
	$(VENV)/bin/jupyter-book build . --builder singlehtml
	$(RUN) -m book.pdf _build/singlehtml _build/transformers-as-associative-memory.pdf
	@printf '\nIt is here:\n  %s/_build/transformers-as-associative-memory.pdf\n' "$$PWD"

links: $(READY) ## Ask every address outside the site whether it still answers (needs the network)
	$(SAY) 'Links that lead away from the site'
	$(VENV)/bin/jupyter-book build . --builder linkcheck

LOCK := $(VENV)/lock
lock: ## Pin whatever requirements.txt needs, for every Python, in constraints.txt (needs the network)
	$(SAY) 'Pins of all that requirements.txt needs'
	test -x $(LOCK)/bin/python || $(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install -q --disable-pip-version-check uv==0.13.9
	$(LOCK)/bin/uv pip compile requirements.txt --universal --python-version 3.10 --quiet \
	    --no-annotate --no-emit-index-url --custom-compile-command 'make lock' -o constraints.txt

AUDIT := $(VENV)/audit
audit: $(READY) ## Ask for known vulnerabilities of all packages, and list licences (needs the network)
	$(SAY) 'Known vulnerabilities, and licences, of what is installed'
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1 pip-licenses==5.5.5
	$(AUDIT)/bin/pip-licenses --python $(RUN) --format=markdown --order=license
	$(RUN) -m pip list --disable-pip-version-check --exclude-editable --format=freeze > $(AUDIT)/installed.txt
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r $(AUDIT)/installed.txt

execute: $(READY) ## Run all notebooks, and store their outputs where they changed
	$(SAY) 'Running the notebooks and storing what changed'
	OMP_NUM_THREADS=$(WORKERS) $(RUN) book/execute.py book/*.ipynb

address: $(READY) ## Write the repository’s address, which stands in _config.yml, wherever it is said
	$(SAY) 'The address of the repository'
	$(RUN) -m book.address
	$(RUN) -m colab.generate

colab: $(READY) ## Write the notebooks for Colab from those of the book
	@$(RUN) -m colab.generate

mutants: $(READY) ## Break the library in many ways, and see that tests and chapters turn red
	$(SAY) 'Mutants: each break has to turn its guards red'
	$(ONE_THREAD) $(RUN) -m tests.run_mutants $(ARGS)

clean: ## Remove what was built (keep .venv)
	rm -rf _build build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(READY): requirements.txt constraints.txt pyproject.toml
	$(SAY) 'Setting up $(VENV): torch is large, so this takes some minutes'
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 10) <= v[:2] <= (3, 14) and \
	    f"Python 3.10 to 3.14 is needed, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 …")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt -e .
	@touch $(READY)
