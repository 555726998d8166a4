#!/usr/bin/env bash
# Looks at the page in a headless Chromium over a veth pair: byway in one namespace with native attach, the browser in
# the other; without and with TLS. Screenshots, light and dark, wide and narrow, stay in target/page.
#
#   deploy/conformance/page.sh [BYWAY]        default: target/release/byway
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
byway=${1:-$target/release/byway}
scratch=$(mktemp -d)
server= near=byway-page-$$-a far=byway-page-$$-b

fail() {
	echo "page: $1" >&2
	exit "${2:-1}"
}
((EUID == 0)) || fail "needs root for network namespaces: sudo $0" 77
[[ -x $byway ]] || fail "$byway isn't there: cargo build --release --locked" 71
command -v chromium chromedriver >/dev/null || fail 'no Chromium: deploy/install-deps.sh page' 71

clean_up() {
	[[ -z $server ]] || { kill "$server" && wait "$server"; } 2>/dev/null || true
	# A browser that was interrupted: nobody else is in there.
	ip netns pids "$far" 2>/dev/null | xargs -r kill 2>/dev/null || true
	ip netns del "$near" 2>/dev/null || true
	ip netns del "$far" 2>/dev/null || true
	rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

ip netns add "$near"
ip netns add "$far"
ip -n "$near" link add eth0 type veth peer name eth0 netns "$far"
ip -n "$near" link set eth0 up
ip -n "$far" link set eth0 up
ip -n "$far" link set lo up
ip -n "$far" address add 10.79.0.1/24 dev eth0
# What a veth peer sends has no checksums otherwise.
ip netns exec "$far" ethtool -K eth0 tx off >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=byway \
	-keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
ip netns exec "$near" "$byway" serve --interface eth0 --address 10.79.0.2/24 --attach native \
	--tls-port 443 --tls-cert "$scratch/cert.pem" --tls-key "$scratch/key.pem" --control "$scratch/control.sock" >"$scratch/out" 2>"$scratch/err" &
server=$!
for _ in {1..300}; do
	grep -q '^byway ready' "$scratch/out" && break
	kill -0 $server 2>/dev/null || fail "byway doesn't start: $(cat "$scratch/err")"
	sleep 0.1
done
grep '^byway ready' "$scratch/out" || fail "byway isn't ready after 30 s: $(cat "$scratch/err")"

# Chromium leaves its profile in TMPDIR. -I: beside the script lies one named as a module of the library, http.
for scheme in http https; do
	ip netns exec "$far" env TMPDIR="$scratch" timeout 300 \
		python3 -I deploy/conformance/page.py $scheme://10.79.0.2/ "$target/page/$scheme"
done
kill -0 $server 2>/dev/null || fail "byway is gone: $(cat "$scratch/err")"
