#!/usr/bin/env bash
# Looks at the page in a headless Chromium over a veth pair: byway in one namespace with native attach, the browser in
# the other; without and with TLS. Screenshots, light and dark, wide and narrow, stay in target/page.
#
#   deploy/conformance/page.sh [BYWAY]        default: target/release/byway
set -euo pipefail
cd "$(dirname "$0")/../.."

speaker=page
# shellcheck source=deploy/bed.sh
. deploy/bed.sh
need_root
need_byway "${1-}"
command -v chromium chromedriver >/dev/null || fail 'no Chromium: deploy/install-deps.sh page' 71

make_pair 10.79.0.1/24
make_checksums
make_certificate 10.79.0.2
inside=(ip netns exec $near)
start --interface eth0 --address 10.79.0.2/24 --attach native \
	--tls-port 443 --tls-cert "$scratch/cert.pem" --tls-key "$scratch/key.pem"
cat "$scratch/out"

# Chromium leaves its profile in TMPDIR. -I: beside the script lies one named as a module of the library, http.
for scheme in http https; do
	ip netns exec $far env TMPDIR="$scratch" timeout 300 \
		python3 -I deploy/conformance/page.py $scheme://10.79.0.2/ "$target/page/$scheme"
done
stop
