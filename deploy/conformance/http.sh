#!/usr/bin/env bash
# Holds byway's HTTP against the corpus of probes: over the kernel's TCP on loopback, and as root over byway's own
# between two namespaces; both by itself and over TLS.
#
#   deploy/conformance/http.sh [BYWAY]        default: target/release/byway
set -euo pipefail
cd "$(dirname "$0")/../.."

byway=${1:-${CARGO_TARGET_DIR:-target}/release/byway}
scratch=$(mktemp -d)
server= near= far=

clean_up() {
	[[ -z $server ]] || { kill "$server" && wait "$server"; } 2>/dev/null || true
	[[ -z $near ]] || ip netns del "$near" 2>/dev/null || true
	[[ -z $far ]] || ip netns del "$far" 2>/dev/null || true
	rm -rf "$scratch"
}
trap clean_up EXIT

# Starts byway, in namespace $1 if that isn't empty, and waits until it is ready.
start() {
	local prefix=()
	[[ -z $1 ]] || prefix=(ip netns exec "$1")
	shift
	: >"$scratch/out"
	"${prefix[@]}" "$byway" serve --control "$scratch/control.sock" "$@" >"$scratch/out" 2>"$scratch/err" &
	server=$!
	for _ in {1..300}; do
		grep -q '^byway ready' "$scratch/out" && return
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	cat "$scratch/err" >&2
	echo "http: byway doesn't start" >&2
	exit 1
}

stop() {
	kill "$server"
	wait "$server"
	server=
}

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=byway \
	-keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
tls=(--tls-cert "$scratch/cert.pem" --tls-key "$scratch/key.pem")

port=$(free_port) tls_port=$(free_port)
start '' --backend kernel --address 127.0.0.1/8 --port "$port" --tls-port "$tls_port" "${tls[@]}"
deploy/conformance/http.py "http://127.0.0.1:$port"
deploy/conformance/http.py "https://127.0.0.1:$tls_port"
stop

if ((EUID != 0)); then
	echo 'http: not root: not over byway'\''s own TCP'
	exit
fi
near=byway-http-$$-a far=byway-http-$$-b
ip netns add "$near"
ip netns add "$far"
ip -n "$near" link add eth0 type veth peer name eth0 netns "$far"
ip -n "$near" link set eth0 up
ip -n "$far" link set eth0 up
ip -n "$far" address add 10.77.0.1/24 dev eth0
# What a veth peer sends has no checksums otherwise.
ip netns exec "$far" ethtool -K eth0 tx off >/dev/null
start "$near" --interface eth0 --address 10.77.0.2/24 --attach native --tls-port 443 "${tls[@]}"
ip netns exec "$far" deploy/conformance/http.py http://10.77.0.2
ip netns exec "$far" deploy/conformance/http.py https://10.77.0.2
stop
