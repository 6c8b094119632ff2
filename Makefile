# make demo    the whole path on this machine, ends with a verdict
# make test    lint, types and tests
PYTHON ?= python3
BIN := .venv/bin

# Without bytecode on disk each of the path's processes compiles its imports again: seconds of CPU at every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-engines lint bench lock proto clean

demo: .venv/ready
	$(BIN)/triax demo

test: .venv/ready lint
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not engines"

test-slow: .venv/ready
	$(BIN)/pytest -m slow

test-engines: .venv/ready
	sim/deploy/engines/install
	$(BIN)/pytest -m engines

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python tests/bench/run.py

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip sync -q --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

# Versions only: no hashes of one platform, no addresses.
lock:
	$(BIN)/uv pip compile -q pyproject.toml --extra dev --no-emit-index-url --no-header --no-annotate -o requirements.lock

# protoc 29: its generated code loads on protobuf 5.29 to 7.
proto:
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install -q grpcio-tools==1.71.2 mypy-protobuf==3.6.0 setuptools
	PATH=$(CURDIR)/.venv-proto/bin:$$PATH .venv-proto/bin/python -m grpc_tools.protoc -Iproto --python_out=.venv-proto --mypy_out=.venv-proto proto/triax/v1/*.proto
	cp .venv-proto/triax/v1/*_pb2.py .venv-proto/triax/v1/*_pb2.pyi proto/triax_proto/v1/

clean:
	rm -rf .venv .venv-proto .triax
