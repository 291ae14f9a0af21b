# Two commands: `make serve` and `make test`. Both set up what is missing and are quick about what is there.
# An existing libtorch 2.13 is used where LIBTORCH names its folder; `make libtorch-cuda` fetches the CUDA build.

CARGO ?= cargo

.PHONY: serve test test-clients build libtorch libtorch-cuda lint

serve: build
	target/release/sardine serve --port 8080

test: libtorch
	$(CARGO) test --release --locked
	cd deploy && python3 -m unittest test_scaling.py

# The clients that people use, against the server; they are installed from PyPI and npm into target/clients.
test-clients: build
	tests/clients/run.sh

build: libtorch
	$(CARGO) build --release --locked

lint: libtorch
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

libtorch:
ifeq ($(LIBTORCH),)
	@deploy/fetch-libtorch.sh cpu
endif

libtorch-cuda:
	@deploy/fetch-libtorch.sh cuda
