#!/usr/bin/env bash
# Installs what byway is built and run with, as far as it is missing: Debian 12 or newer, by apt.
#
#   deploy/install-deps.sh            to build and run
#   deploy/install-deps.sh test       and what some tests use; they skip themselves without it
#   deploy/install-deps.sh compare    and what the comparison with nginx uses
#   deploy/install-deps.sh conformance  and what the suites of `make conformance` run on
#   deploy/install-deps.sh nic        and what `make test-nic` runs on
#   deploy/install-deps.sh page       and the browser that `make page` looks at the page in
#   deploy/install-deps.sh profile    and what a profile is taken with
#   deploy/install-deps.sh bench      and what the benches use; they skip what they can't measure without it
set -euo pipefail

# The XDP program: clang, and the kernel's and libc's headers. libbpf and libxdp are built from the sources that
# their crates bring along: gcc, make, m4, llvm (llvm-strip), pkg-config; libelf and zlib are linked; libxdp's configure
# refuses to go on without libpcap, though nothing of it is used.
build=(clang llvm gcc libc6-dev linux-libc-dev make m4 pkg-config libelf-dev libpcap-dev zlib1g-dev)
# The lab and the demo build their network with these; curl is the demo's client; certificates are for cargo's
# downloads.
run=(iproute2 ethtool curl ca-certificates)
test=(iputils-ping openssl tshark)
compare=(nginx-light wrk)
conformance=(python3 python3-venv openssl)
nic=(python3 python3-venv iputils-ping debian-archive-keyring)
page=(python3 openssl chromium chromium-driver fonts-dejavu-core)
profile=(linux-perf)
bench=(nginx-light valgrind)

# workspace.package.rust-version; Debian 12's own rustc is older.
rust=1.88

fail() {
	echo "install-deps: $1" >&2
	exit 71
}

# Of the packages named, those that are not installed.
missing() {
	local package
	for package in "$@"; do
		[[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
			echo "$package"
	done
}

# Non-interactive: no questions, no terminal; waits for an apt that runs already.
apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

install() {
	((${#} > 0)) || return 0
	((EUID == 0)) || fail "$* missing, and only root can install: sudo $0"
	echo "install-deps: installing $*"
	# nginx is wanted as a program: Debian would start it as a service at once, on port 80.
	if [[ ! -e /usr/sbin/policy-rc.d ]]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
	apt update || echo "install-deps: apt-get update failed; trying with the package lists that are here" >&2
	apt install --no-install-recommends "$@" >/dev/null
}

case ${1-} in
'') optional=() ;;
test) optional=("${test[@]}") ;;
compare) optional=("${compare[@]}") ;;
conformance) optional=("${conformance[@]}") ;;
nic) optional=("${nic[@]}") ;;
page) optional=("${page[@]}") ;;
profile) optional=("${profile[@]}") ;;
bench) optional=("${bench[@]}") ;;
*) fail "no list named '$1': use none, test, compare, conformance, nic, page, bench or profile" ;;
esac

{ command -v apt-get && command -v dpkg-query; } >/dev/null ||
	fail "no apt here; install the equivalents of: ${build[*]} ${run[*]} ${optional[*]}"

mapfile -t packages < <(missing "${build[@]}" "${run[@]}")
install "${packages[@]}" || fail "apt could not install ${packages[*]}"

mapfile -t packages < <(missing "${optional[@]}")
if ((${#packages[@]} > 0)); then
	if [[ $1 != compare ]] && ((EUID != 0)); then
		echo "install-deps: ${packages[*]} missing; what uses them skips itself" >&2
	elif ! install "${packages[@]}"; then
		[[ $1 != compare ]] || fail "apt could not install ${packages[*]}"
		echo "install-deps: apt could not install ${packages[*]}; what uses them skips itself" >&2
	fi
fi

# rustup puts cargo here, and not every shell has read its profile.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v cargo >/dev/null ||
	fail "no cargo: install Rust $rust or newer from https://rustup.rs"
version=$(cargo --version | cut -d' ' -f2)
[[ $(printf '%s\n' "$rust" "$version" | sort -V | head -n1) == "$rust" ]] ||
	fail "cargo is $version, but byway needs $rust or newer: rustup update stable"
