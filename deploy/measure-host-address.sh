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

speaker=measure-host-address
# shellcheck source=deploy/bed.sh
. deploy/bed.sh

need_root
need_byway "${1-}"

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

make_pair 192.0.2.2/24
if [[ ${OFFLOADS-} == off ]]; then
	for end in $near $far; do
		ip netns exec $end ethtool -K eth0 tx off tso off gso off gro off >/dev/null
	done
fi
ip -n $near address add 192.0.2.1/24 dev eth0
inside=(ip netns exec $near)
"${inside[@]}" python3 "$scratch/tcp.py" sink &
children+=($!)
sleep 0.5

send() {
	ip netns exec $far python3 "$scratch/tcp.py" send
}
for ((round = 0; round < ${ROUNDS:-5}; round++)); do
	nothing=$(send)
	ip -n $near link set dev eth0 xdpdrv obj "$scratch/pass.o" sec xdp.frags
	pass=$(send)
	ip -n $near link set dev eth0 xdpdrv off
	start --interface eth0 --host-address
	echo "Gbit/s of the kernel's TCP: nothing attached $nothing, an empty program $pass, byway $(send)"
	stop
done
