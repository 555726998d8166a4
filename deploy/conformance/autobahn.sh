#!/usr/bin/env bash
# Holds byway's WebSocket against the Autobahn test suite's fuzzing client, all its cases, and against Python's
# `websockets`, over a veth pair: byway in one namespace with native attach, the clients in the other.
#
#   deploy/conformance/autobahn.sh [BYWAY]        default: target/release/byway
#
#   PYTHON2=/path/python2.7    what the suite runs on [default: python2.7 of PATH, or pyenv's 2.7.18]
#   CASES='1.* 12.1.*'         only these
#   SCHEMES=wss                only over TLS [default: 'ws wss', one after the other]
#   SERVE='--deflaters 0 …'    more options of `byway serve`
#
# Fails unless every case is OK; what the suite calls INFORMATIONAL has no right and wrong. Its reports stay in
# target/conformance/autobahn. Takes ten to twenty minutes for each scheme, nearly all of them the clients'.
set -euo pipefail
cd "$(dirname "$0")/../.."

speaker=autobahn
# shellcheck source=deploy/bed.sh
. deploy/bed.sh
schemes=${SCHEMES:-ws wss}
cases=${CASES:-*}
here=deploy/conformance
# pyenv's shim is there also for a version that isn't chosen: only what runs counts.
if python2=${PYTHON2:-python2.7} && ! "$python2" -c '' 2>/dev/null; then
	python2=${PYENV_ROOT:-$HOME/.pyenv}/versions/2.7.18/bin/python2.7
fi
reports=$target/conformance/autobahn

need_root
need_byway "${1-}"
[[ -z ${PYTHON2-} || $python2 == "$PYTHON2" ]] || fail "PYTHON2=$PYTHON2 doesn't run" 71
"$python2" -c '' 2>/dev/null || fail "the suite is for Python 2.7: pyenv install 2.7.18, or PYTHON2=/path/python2.7" 71

# The environments, outside the repository, and made anew when the pins or the interpreter change.
pins=$(cat $here/*-requirements.txt <(echo "$python2") | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/byway/conformance-$pins
if [[ ! -e $cache/complete ]]; then
	echo "autobahn: making $cache"
	rm -rf "$cache"
	mkdir -p "$cache"
	{
		python3 -m venv "$cache/3" &&
			"$cache/3/bin/pip" install -r $here/websockets-requirements.txt &&
			"$cache/3/bin/virtualenv" --python "$python2" "$cache/2" &&
			"$cache/2/bin/pip" install --no-deps -r $here/autobahn-requirements.txt
	} >"$scratch/made" 2>&1 || fail "can't make the environment (deploy/install-deps.sh conformance): $(tail -n 3 "$scratch/made")" 71
	touch "$cache/complete"
fi

make_pair 10.78.0.1/24
make_checksums
make_certificate 10.78.0.2
inside=(ip netns exec $near)
# shellcheck disable=SC2086 # SERVE is several words
start --interface eth0 --address 10.78.0.2/24 --attach native \
	--tls-port 443 --tls-cert "$scratch/cert.pem" --tls-key "$scratch/key.pem" ${SERVE:-}
cat "$scratch/out"

[[ $cases == '*' ]] && expected=517 || expected=0
# Three clients at once, each with a part of the cases: they are what takes the time.
run_suite() {
	local scheme=$1 url=$1://10.78.0.2 part=0 clients=() client share
	ip netns exec $far env SSL_CERT_FILE="$scratch/cert.pem" timeout 120 \
		"$cache/3/bin/python" $here/websockets.py "$url"
	rm -rf "${reports:?}/$scheme"
	mkdir -p "$reports/$scheme"
	for share in "1.* 2.* 3.* 4.* 5.* 6.* 7.* 9.* 10.*" "12.*" "13.*"; do
		part=$((part + 1))
		$here/autobahn.py spec "$url" "$reports/$scheme/$part" "$share" "$cases" >"$scratch/spec-$part.json" || continue
		ip netns exec $far timeout 3600 "$cache/2/bin/wstest" -m fuzzingclient -s "$scratch/spec-$part.json" \
			>"$reports/$scheme/$part.log" 2>&1 &
		clients+=($!)
		children+=($!)
	done
	for client in "${clients[@]}"; do
		wait "$client" || fail "a fuzzing client failed: $reports/$scheme"
	done
	kill -0 $server 2>/dev/null || fail "byway is gone: $(cat "$scratch/err")"
	$here/autobahn.py report $expected "$reports/$scheme"/*/index.json
}
for scheme in $schemes; do
	echo "autobahn: over $scheme"
	run_suite "$scheme"
done
stop
