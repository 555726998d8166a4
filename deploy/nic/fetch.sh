#!/usr/bin/env bash
# Fetches what `make test-nic` boots, from Debian's archives, into a cache outside the repository, and says where:
#
#   deploy/nic/fetch.sh DIRECTORY        → DIRECTORY/qemu, DIRECTORY/kernel; nothing is fetched that is there already
#
# Nothing of it is installed: QEMU comes with all its libraries and runs beside the system's. QEMU from
# bookworm-backports, since the emulated igb came with 8.1; the kernel from trixie-backports, since igb can do
# zero-copy from 6.14 on (virtio-net from 6.11). Both as they were on the day that the file `tested` names, from
# snapshot.debian.org; where that can't be reached, today's. Which versions came is written to DIRECTORY/versions.
#
#   DEBIAN_SNAPSHOT=http://…/debian  where the day's archive is; DEBIAN_MIRROR=http://…/debian for today's
set -euo pipefail

cache=${1:?a directory}
day=$(sed -n 's/^snapshot //p' "$(dirname "$0")/tested")
mirror=${DEBIAN_SNAPSHOT:-http://snapshot.debian.org/archive/debian/$day}
today=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
	echo "test-nic: $1" >&2
	exit 71
}

[[ -e $cache/versions ]] && exit
[[ -r $keyring ]] || fail "no $keyring: apt-get install debian-archive-keyring"
mkdir -p "$cache"
scratch=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
# apt's own user reads what lies here.
chmod 755 "$scratch"

# An apt of our own, which believes that nothing is installed: so it names all that QEMU needs.
mkdir -p "$scratch"/{lists/partial,archives/partial,qemu,kernel}
: >"$scratch/status"
sources() {
	for suite in bookworm bookworm-backports trixie-backports; do
		echo "deb [signed-by=$keyring] $1 $suite main"
	done >"$scratch/sources.list"
}
cat >"$scratch/apt.conf" <<-END
	Dir::State "$scratch";
	Dir::State::status "$scratch/status";
	Dir::Cache "$scratch";
	Dir::Etc::sourcelist "$scratch/sources.list";
	Dir::Etc::sourceparts "/dev/null";
	Dir::Etc::preferencesparts "/dev/null";
	APT::Architecture "amd64";
	APT::Install-Recommends "false";
	APT::Sandbox::User "root";
	Acquire::Languages "none";
	Acquire::Retries "3";
	Acquire::http::Timeout "20";
END
# What a snapshot says of how long it is good for has passed; its signature is as good as ever.
snapshot='Acquire::Check-Valid-Until "false"; Acquire::Retries "0";'
export APT_CONFIG=$scratch/apt.conf

# Downloads the packages named, which are of suite $1, and unpacks all that come into directory $2.
unpack() {
	local suite=$1 into=$2 package
	shift 2
	rm -f "$scratch"/archives/*.deb
	apt-get -qq --download-only -t "$suite" "$@" >"$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
	for package in "$scratch"/archives/*.deb; do
		dpkg-deb --extract "$package" "$into"
	done
}

# The version of the newest package $2 of suite $1.
version() {
	apt-cache show "$2/$1" | sed -n 's/^Version: //p' | head -n1
}

# What the newest package of suite $1 called $2 depends on, as far as it matches $3.
depends() {
	apt-cache show "$2/$1" | sed -n 's/^Depends: //p' | head -n1 | tr ',' '\n' | grep -oE "$3" | head -n1
}

echo "test-nic: fetching QEMU and a kernel into $cache (some 160 MB, once)"
sources "$mirror"
cp "$scratch/apt.conf" "$scratch/apt.today"
echo "$snapshot" >>"$scratch/apt.conf"
if ! apt-get -qq --error-on=any update >"$scratch/log" 2>&1; then
	echo "test-nic: $mirror can't be had ($(grep -m1 -o 'Could not.*\|Err:.*\|E: .*' "$scratch/log")): today's instead" >&2
	cp "$scratch/apt.today" "$scratch/apt.conf"
	sources "$today"
	apt-get -qq update >"$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
fi
unpack bookworm-backports "$scratch/qemu" install qemu-system-x86 busybox-static
# The kernel's own dependencies are for installing it.
image=$(depends trixie-backports linux-image-amd64 'linux-image-[^ ]*')
binary=$(depends trixie-backports "$image" 'linux-binary-[^ ]*' || true)
modules=$(depends trixie-backports "$image" 'linux-modules-[^ ]*' || true)
cd "$scratch/archives"
rm -f ./*.deb
for package in "$image" $binary $modules; do
	apt-get -qq download "$package/trixie-backports" >"$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
done
for package in ./*.deb; do
	dpkg-deb --extract "$package" "$scratch/kernel"
done
cd "$cache"

rm -rf "$cache/qemu" "$cache/kernel"
mv "$scratch/qemu" "$scratch/kernel" "$cache/"
# Last: it says that all the rest is there.
{
	echo "qemu $(version bookworm-backports qemu-system-x86)"
	echo "linux $(version trixie-backports linux-image-amd64)"
} >"$cache/versions.new"
mv "$cache/versions.new" "$cache/versions"
