#!/usr/bin/env bash
# Where a core's time goes: a flame graph of byway serve under load, over one veth pair, one core each side.
#
#   deploy/profile.sh [SECONDS [PATH]]       10 seconds of GET /hello unless given; PATH as in /bytes/100000
#
# Writes target/profile/loop.svg, to be opened in a browser, and loop.folded, a line for each stack. What the kernel
# does in byway's name (AF_XDP's copies, the softirq of the veth pair) is in it, too: orange, and marked _[k].
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-10} path=${2:-/hello}
inferno=0.12.8
server=bwp$$s client=bwp$$c
out=target/profile
work=$(mktemp -d)

fail() {
	echo "profile: $1" >&2
	exit 71
}
((EUID == 0)) || { echo "profile: needs root for network namespaces and perf: sudo $0" >&2; exit 77; }
(($(nproc) >= 2)) || fail "needs two CPUs, one for each side"
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v perf >/dev/null || fail "perf is missing: deploy/install-deps.sh profile"
mkdir -p $out
[[ -x $out/bin/inferno-flamegraph ]] ||
	cargo install --quiet --locked --root $out --version $inferno inferno

# Frame pointers, so that perf needn't copy the stack at every sample; in a folder of its own, for they change every crate.
RUSTFLAGS='-C force-frame-pointers=yes' cargo build --release --locked --target-dir $out
byway=$out/release/byway

pids=()
clean() {
	((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
	wait 2>/dev/null || true
	ip netns del $server 2>/dev/null || true
	ip netns del $client 2>/dev/null || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

ip netns add $server
ip netns add $client
ip -n $server link add srv0 type veth peer name cli0 netns $client
ip -n $server link set srv0 up
ip -n $client link set cli0 up

ip netns exec $server "$byway" serve --interface srv0 --address 198.51.100.1/24 --cores 0 \
	--control "$work/serve.sock" >"$work/ready" &
pids+=($!)
until grep -q '^byway ready' "$work/ready"; do
	kill -0 "${pids[0]}" 2>/dev/null || fail "byway serve has ended"
	sleep 0.1
done
ip netns exec $client "$byway" load --interface cli0 --address 198.51.100.2/24 --cores 1 \
	--control "$work/load.sock" --duration "$((seconds + 4))s" "http://198.51.100.1$path" >"$work/load" &
pids+=($!)
sleep 2

# 999: not in step with anything that happens a thousand times a second.
perf record --quiet --event cpu-clock --freq 999 --call-graph fp --pid "${pids[0]}" --output "$work/perf.data" -- sleep "$seconds"
perf script --input "$work/perf.data" 2>/dev/null | $out/bin/inferno-collapse-perf --kernel >$out/loop.folded
$out/bin/inferno-flamegraph --title "byway serve, GET $path, veth, copy mode" --colors java <$out/loop.folded >$out/loop.svg
wait "${pids[1]}" || true
cat "$work/load"
echo
# The innermost functions with the most samples.
awk '{ n = $NF; sub(/ [0-9]+$/, ""); k = split($0, stack, ";"); self[stack[k]] += n; all += n }
	END { for (f in self) printf "%5.1f %% %s\n", 100 * self[f] / all, f }' $out/loop.folded | sort -rn | head -n 25
echo
echo "the whole picture: $out/loop.svg"
