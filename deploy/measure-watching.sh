#!/usr/bin/env bash
# What it costs byway serve to be watched: requests/s over a veth pair, one core each side, with a watcher and without,
# in turns. On a host that does nothing else.
#
#   deploy/measure-watching.sh [ROUNDS [SECONDS [CONNECTIONS]]]       5 rounds of 5 s with 64 connections unless given
#
# With a third core the watchers run there; without, they take their own processor time from what they watch, which the
# ratios then hold, too. CONNECTIONS up to 28,232. `make bench-check` counts the core's own part in instructions.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5} seconds=${2:-5} connections=${3:-64}
speaker=measure-watching
# shellcheck source=deploy/bed.sh
. deploy/bed.sh

need_root
need_byway "${BYWAY-}"
(($(nproc) >= 2)) || fail "needs two CPUs, one for each side" 71
if (($(nproc) > 2)); then other=2; else other=0-1; echo "two CPUs: watchers share them with what they watch" >&2; fi

make_pair
inside=(ip netns exec $near)
start --interface eth0 --address 198.51.100.1/24 --cores 0

watch_as() {
	local capture=("$byway" capture --control "$scratch/control.sock" -w /dev/null)
	case $1 in
	nobody) exec sleep infinity ;;
	'conns and stats each 100 ms')
		while :; do
			"$byway" conns --json --control "$scratch/control.sock" >/dev/null 2>&1
			"$byway" stats --json --control "$scratch/control.sock" >/dev/null
			sleep 0.1
		done
		;;
	'capture, a filter that takes nothing') exec "${capture[@]}" 'udp port 53 or arp' 2>/dev/null ;;
	'capture, 96 octets a frame') exec "${capture[@]}" --snaplen 96 2>/dev/null ;;
	'capture, whole frames') exec "${capture[@]}" 2>/dev/null ;;
	esac
}
ways=('nobody' 'conns and stats each 100 ms' 'capture, a filter that takes nothing' 'capture, 96 octets a frame'
	'capture, whole frames')

for ((round = 0; round < rounds; round++)); do
	for way in "${ways[@]}"; do
		export -f watch_as
		export byway scratch
		taskset --cpu-list $other bash -c 'watch_as "$1"' watch "$way" &
		watcher=$!
		children+=("$watcher")
		ip netns exec $far "$byway" load --interface eth0 --address 198.51.100.2/24 --cores 1 --connections "$connections" \
			--control "$scratch/load.sock" --duration "${seconds}s" --json "$scratch/result" http://198.51.100.1/hello >/dev/null
		kill "$watcher" 2>/dev/null || true
		wait "$watcher" 2>/dev/null || true
		unset 'children[-1]'
		rate=$(sed -n 's/.*"requests_per_second": *\([0-9.]*\).*/\1/p' "$scratch/result" | head -n1)
		printf '%s\t%s\n' "$way" "$rate" >>"$scratch/rates"
		echo "round $((round + 1)): $way: $rate requests/s" >&2
	done
done

# Each round's ratio to nobody's of the same round, and their median.
awk -F'\t' -v rounds="$rounds" '
	$1 == "nobody" { base = $2; next }
	{ n = ++count[$1]; ratio[$1, n] = $2 / base; if (n == 1) order[++ways] = $1 }
	END {
		print "watched by | median of ratios to nobody | least | most"
		for (w = 1; w <= ways; w++) {
			way = order[w]; n = count[way]
			for (i = 1; i <= n; i++) sorted[i] = ratio[way, i]
			for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (sorted[j] < sorted[i]) {
				swap = sorted[i]; sorted[i] = sorted[j]; sorted[j] = swap
			}
			printf "%s | %.3f | %.3f | %.3f\n", way, sorted[int((n + 1) / 2)], sorted[1], sorted[n]
		}
	}' "$scratch/rates"
