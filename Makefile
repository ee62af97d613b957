# make demo          see a container run (installs what is missing: apt-get, then pip into .venv)
# make test          unit and integration tests
# make install       the command and its library, PREFIX=/usr/local
# README.md has the rest.

PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
DESTDIR ?=
BINDIR = $(PREFIX)/bin
LIBRARY = $(PREFIX)/lib/ociruntime
DATADIR = $(PREFIX)/share
MANDIR = $(DATADIR)/man
OCI_RUNTIME ?= $(CURDIR)/build/ociruntime
export OCI_RUNTIME

VENV = .venv
PY = $(VENV)/bin/python
STAMPS = build/stamps

PYTHON_SOURCES := $(shell find ociruntime -name '*.py' -not -name '_generated.py' -not -name '_schema.py' -not -name '_build.py')
C_SOURCES := $(shell find cffi_build -name '*.c' -o -name '*.h')
C_FORMATTED = $(filter-out %/shim.h,$(C_SOURCES)) $(wildcard integration/helper/*.[ch])
C_INCLUDES = -Icffi_build/include -Icffi_build/src/parent -Icffi_build/src/child -Ibuild/launcher \
    $(shell $(PYTHON)-config --includes 2>/dev/null)
GENERATED = ociruntime/config/_generated.py

.DELETE_ON_ERROR:
.PHONY: FORCE all dev build fmt lint type unit cunit integration engines check test lab lab-image lab-run lab-packages demo bench conformance install uninstall man completion clean

all: build

# ---- tools ----

$(STAMPS)/system-%: integration/setup.sh
	@mkdir -p $(STAMPS)
	integration/setup.sh $*
	@touch $@

$(STAMPS)/venv: $(STAMPS)/system-build
	test -x $(PY) || $(PYTHON) -m venv --system-site-packages $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade $$($(PY) integration/requirements.py build)
	@touch $@

$(STAMPS)/venv-dev: $(STAMPS)/venv setup.py
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade $$($(PY) integration/requirements.py dev)
	@touch $@

dev: $(STAMPS)/venv-dev $(STAMPS)/system-test $(STAMPS)/system-check build

# ---- build ----

$(GENERATED): spec/generate_validator.py $(wildcard spec/*.schema.json) | $(STAMPS)/venv
	$(PY) spec/generate_validator.py $@

$(STAMPS)/native: $(C_SOURCES) cffi_build/build_shim.py cffi_build/build_init.py $(STAMPS)/venv
	$(PY) cffi_build/build_shim.py
	@touch $@

# Written only when it changes, so that it does not make everything else again.
ociruntime/_build.py: FORCE
	@commit=$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown); \
	line="COMMIT = \"$$commit\""; [ "$$(cat $@ 2>/dev/null)" = "$$line" ] || echo "$$line" >$@

build/ociruntime: $(STAMPS)/native $(GENERATED) ociruntime/_build.py $(PYTHON_SOURCES) cffi_build/embed.py cffi_build/freeze.py
	$(PY) cffi_build/embed.py --output $@

build: build/ociruntime

# ---- checks ----

fmt: $(STAMPS)/venv-dev $(STAMPS)/system-check
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix
	clang-format -i $(C_FORMATTED)

lint: $(STAMPS)/venv-dev $(STAMPS)/system-check build
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	clang-format --dry-run --Werror $(C_FORMATTED)
	clang-tidy --quiet $(filter-out %.h,$(C_SOURCES)) -- -std=gnu11 $(C_INCLUDES) 2>build/clang-tidy.log

type: $(STAMPS)/venv-dev build
	$(VENV)/bin/mypy

unit: $(STAMPS)/venv-dev build
	$(VENV)/bin/pytest -q tests

cunit: $(STAMPS)/venv-dev
	$(VENV)/bin/pytest -q tests/shim/test_c.py

integration: $(STAMPS)/venv-dev $(STAMPS)/system-test lab-packages build
	$(VENV)/bin/pytest -q integration

# one table per engine: our runtime, runc, crun; make engines ENGINES=podman
engines: ENGINES ?= podman containerd docker cri
engines: $(STAMPS)/venv-dev $(STAMPS)/system-test build
	$(PY) integration/engines/table.py $(ENGINES)

# the same tests with the runtime run by an ordinary user; ROOTLESS: which ones
integration-rootless: ROOTLESS ?= integration
integration-rootless: $(STAMPS)/venv-dev $(STAMPS)/system-test build
	$(VENV)/bin/pytest -q --rootless $(ROOTLESS)

# unit has the C tests too
check: lint type unit

test: $(STAMPS)/venv-dev $(STAMPS)/system-test lab-packages build
	integration/test.sh $(VENV)/bin/pytest

# ---- a machine of our own: integration/lab/README.md ----

# The tests of the lab are skipped, and say so, where it cannot be had.
lab-packages:
	@$(MAKE) --no-print-directory $(STAMPS)/system-lab || echo 'no packages for the lab: its tests will be skipped'

lab-image: $(STAMPS)/system-lab $(STAMPS)/venv-dev
	$(PY) -m integration.lab.lab build

lab: $(STAMPS)/system-lab $(STAMPS)/venv-dev build
	$(PY) -m integration.lab.lab test $(LAB)

lab-run: $(STAMPS)/system-lab $(STAMPS)/venv-dev build
	$(PY) -m integration.lab.lab run --project -- $(RUN)

# ---- to look at ----

demo: $(STAMPS)/system-demo build
	$(PY) integration/demo/demo.py

bench: $(STAMPS)/system-test build
	$(PY) integration/bench/bench.py $(BENCH)

conformance: $(STAMPS)/system-demo
	$(PYTHON) integration/conformance/run.py $(CONFORMANCE)

# ---- installation ----

build/site: $(STAMPS)/venv setup.py
	rm -rf $@
	$(PY) -m pip install --quiet --disable-pip-version-check --target $@ $$($(PY) integration/requirements.py run)
	rm -rf $@/bin
	find $@ -name __pycache__ -prune -exec rm -rf '{}' +
	@touch $@

man: build
	$(PY) -m ociruntime.cli.man build/man >/dev/null

completion: build
	$(PY) -m ociruntime.cli.completion build/completion >/dev/null

install: build build/site man completion
	rm -rf '$(DESTDIR)$(LIBRARY)'
	mkdir -p '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(LIBRARY)' '$(DESTDIR)$(MANDIR)/man8'
	$(PY) cffi_build/embed.py --output build/install/ociruntime --library '$(LIBRARY)'
	install -m 755 build/install/ociruntime '$(DESTDIR)$(BINDIR)/ociruntime'
	find ociruntime \( -name '*.py' -o -name 'py.typed' -o -name '*.pyi' -o -name '_native*.so' \) \
	    -exec install -D -m 644 '{}' '$(DESTDIR)$(LIBRARY)/{}' ';'
	cp -R build/site '$(DESTDIR)$(LIBRARY)/site'
	$(PY) -m compileall -q -s '$(DESTDIR)' '$(DESTDIR)$(LIBRARY)'
	chmod -R u=rwX,go=rX '$(DESTDIR)$(LIBRARY)'
	install -m 644 build/man/*.8 '$(DESTDIR)$(MANDIR)/man8/'
	find build/completion -type f -printf '%P\n' | \
	    xargs -I '{}' install -D -m 644 'build/completion/{}' '$(DESTDIR)$(DATADIR)/{}'

uninstall:
	rm -rf '$(DESTDIR)$(LIBRARY)' '$(DESTDIR)$(BINDIR)/ociruntime' '$(DESTDIR)$(MANDIR)'/man8/ociruntime*.8
	rm -f '$(DESTDIR)$(DATADIR)/bash-completion/completions/ociruntime' '$(DESTDIR)$(DATADIR)/zsh/site-functions/_ociruntime'
	rm -f '$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/ociruntime.fish'

clean:
	rm -rf build $(GENERATED) ociruntime/config/_schema.py ociruntime/_build.py ociruntime/shim/_native.c ociruntime/shim/_native.o
	rm -rf ociruntime/shim/_native*.so ociruntime.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf '{}' +
