# The few commands people type.

# rustup puts cargo here, and not every shell has read its profile.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: help demo install test test-nic compliance conformance page bench bench-check bench-impaired compare profile

help:
	@echo 'make demo      build byway and show it at work between two namespaces (root)'
	@echo 'make install   the program into /usr/local/bin, and the systemd unit (root); PREFIX=, DESTDIR='
	@echo 'make test      format, lints, dependency direction, docs, all tests (as root: those on real interfaces, too)'
	@echo 'make test-nic  zero-copy on virtio-net and igb, in an emulated machine that it fetches (root; three minutes)'
	@echo 'make compliance   what the RFCs ask, where the code obeys, and the tests that show it'
	@echo 'make conformance   the probes and suites that others hold servers against, over real sockets (root: and veth)'
	@echo 'make page      the page in a headless Chromium over a veth pair; screenshots in target/page (root)'
	@echo 'make bench     over a veth pair beside nginx and a bare reflector (root), and micro-benchmarks'
	@echo 'make bench-check   instructions per segment, held against bench/instructions.toml (valgrind)'
	@echo 'make bench-impaired   goodput and fairness over a lossy line, beside the kernel (root; most of an hour)'
	@echo 'make compare   byway beside nginx on this host (root)'
	@echo 'make profile   a flame graph of a core under load (root)'

demo:
	@deploy/install-deps.sh
	cargo build --release --locked
	cargo run --release --locked --quiet -- demo

PREFIX ?= /usr/local

# /etc/byway is for the operator: `byway serve … --print-config >/etc/byway/eth1.toml`, then byway@eth1 can be started.
install:
	@deploy/install-deps.sh
	cargo build --release --locked
	install -D --mode=755 "$${CARGO_TARGET_DIR:-target}/release/byway" "$(DESTDIR)$(PREFIX)/bin/byway"
	install -D --mode=644 deploy/byway.toml "$(DESTDIR)$(PREFIX)/share/doc/byway/byway.toml"
	install --directory "$(DESTDIR)/etc/byway" "$(DESTDIR)/etc/systemd/system"
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' 'deploy/byway@.service' >'$(DESTDIR)/etc/systemd/system/byway@.service'
	@if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

# The tests on namespaces, veth and XDP are ordinary tests that skip themselves without root. libtest hides the
# output of those that pass, so the reason is said here. A target that fails does not hide what the others find.
test:
	@deploy/install-deps.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@deploy/check-deps.sh
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --features byway/hyper,byway/tokio
	@test "$$(id -u)" = 0 || echo 'not root: tests that need namespaces, veth or XDP skip themselves'
	cargo test --workspace --locked --no-fail-fast

# Not part of `test`: it takes minutes, and the first time fetches 160 MB. BYWAY_CACHE=/var/cache/byway keeps them.
test-nic:
	@deploy/install-deps.sh nic
	cargo build --release --locked
	@deploy/nic/run.sh

# Fails if a MUST has neither a test nor a reason; `make test` has the same check, without the table.
compliance:
	@BYWAY_COMPLIANCE=table cargo test --quiet --locked --package byway-tcp --test compliance

# A list of steps; each says what it found, and fails by itself. PYTHON2=/path/python2.7 for the Autobahn suite.
conformance:
	@deploy/install-deps.sh conformance
	cargo build --release --locked
	@deploy/conformance/http.sh
	@PYTHON2=$(PYTHON2) deploy/conformance/autobahn.sh

# Not a step of the suites above: Chromium is large. Pictures, light and dark, wide and narrow, are left to be looked at.
page:
	@deploy/install-deps.sh page
	cargo build --release --locked
	@deploy/conformance/page.sh

# Only over the veth pair: cargo bench --bench veth -- --help. Only in memory: cargo bench --package byway-bench.
bench:
	@deploy/install-deps.sh bench
	cargo bench --locked

# Fails if anything takes 5 % more instructions than the baseline; UPDATE=1 writes the baseline anew.
bench-check:
	@deploy/install-deps.sh bench
	cargo bench --locked --package byway-bench --bench instructions -- $(if $(UPDATE),--update)

# ARGS='--rounds 1 --congestion cubic --no-fairness' for a quick look; ARGS=--help for the rest.
bench-impaired:
	@deploy/install-deps.sh
	cargo bench --locked --bench impaired -- $(ARGS)

compare:
	@deploy/install-deps.sh compare
	@deploy/compare-nginx.sh

# ARGS='10 /bytes/100000' for ten seconds of that.
profile:
	@deploy/install-deps.sh profile
	@deploy/profile.sh $(ARGS)
