#!/usr/bin/env bash
# Holds byway's HTTP against the corpus of probes: over the kernel's TCP on loopback, and as root over byway's own
# between two namespaces; both by itself and over TLS.
#
#   deploy/conformance/http.sh [BYWAY]        default: target/release/byway
set -euo pipefail
cd "$(dirname "$0")/../.."

speaker=http
# shellcheck source=deploy/bed.sh
. deploy/bed.sh
need_byway "${1-}"

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

make_certificate 10.77.0.2
tls=(--tls-cert "$scratch/cert.pem" --tls-key "$scratch/key.pem")

port=$(free_port) tls_port=$(free_port)
inside=()
start --backend kernel --address 127.0.0.1/8 --port "$port" --tls-port "$tls_port" "${tls[@]}"
deploy/conformance/http.py "http://127.0.0.1:$port"
deploy/conformance/http.py "https://127.0.0.1:$tls_port"
stop

if ((EUID != 0)); then
	echo 'http: not root: not over byway'\''s own TCP'
	exit
fi
make_pair 10.77.0.1/24
make_checksums
inside=(ip netns exec $near)
start --interface eth0 --address 10.77.0.2/24 --attach native --tls-port 443 "${tls[@]}"
ip netns exec $far deploy/conformance/http.py http://10.77.0.2
ip netns exec $far deploy/conformance/http.py https://10.77.0.2
stop
