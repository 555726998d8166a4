#!/usr/bin/env bash
# `make test-nic`: byway in zero-copy mode on virtio-net and an emulated Intel igb; see test.py.
#
#   deploy/nic/run.sh [BYWAY]        default: target/release/byway
#
#   BYWAY_CACHE=/var/cache/byway     where QEMU, the kernel and the WebSocket client are kept (some 350 MB)
#   BYWAY_KVM=1                      by KVM, where there is one, instead of by emulation
#   ONLY='igb'                       only this NIC
set -euo pipefail
cd "$(dirname "$0")/../.."

byway=${1:-${CARGO_TARGET_DIR:-target}/release/byway}
cache=${BYWAY_CACHE:-/var/cache/byway}/nic

fail() {
	echo "test-nic: $1" >&2
	exit "$2"
}
((EUID == 0)) || fail "needs root for a network namespace and taps: sudo make test-nic" 77
[[ $(uname -m) == x86_64 ]] || fail 'the kernel and QEMU that it fetches are for x86-64' 71
[[ -x $byway ]] || fail "$byway isn't there: cargo build --release --locked" 71
mkdir -p "$cache"
deploy/nic/fetch.sh "$cache"
echo "test-nic: $(paste -sd, "$cache/versions" | sed 's/,/, /') (from $cache; remove it to fetch anew)"
# Others may do as well, and a failure may be theirs.
if ! diff -q <(grep -v '^snapshot' deploy/nic/tested) "$cache/versions" >/dev/null; then
	tested=$(grep -v '^snapshot' deploy/nic/tested | paste -sd, | sed 's/,/, /')
	echo "test-nic: WARNING: not the versions that byway was last tested with ($tested)" >&2
fi
# shellcheck disable=SC2086 # words
exec deploy/nic/test.py "$cache" "$byway" ${ONLY-}
