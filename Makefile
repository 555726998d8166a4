# The few commands people type.

# rustup puts cargo here, and not every shell has read its profile.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: help demo test bench compare

help:
	@echo 'make demo      build byway and show it at work between two namespaces (root)'
	@echo 'make test      format, lints, dependency direction, all tests (as root: those on real interfaces, too)'
	@echo 'make bench     micro-benchmarks, latency and throughput'
	@echo 'make compare   byway beside nginx on this host (root)'

demo:
	@deploy/install-deps.sh
	cargo build --release --locked
	cargo run --release --locked --quiet -- demo

# The tests on namespaces, veth and XDP are ordinary tests that skip themselves without root. libtest hides the
# output of those that pass, so the reason is said here. A target that fails does not hide what the others find.
test:
	@deploy/install-deps.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@deploy/check-deps.sh
	@test "$$(id -u)" = 0 || echo 'not root: tests that need namespaces, veth or XDP skip themselves'
	cargo test --workspace --locked --no-fail-fast

bench:
	@deploy/install-deps.sh
	cargo bench --locked

compare:
	@deploy/install-deps.sh compare
	@deploy/compare-nginx.sh
