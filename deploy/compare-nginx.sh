#!/usr/bin/env bash
# byway beside nginx: GET /hello over one veth pair, one core each side, the same wrk, interleaved rounds.
#
#   deploy/compare-nginx.sh [ROUNDS [SECONDS]]        5 rounds of 5 seconds unless given
#
# The server runs on CPU 0, wrk on CPU 1. Checksum offload of the veth pair stays on for both, as it is by
# default: nginx's kernel then computes no checksums at all, while byway (--accept-partial-checksums) computes
# every one it sends. veth, copy mode: what a NIC would give is not measured here.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5} seconds=${2:-5}
byway=${BYWAY:-target/release/byway}
server=bwc$$s client=bwc$$c
work=$(mktemp -d)

fail() {
	echo "compare-nginx: $1" >&2
	exit 71
}
((EUID == 0)) || { echo "compare-nginx: needs root for network namespaces: sudo $0" >&2; exit 77; }
(($(nproc) >= 2)) || fail "needs two CPUs, one for each side"
for tool in nginx wrk ip taskset; do
	command -v $tool >/dev/null || fail "$tool is missing: deploy/install-deps.sh compare"
done
[[ -x $byway ]] || cargo build --release --locked

running=
stop() {
	[[ -n $running ]] || return 0
	kill "$running" 2>/dev/null || true
	wait "$running" 2>/dev/null || true
	running=
}
clean() {
	stop
	ip netns del $server 2>/dev/null || true
	ip netns del $client 2>/dev/null || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

ip netns add $server
ip netns add $client
ip -n $server link add srv0 type veth peer name cli0 netns $client
ip -n $server addr add 198.51.100.3/24 dev srv0
ip -n $client addr add 198.51.100.2/24 dev cli0
ip -n $server link set lo up
ip -n $server link set srv0 up
ip -n $client link set cli0 up

cat >"$work/nginx.conf" <<EOF
daemon off;
master_process off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/error.log;
events { worker_connections 1024; }
http {
	access_log off;
	keepalive_requests 1000000000;
	server {
		listen 198.51.100.3:80 reuseport;
		location = /hello { default_type text/plain; return 200 "hello\n"; }
	}
}
EOF

start_nginx() {
	ip netns exec $server taskset -c 0 nginx -c "$work/nginx.conf" 2>"$work/error.log" &
	running=$!
}
start_byway() {
	ip netns exec $server "$byway" serve --interface srv0 --address 198.51.100.1/24 --cores 0 \
		--accept-partial-checksums --control "$work/control.sock" >"$work/ready" 2>"$work/byway.log" &
	running=$!
}
# Requests a second of the server at $1.
measure() {
	local url=http://$1/hello tries=100
	until ip netns exec $client curl -sf -o /dev/null --max-time 1 "$url"; do
		((tries--)) || fail "$url doesn't answer: $(cat "$work"/*.log)"
		sleep 0.1
	done
	ip netns exec $client taskset -c 1 wrk -t1 -c64 -d"${seconds}s" --latency "$url" >"$work/wrk"
	if grep -qE 'Non-2xx|Socket errors' "$work/wrk"; then
		fail "errors from $url: $(cat "$work/wrk")"
	fi
	awk '/Requests\/sec/ { rate = $2 } /50%/ { p50 = $2 } /99%/ { p99 = $2 } END { print rate, p50, p99 }' "$work/wrk"
}
median() {
	sort -n | awk '{ value[NR] = $1 } END { print (NR % 2) ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2 }'
}

for ((round = 1; round <= rounds; round++)); do
	start_nginx
	read -r nginx_rate nginx_p50 nginx_p99 < <(measure 198.51.100.3)
	stop
	start_byway
	read -r byway_rate byway_p50 byway_p99 < <(measure 198.51.100.1)
	stop
	echo "round $round: nginx $nginx_rate/s (p50 $nginx_p50, p99 $nginx_p99), byway $byway_rate/s (p50 $byway_p50, p99 $byway_p99)"
	echo "$nginx_rate" >>"$work/nginx.rates"
	echo "$byway_rate" >>"$work/byway.rates"
	awk -v b="$byway_rate" -v n="$nginx_rate" 'BEGIN { print b / n }' >>"$work/ratios"
done

echo
sed 's/^byway ready/byway:/' "$work/ready"
echo "kernel $(uname -r), $(nginx -v 2>&1), wrk -t1 -c64 -d${seconds}s, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
printf 'GET /hello, veth, copy mode, one core each side, medians of %d interleaved rounds:\n' "$rounds"
printf '  nginx %s/s   byway %s/s   ratio %s\n' \
	"$(median <"$work/nginx.rates")" "$(median <"$work/byway.rates")" "$(median <"$work/ratios")"
