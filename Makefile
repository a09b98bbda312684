# make run     start the service (ARGS="--backend tflite --source mic" are handed on)
# make test    set up what the tests need and run them (ARGS="tests/core -k ring": those, without the coverage gate)
# make lint    format, lint, types, import contracts, licences
# make check   lint, then test: what .ci/run runs
# make proof   the guarantees at full counts; writes docs/guarantees.md (about an hour)
# make mutants take each guard away: its test must fail
# make soak    half an hour of kills, unplugged devices and crowds
# make emulated  tests on an x86 without VNNI and on aarch64, emulated (an hour; installs QEMU)
# make autobahn  Autobahn's WebSocket cases, where its wstest (Python 2) is installed
# make lock    requirements.lock again after a change of pyproject.toml (ARGS=--upgrade: the newest of everything)
# make parity  the board's arithmetic against TFLite's, at full counts (docs/board.md)
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
CODE := service models firmware_bridge tests scripts
export PY

.PHONY: run test lint check test-train bench parity proof autobahn emulated mutants soak lock clean
.DELETE_ON_ERROR:

run: $(VENV)/run.stamp
	@scripts/start.sh $(ARGS)

$(VENV)/run.stamp: pyproject.toml requirements.lock
	@scripts/set_up.sh run "$(PY)"
	@touch $@

$(VENV)/test.stamp: pyproject.toml requirements.lock
	@scripts/set_up.sh test "$(PY)"
	@touch $@ $(VENV)/run.stamp

test: $(VENV)/test.stamp
	@scripts/test.sh $(BIN)/python $(ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/reuse lint --lines

check: lint test

test-train: $(VENV)/test.stamp
	@scripts/set_up.sh train "$(PY)"
	$(BIN)/python -m pytest -m train tests $(ARGS)

bench: $(VENV)/test.stamp
	$(BIN)/python -m tests.campaigns.bench.front_end_bench
	$(BIN)/python -m tests.campaigns.bench.streams_bench $(ARGS)

parity: $(VENV)/test.stamp
	$(BIN)/python -m tests.campaigns.parity $(ARGS)

proof: $(VENV)/test.stamp
	@scripts/proof.sh $(BIN)/python

autobahn: $(VENV)/test.stamp
	@scripts/autobahn.sh $(BIN)/python

emulated: $(VENV)/test.stamp
	@scripts/emulated.sh $(BIN)/python $(ARGS)

mutants: $(VENV)/test.stamp
	$(BIN)/python -m tests.campaigns.mutants $(ARGS)

soak: $(VENV)/test.stamp
	$(BIN)/python -m tests.campaigns.soak $(ARGS)

lock:
	@scripts/lock.sh "$(PY)" $(ARGS)

clean:
	rm -rf $(VENV) dist build
