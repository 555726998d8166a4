# Sourced by scripts that run byway in one namespace and its clients in another, joined by a veth pair. What they have
# started and made here goes when they end, however they end.
#
#   speaker    who complains: the script's name, set before this is sourced
#   $byway     the program (need_byway); $scratch, a folder; $near and $far, the namespaces: set here
#   children   what else is to be ended: scripts add to it

target=${CARGO_TARGET_DIR:-target}
near=bw$$a far=bw$$b
scratch=$(mktemp -d)
children=()
server=''

fail() {
	echo "$speaker: $1" >&2
	exit "${2:-1}"
}

clean_up() {
	local child
	for child in ${server:+"$server"} "${children[@]}"; do
		kill "$child" 2>/dev/null && wait "$child" 2>/dev/null || true
	done
	# What those have started in turn and left: nobody else is in there.
	ip netns pids $far 2>/dev/null | xargs -r kill 2>/dev/null || true
	ip netns del $near 2>/dev/null || true
	ip netns del $far 2>/dev/null || true
	rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

need_byway() {
	byway=${1:-$target/release/byway}
	[[ -x $byway ]] || fail "$byway isn't there: cargo build --release --locked" 71
}

need_root() {
	((EUID == 0)) || fail "needs root for network namespaces: sudo $0" 77
}

# eth0 in both; the clients' has address $1, if it is to have one of the kernel's.
make_pair() {
	ip netns add $near
	ip netns add $far
	ip -n $near link add eth0 type veth peer name eth0 netns $far
	ip -n $near link set eth0 up
	ip -n $far link set eth0 up
	ip -n $far link set lo up
	[[ -z ${1-} ]] || ip -n $far address add "$1" dev eth0
}

# What a veth peer sends has no checksums otherwise.
make_checksums() {
	ip netns exec $far ethtool -K eth0 tx off >/dev/null
}

# cert.pem and key.pem for address $1.
make_certificate() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=byway \
		-addext "subjectAltName=IP:$1" -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
}

# Starts `byway serve` with these options, behind the words of the array `inside` if there are any, until it is ready.
start() {
	: >"$scratch/out"
	"${inside[@]}" "$byway" serve --control "$scratch/control.sock" "$@" >"$scratch/out" 2>"$scratch/err" &
	server=$!
	for _ in {1..300}; do
		grep -q '^byway ready' "$scratch/out" && return
		kill -0 "$server" 2>/dev/null || fail "byway doesn't start: $(cat "$scratch/err")"
		sleep 0.1
	done
	fail "byway isn't ready after 30 s: $(cat "$scratch/err")"
}

# It must still be there, and end well.
stop() {
	kill "$server" 2>/dev/null || fail "byway is gone: $(cat "$scratch/err")"
	wait "$server" || fail "byway didn't end well: $(cat "$scratch/err")"
	server=''
}
