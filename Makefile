# make run     start the service (ARGS="--backend tflite --source mic" are handed on)
# make test    set up what the tests need and run them
# make check   format, lint, types, tests
# make proof   the guarantees at full counts; writes docs/guarantees.md (about an hour)
# make mutants take each guard away: its test must fail
# make soak    half an hour of kills, unplugged devices and crowds
# make emulated  tests on an x86 without VNNI and on aarch64, emulated (an hour; installs QEMU)
# make autobahn  Autobahn's WebSocket cases, where its wstest (Python 2) is installed
# make parity  the board's arithmetic against TFLite's, at full counts (docs/board.md)
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
export PY

.PHONY: run test check test-train bench parity proof autobahn emulated mutants soak clean
.DELETE_ON_ERROR:

run: $(VENV)/run.stamp
	@.ci/start.sh $(ARGS)

$(VENV)/run.stamp: pyproject.toml
	@.ci/set_up.sh run "$(PY)"
	@touch $@

$(VENV)/test.stamp: pyproject.toml
	@.ci/set_up.sh test "$(PY)"
	@touch $@ $(VENV)/run.stamp

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --ignore=tests/training $(ARGS)

check: $(VENV)/test.stamp
	$(BIN)/ruff format --check service models firmware_bridge tests
	$(BIN)/ruff check service models firmware_bridge tests
	$(BIN)/mypy
	$(BIN)/python -m pytest --ignore=tests/training --cov=kws_serve.core --cov-branch --cov-fail-under=95 $(ARGS)

test-train: $(VENV)/test.stamp
	@.ci/set_up.sh train "$(PY)"
	$(BIN)/python -m pytest -m train tests $(ARGS)

bench: $(VENV)/test.stamp
	$(BIN)/python -m tests.bench.front_end_bench
	$(BIN)/python -m tests.bench.streams_bench $(ARGS)

parity: $(VENV)/test.stamp
	$(BIN)/python -m tests.board.parity $(ARGS)

proof: $(VENV)/test.stamp
	@.ci/proof.sh $(BIN)/python

autobahn: $(VENV)/test.stamp
	@.ci/autobahn.sh $(BIN)/python

emulated: $(VENV)/test.stamp
	@.ci/emulated.sh $(BIN)/python $(ARGS)

mutants: $(VENV)/test.stamp
	$(BIN)/python -m tests.mutants $(ARGS)

soak: $(VENV)/test.stamp
	$(BIN)/python -m tests.soak $(ARGS)

clean:
	rm -rf $(VENV) dist build
