#!/usr/bin/env bash
# What byway at a shared address (--host-address) costs the kernel's own TCP on the same interface, over a veth pair, in
# interleaved rounds: nothing attached, a program that passes everything, byway. The second tells byway's part from what
# native XDP itself costs on veth, which then copies each packet and does without segmentation offload.
#
#   deploy/measure-host-address.sh [BYWAY]        default: target/release/byway; as root
#
#   ROUNDS=5        each with two seconds of each kind
#   OFFLOADS=off    of both ends: so that none of them loses any by XDP [default: as they are]
set -euo pipefail
cd "$(dirname "$0")/.."

byway=${1:-${CARGO_TARGET_DIR:-target}/release/byway}
here=bwmh$$s there=bwmh$$c
scratch=$(mktemp -d)
sink='' serving=''

fail() {
	echo "measure-host-address: $1" >&2
	exit "${2:-1}"
}
((EUID == 0)) || fail "needs root for network namespaces: sudo $0" 77
[[ -x $byway ]] || fail "$byway isn't there: cargo build --release --locked" 71

clean_up() {
	local pid
	for pid in $serving $sink; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
	done
	ip netns del $here 2>/dev/null || true
	ip netns del $there 2>/dev/null || true
	rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

cat >"$scratch/pass.c" <<'C'
#include <linux/bpf.h>
__attribute__((section("xdp.frags"), used)) int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
C
clang -O2 -g -target bpf -I"/usr/include/$(uname -m)-linux-gnu" -c "$scratch/pass.c" -o "$scratch/pass.o"

cat >"$scratch/tcp.py" <<'PY'
import socket, sys, time
address = ("192.0.2.1", 5001)
if sys.argv[1] == "sink":
    with socket.create_server(address) as server:
        buffer = bytearray(1 << 20)
        while True:
            connection, _ = server.accept()
            with connection:
                while connection.recv_into(buffer):
                    pass
with socket.create_connection(address) as connection:
    octets, sent, start = bytes(1 << 18), 0, time.monotonic()
    while (passed := time.monotonic() - start) < 2:
        connection.sendall(octets)
        sent += len(octets)
    print(f"{sent * 8 / passed / 1e9:.2f}")
PY

ip netns add $here
ip netns add $there
ip -n $here link add byway0 type veth peer name peer0 netns $there
if [[ ${OFFLOADS-} == off ]]; then
	ip netns exec $here ethtool -K byway0 tx off tso off gso off gro off >/dev/null
	ip netns exec $there ethtool -K peer0 tx off tso off gso off gro off >/dev/null
fi
ip -n $here address add 192.0.2.1/24 dev byway0
ip -n $there address add 192.0.2.2/24 dev peer0
ip -n $here link set byway0 up
ip -n $there link set peer0 up
ip netns exec $here python3 "$scratch/tcp.py" sink &
sink=$!
sleep 0.5

send() {
	ip netns exec $there python3 "$scratch/tcp.py" send
}
for ((round = 0; round < ${ROUNDS:-5}; round++)); do
	nothing=$(send)
	ip -n $here link set dev byway0 xdpdrv obj "$scratch/pass.o" sec xdp.frags
	pass=$(send)
	ip -n $here link set dev byway0 xdpdrv off
	ip netns exec $here "$byway" serve --interface byway0 --host-address --control "$scratch/control.sock" \
		>"$scratch/out" 2>"$scratch/err" &
	serving=$!
	until grep -q '^byway ready' "$scratch/out"; do
		kill -0 $serving 2>/dev/null || fail "byway doesn't start: $(cat "$scratch/err")"
		sleep 0.05
	done
	echo "Gbit/s of the kernel's TCP: nothing attached $nothing, an empty program $pass, byway $(send)"
	kill $serving
	wait $serving || true
	serving=''
done
