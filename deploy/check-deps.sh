#!/usr/bin/env bash
# Checks which of byway's crates know which: the arrows all point towards tcp, which knows none.
#
#   byway ──▶ datapath ──▶ tcp ◀── sim, fuzz        bench ──▶ byway, datapath, tcp
#     └─────▶ bpf           ▲
#     └─────────────────────┘                       lab: in `byway demo`, tests and benches; knows none
#                                                    pcapng: in byway and sim; knows none
#
# A crate that is not listed here fails the check, so that nobody adds one without saying where it stands.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A may_use=(
	[byway]='byway-bpf byway-datapath byway-lab byway-pcapng byway-tcp'
	[byway-bench]='byway byway-datapath byway-tcp byway-lab'
	[byway-bpf]=''
	[byway-datapath]='byway-tcp'
	[byway-fuzz]='byway-tcp'
	[byway-lab]=''
	[byway-pcapng]=''
	[byway-sim]='byway-pcapng byway-tcp'
	[byway-tcp]=''
)
# In tests, beside the above: what stands in for main.rs there.
declare -A tests_may_use=(
	[byway-bpf]='byway-lab'
	[byway-datapath]='byway-bpf byway-lab'
)

# The names of byway's own crates in what `cargo tree` prints, the first (the crate itself) and repetitions left out.
ours() {
	cargo tree --locked --package "$1" --edges "$2" --depth 1 --prefix none --format '{p}' |
		awk 'NR > 1 && $1 ~ /^byway(-|$)/ { print $1 }' | sort -u
}

failed=0
check() { # crate, kind of edge, what is allowed
	local used
	for used in $(ours "$1" "$2"); do
		if [[ " $3 " != *" $used "* ]]; then
			echo "check-deps: $1 must not use $used (${2} dependency)" >&2
			failed=1
		fi
	done
}

crates=$(cargo tree --locked --workspace --depth 0 --prefix none --format '{p}' | awk 'NF { print $1 }' | sort -u)
for crate in $crates; do
	if [[ ! -v may_use[$crate] ]]; then
		echo "check-deps: $crate has no place in deploy/check-deps.sh yet" >&2
		failed=1
		continue
	fi
	check "$crate" normal "${may_use[$crate]}"
	check "$crate" build "${may_use[$crate]}"
	# A crate's own tests may name the crate itself, to switch a feature on.
	check "$crate" dev "$crate ${may_use[$crate]} ${tests_may_use[$crate]-}"
done

((failed == 0)) && echo "check-deps: the crates know only whom they may"
exit "$failed"
