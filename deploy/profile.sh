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
out=target/profile
speaker=profile
# shellcheck source=deploy/bed.sh
. deploy/bed.sh

need_root
(($(nproc) >= 2)) || fail "needs two CPUs, one for each side" 71
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v perf >/dev/null || fail "perf is missing: deploy/install-deps.sh profile" 71
mkdir -p $out
[[ -x $out/bin/inferno-flamegraph ]] ||
	cargo install --quiet --locked --root $out --version $inferno inferno

# Frame pointers, so that perf needn't copy the stack at every sample; in a folder of its own, for they change every crate.
RUSTFLAGS='-C force-frame-pointers=yes' cargo build --release --locked --target-dir $out
need_byway $out/release/byway

make_pair
inside=(ip netns exec $near)
start --interface eth0 --address 198.51.100.1/24 --cores 0
ip netns exec $far "$byway" load --interface eth0 --address 198.51.100.2/24 --cores 1 \
	--control "$scratch/load.sock" --duration "$((seconds + 4))s" "http://198.51.100.1$path" >"$scratch/load" &
load=$!
children+=("$load")
sleep 2

# 999: not in step with anything that happens a thousand times a second.
perf record --quiet --event cpu-clock --freq 999 --call-graph fp --pid "$server" --output "$scratch/perf.data" -- sleep "$seconds"
perf script --input "$scratch/perf.data" 2>/dev/null | $out/bin/inferno-collapse-perf --kernel >$out/loop.folded
$out/bin/inferno-flamegraph --title "byway serve, GET $path, veth, copy mode" --colors java <$out/loop.folded >$out/loop.svg
wait "$load" || true
cat "$scratch/load"
echo
# The innermost functions with the most samples.
awk '{ n = $NF; sub(/ [0-9]+$/, ""); k = split($0, stack, ";"); self[stack[k]] += n; all += n }
	END { for (f in self) printf "%5.1f %% %s\n", 100 * self[f] / all, f }' $out/loop.folded | sort -rn | head -n 25
echo
echo "the whole picture: $out/loop.svg"
