#!/usr/bin/env python3
"""byway in zero-copy mode on real drivers: a virtual machine with a virtio-net and an igb NIC, clients outside.

    test.py CACHE BYWAY        what fetch.sh fetched, and the program; as root

             namespace bwnic<pid>                                    │  virtual machine (emulated: correctness only)
    curl, websockets, ping ── br-IF (10.79.N.1, fd79:N::1) ── tap-IF ┼─ nic-IF: byway serve (10.79.N.2, fd79:N::2)
    byway load (10.79.N.3) ── veth ────┘                             │  and the kernel beside it (10.79.N.4)

A line for each thing that holds; what doesn't ends the test with 1, that thing, and the guest's logs. Nothing is left
behind, however it ends.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from initramfs import Initramfs  # noqa: E402
from vm import PATIENCE, Failed, Vm, eventually, run  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
QUEUES = [0, 1]

# Of virtio-net: without `iommu_platform` the zero-copy bind is refused, without the guest_ options the XDP program.
# vectors: two for each queue, one for changes, one for control.
VIRTIO = (
    "virtio-net-pci,mq=on,vectors=6,disable-legacy=on,iommu_platform=on,mrg_rxbuf=on,"
    "guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
)


class Nic:
    """A NIC of the guest, and the network around it."""

    def __init__(self, number, driver, device, tap_queues):
        self.number, self.driver, self.device, self.tap_queues = number, driver, device, tap_queues
        self.short = driver.split("_")[0]
        self.name, self.tap, self.bridge = f"nic-{self.short}", f"tap-{self.short}", f"br-{self.short}"
        self.mac = f"02:00:00:79:{number:02x}:02"
        self.control = f"/run/{self.name}.sock"
        self.pid = None

    def v4(self, host):
        return f"10.79.{self.number}.{host}"

    def v6(self, host):
        return f"fd79:{self.number}::{host}"

    def qemu(self):
        queues = f",queues={self.tap_queues}" if self.tap_queues > 1 else ""
        return [
            "-netdev",
            f"tap,id={self.short},ifname={self.tap},script=no,downscript=no{queues}",
            "-device",
            f"{self.device},id={self.name},netdev={self.short},mac={self.mac},romfile=",
        ]

    def build(self, netns):
        def ip(command):
            run("ip", *command.split(), inside=netns)

        ip(f"link add {self.bridge} type bridge")
        ip(f"tuntap add {self.tap} mode tap" + (" multi_queue" if self.tap_queues > 1 else ""))
        # byway load's own way in, with a queue of its own.
        ip(f"link add load-{self.short} type veth peer name port-{self.short}")
        run("ethtool", "-K", f"port-{self.short}", "tx", "off", inside=netns)
        for port in [self.tap, f"port-{self.short}"]:
            ip(f"link set {port} master {self.bridge} up")
        ip(f"link set load-{self.short} up")
        ip(f"address add {self.v4(1)}/24 dev {self.bridge}")
        ip(f"address add {self.v6(1)}/64 dev {self.bridge} nodad")
        ip(f"link set {self.bridge} up")


class Test:
    def __init__(self, netns, vm, nic, byway, scratch, websockets):
        self.netns, self.vm, self.nic, self.byway = netns, vm, nic, byway
        self.scratch, self.websockets = scratch, websockets

    def holds(self, what):
        print(f"test-nic: {self.nic.driver}: {what}", flush=True)

    def all(self):
        self.tune()
        self.start()
        self.doctor()
        self.bodies()
        self.websocket()
        self.load()
        self.both_queues()
        self.neighbors()
        self.conserved()
        for name, action in self.faults():
            self.survives(name, action)
        self.says("has lost its carrier", "was taken down", "is up again")
        self.vlan()
        if self.nic.driver == "igb":
            self.more_queues()
        self.conserved()
        self.killed()
        self.stopped()
        self.jumbo()
        self.removed()

    # What byway says.

    def tune(self):
        """What `byway tune` would have is applied, and everything comes back."""
        name = self.nic.name
        tune = f"byway tune --interface {name} --queues 2 --huge-pages off"

        def settings():
            asked = [self.vm.sh(f"ethtool {flag} {name} 2>&1", check=False) for flag in ("-l", "-g", "-c", "-k", "-x")]
            return "\n".join(asked + [self.vm.sh("cat /proc/irq/*/smp_affinity_list")])

        before = settings()
        # So byway, which serves queues that do both, never meets others there; tests/serve.rs has them.
        differ = self.vm.sh(f"ethtool -L {name} rx 1 tx 2", check=False)
        refused = "netlink error" in differ or "Cannot set" in differ
        self.check(refused, f"RX and TX queues may differ in number: {differ}")
        printed = self.vm.sh(tune)
        changes = printed.count("\n") if "--apply makes" in printed else 0
        self.check(self.nic.driver != "igb" or f"ethtool -K {name} rxvlan off" in printed, printed)
        self.vm.sh(f"{tune} --apply")
        again = self.vm.sh(tune)
        self.check("as byway would have it" in again, f"not as it was to be: {again}")
        self.vm.sh(f"byway tune --interface {name} --undo")
        after = settings()
        self.check(after == before, f"not as it was: {before}\n---\n{after}")
        plural = "" if changes == 1 else "s"
        self.holds(f"byway tune applies {changes} change{plural} and takes all back")

    def doctor(self):
        """Beside the running byway."""

        def look():
            said = self.vm.sh(f"byway doctor --interface {self.nic.name} --control {self.nic.control} --json")
            found = {finding["check"]: finding for finding in json.loads(said)["findings"]}
            # igb trains its link once more for each thing that `byway tune` has taken back.
            return found if found["link"]["verdict"] == "PASS" else None

        found = eventually("a carrier", look)
        failed = [finding for finding in found.values() if finding["verdict"] == "FAIL"]
        self.check(not failed, f"doctor: {failed}")
        for check in ("kernel", "link", "native-xdp", "zero-copy", "mtu", "queues", "xdp-hook"):
            self.check(found[check]["verdict"] == "PASS", f"doctor: {found[check]}")
        self.check("byway's own" in found["xdp-hook"]["reason"], f"doctor: {found['xdp-hook']}")
        # By sock_diag, which Debian's kernel has as a module: whose each queue's socket is.
        own = f"only byway's own, pid {self.nic.pid} (byway)"
        self.check(found["queue-sockets"]["reason"] == own, f"doctor: {found['queue-sockets']}")
        self.holds(f"byway doctor: {found['zero-copy']['reason']}; {found['rss']['reason']}")

    def start(self, zero_copy="on", more=()):
        """Starts byway and waits until it is ready, which it says in a line."""
        nic = self.nic
        self.vm.sh(f"rm -f {nic.control}; : >/tmp/{nic.name}.out")
        options = (
            f"--interface {nic.name} --address {nic.v4(2)}/24 --address {nic.v6(2)}/64 --echo-port 7 "
            f"--attach native --zero-copy {zero_copy} --queues 0,1 --control {nic.control}"
        )
        self.vm.sh(f"byway serve {options} >>/tmp/{nic.name}.out 2>&1 & echo $! >/tmp/{nic.name}.pid")
        nic.pid = self.vm.sh(f"cat /tmp/{nic.name}.pid")

        def ready():
            said = self.vm.sh(f"cat /tmp/{nic.name}.out")
            if "byway ready" in said:
                return said
            self.vm.sh(f"kill -0 {nic.pid}", check=False) and self.fail(f"byway doesn't start: {said}")
            return None

        said = eventually("byway ready", ready)
        line = next(line for line in said.splitlines() if line.startswith("byway ready"))
        facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
        mode = "zero-copy" if zero_copy == "on" else "copy"
        wanted = {"driver": nic.driver, "attach": "native", "mode": mode, "queues": "0,1"}
        for fact, value in wanted.items():
            self.check(facts.get(fact) == value, f"{fact} is {facts.get(fact)}, not {value}: {line}")
        self.check(all(word in line for word in more), f"not all of {more}: {line}")
        link = self.vm.sh(f"/usr/local/bin/ip -details link show {nic.name}")
        # Native shows as `xdp`, generic as `xdpgeneric`.
        self.check(re.search(r"\bprog/xdp\b", link), f"no native XDP program: {link}")
        if zero_copy == "on":
            self.holds("native attach, zero-copy in force on queues 0 and 1 (XDP_OPTIONS of both sockets)")

    def stats(self):
        return json.loads(self.vm.sh(f"byway stats --json --control {self.nic.control}"))

    def conserved(self, whole=True):
        """P3: once nothing is under way, every frame is free or waits for the NIC; and none was refused. `whole`: each
        held a packet."""

        def books():
            stats = self.stats()
            for core in stats["cores"]:
                frames = core["frames"]
                owned = sum(count for owner, count in frames.items() if owner != "total")
                self.check(owned == frames["total"], f"frames on core {core['core']}: {frames}")
            redirected = sum(count for name, count in stats["steering"].items() if name.startswith("redirect_"))
            lost = stats["xsk"]["rx_ring_full"] + stats["xsk"]["rx_dropped"]
            return stats, redirected, stats["counters"]["BywayFramesIn"], lost

        def balanced():
            stats, redirected, received, lost = books()
            frames = stats["frames"]
            at_rest = frames["free"] + frames["fill"] + frames["tx"] == frames["total"]
            # What was sent last may stay with the driver until something else is sent. A frame may come meanwhile.
            return at_rest and frames["tx"] <= 64 and (not whole or redirected == received + lost)

        try:
            eventually("all frames are back", balanced)
        except Failed as failed:
            stats, redirected, received, lost = books()
            self.fail(f"{failed}: {redirected} redirected, {received} received, {lost} lost; {stats['frames']}")
        stats, redirected, received, lost = books()
        self.check(stats["xsk"]["invalid_descriptors"] == 0, f"descriptors refused: {stats['xsk']}")
        total = stats["frames"]["total"]
        counts = f"{redirected} redirected = {received} received + {lost} lost" if whole else f"{received} received"
        self.holds(f"frames conserved: {total} of {total}; {counts}")

    # What clients see.

    def url(self, path="/", host=None):
        return f"http://{host or self.nic.v4(2)}{path}"

    def curl(self, *options, timeout=PATIENCE):
        words = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(timeout), *options]
        return run(*words, inside=self.netns, timeout=timeout + 5, binary=True)

    def bodies(self):
        """Octets that no compressor or repetition could fake."""
        for host in [self.nic.v4(2), f"[{self.nic.v6(2)}]"]:
            self.check(self.curl(self.url("/hello", host)) == b"hello\n", "hello is another")
            for size in [1, 1460, 70_000, 8_000_000]:
                body = os.urandom(size)
                file = self.scratch / "body"
                file.write_bytes(body)
                back = self.curl("--data-binary", f"@{file}", "-H", "Expect:", self.url("/", host))
                self.same(body, back, f"a body of {size} octets from {host}")
        self.check(len(self.curl(self.url("/bytes/20000000"))) == 20_000_000, "20 MB are cut short")
        self.holds("curl: bodies of 1 to 8,000,000 octets echoed with the same SHA-256, 20 MB down (IPv4, IPv6)")

    def same(self, sent, back, what):
        hashes = [hashlib.sha256(octets).hexdigest() for octets in (sent, back)]
        self.check(hashes[0] == hashes[1], f"{what}: {len(back)} octets, SHA-256 {hashes[1]}, not {hashes[0]}")

    def websocket(self):
        client = HERE.parent / "conformance/websockets.py"
        url = f"ws://{self.nic.v4(2)}"
        said = run(self.websockets, client, url, inside=self.netns, timeout=3 * PATIENCE).strip()
        self.holds(f"WebSocket: {said}")

    def load(self):
        nic = self.nic
        result = self.scratch / f"load-{nic.short}.json"
        words = [self.byway, "load", "--interface", f"load-{nic.short}", "--address", f"{nic.v4(3)}/24"]
        words += ["--attach", "native", "--control", self.scratch / f"load-{nic.short}.sock"]
        words += ["--connections", "32", "--duration", "3s", "--json", result, self.url("/hello")]
        run(*map(str, words), inside=self.netns)
        found = json.loads(result.read_text())
        self.check(found["errors"] == 0 and found["requests"] > 100, f"byway load: {found}")
        self.holds(f"byway load: {found['requests']} requests over 32 connections, no error")

    def both_queues(self):
        """By each core's turns and by the driver's own counters."""
        before = self.queue_packets()
        busy = {core["queue"]: core["loop"]["busy_turns"] for core in self.stats()["cores"]}
        for _ in range(64):
            self.curl(self.url("/hello"))
            after = self.queue_packets()
            now = {core["queue"]: core["loop"]["busy_turns"] for core in self.stats()["cores"]}
            if all(after[queue] > before[queue] and now[queue] > busy[queue] for queue in QUEUES):
                counts = ", ".join(f"{after[queue]} on queue {queue}" for queue in QUEUES)
                self.holds(f"both queues used: the driver counts {counts} received")
                return
        self.fail(f"not both queues used: packets {before} then {after}, busy turns {busy} then {now}")

    def queue_packets(self):
        said = self.vm.sh(f"ethtool -S {self.nic.name}")
        found = re.findall(r"rx(?:_queue_)?(\d)(?:_xdp)?_packets: (\d+)", said)
        return {int(queue): int(count) for queue, count in found}

    def neighbors(self):
        """Of a byway that knows nobody yet: an answer to ARP or NDP reaches one core, and the other hears of it."""
        self.term()
        self.start()
        before = self.queue_packets()
        words = ["ip", "netns", "exec", self.netns, "curl", "-sS", "--fail", "--max-time", "20"]
        flows = [
            subprocess.Popen([*words, self.url("/hello", host)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for host in [self.nic.v4(2), f"[{self.nic.v6(2)}]"] * 16
        ]
        said = [flow.communicate()[0] for flow in flows]
        self.check(all(text == b"hello\n" for text in said), f"flows on cores that must learn who asks: {set(said)}")
        after = self.queue_packets()
        self.check(all(after[queue] > before[queue] for queue in QUEUES), f"not both queues: {before}, {after}")
        self.holds("32 first flows at once on both queues served, though an ARP or NDP answer comes on one")

    # What may befall a NIC.

    def faults(self):
        nic = self.nic

        def carrier(up):
            self.vm.ask_monitor("set_link", name=nic.name, up=up)

        # As long as byway needs to notice, and to say so.
        yield "link down and up inside", lambda: self.vm.sh(
            f"ip link set {nic.name} down; sleep 3; ip link set {nic.name} up"
        )

        def flap():
            carrier(False)
            time.sleep(3)
            carrier(True)

        yield "carrier lost and back", flap
        yield "ten flaps", lambda: self.vm.sh(
            f"for i in 1 2 3 4 5 6 7 8 9 10; do ip link set {nic.name} down; ip link set {nic.name} up; done"
        )
        yield "other ring sizes (ethtool -G)", lambda: self.vm.sh(f"ethtool -G {nic.name} rx 128 tx 128")
        yield "another MTU and back", lambda: self.vm.sh(
            f"ip link set {nic.name} mtu 1400; sleep 1; ip link set {nic.name} mtu 1500"
        )
        if nic.driver == "igb":
            yield "a reset of the driver (ethtool -r)", lambda: self.vm.sh(f"ethtool -r {nic.name}")
            yield "VLAN stripping off (ethtool -K)", lambda: self.vm.sh(f"ethtool -K {nic.name} rxvlan off")

    def survives(self, name, action):
        """A request that is under way meanwhile, and one after."""
        request = ["curl", "-sS", "--fail", "--max-time", "90", "--limit-rate", "2M", self.url("/bytes/6000000")]
        words = ["ip", "netns", "exec", self.netns, *request]
        during = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            time.sleep(0.5)
            self.check(during.poll() is None, f"{name}: the transfer was over before")
            action()
            octets, errors = during.communicate()
        finally:
            during.kill()
        self.check(len(octets) == 6_000_000, f"{name}: {len(octets)} of 6000000 octets came: {errors.decode().strip()}")
        self.check(self.curl(self.url("/hello")) == b"hello\n", f"{name}: no hello after it")
        self.vm.sh(f"kill -0 {self.nic.pid}")
        self.holds(f"survives {name}, a transfer under way, too")

    def says(self, *words):
        said = self.vm.sh(f"cat /tmp/{self.nic.name}.out")
        for word in words:
            self.check(word in said, f"byway doesn't say '{word}': {said}")

    def vlan(self):
        """A network in which every frame is tagged: the switch is the tap's traffic control."""
        nic, sections = self.nic, {"ingress": "tc/untag", "egress": "tc/tag"}
        run("tc", "qdisc", "add", "dev", nic.tap, "clsact", inside=self.netns)
        for hook, section in sections.items():
            words = ["filter", "add", "dev", nic.tap, hook, "bpf", "da", "obj", self.scratch / "vlan.o", "sec", section]
            run("tc", *map(str, words), inside=self.netns)
        # The kernel's own interface in it has the NIC let its frames in, which may filter by VLAN.
        self.vm.sh(f"/usr/local/bin/ip link add link {nic.name} name vlan79 type vlan id 79")
        self.vm.sh("/usr/local/bin/ip link set vlan79 up")

        def answers():
            try:
                return self.curl(self.url("/hello"), timeout=5) == b"hello\n"
            except Failed:
                return False

        eventually("byway answers in a VLAN", answers)
        body = os.urandom(1_000_000)
        (self.scratch / "body").write_bytes(body)
        back = self.curl("--data-binary", f"@{self.scratch / 'body'}", "-H", "Expect:", self.url())
        self.same(body, back, "a body in a VLAN")
        self.holds("serves in a tagged VLAN (rxvlan off), 1,000,000 octets echoed")
        if nic.driver == "igb":
            # As the NIC takes tags off, byway answers without: which nobody in the VLAN hears.
            self.vm.sh(f"ethtool -K {nic.name} rxvlan on")
            self.term()
            self.start()
            self.says("takes VLAN tags off before byway sees them", f"`ethtool -K {nic.name} rxvlan off`")
            self.check(not answers(), "answers reach a VLAN though the NIC takes tags off (rxvlan on)")
            self.vm.sh(f"ethtool -K {nic.name} rxvlan off")
            eventually("byway answers in the VLAN again", answers)
            self.holds("says that the NIC takes VLAN tags off (rxvlan on), and serves again by what it advises")
        self.vm.sh("/usr/local/bin/ip link del vlan79")
        run("tc", "qdisc", "del", "dev", nic.tap, "clsact", inside=self.netns)
        eventually("byway answers without a VLAN", answers)

    def more_queues(self):
        """virtio-net refuses while a program is attached; either refuses fewer than byway has sockets on."""
        name = self.nic.name
        fewer = self.vm.sh(f"ethtool -L {name} combined 1", check=False)
        self.check("in use by AF_XDP" in fewer, f"fewer queues than byway serves: {fewer}")
        self.vm.sh(f"ethtool -L {name} combined 4")
        eventually("byway says that queues aren't served", lambda: "4 queues now, and 2 are served" in self.vm.sh(
            f"cat /tmp/{name}.out"
        ))
        self.vm.sh(f"ethtool -L {name} combined 2")
        eventually("byway serves again", lambda: self.curl(self.url("/hello")) == b"hello\n")
        self.holds("says which queues `ethtool -L` added, and serves as before once they are gone")

    def killed(self):
        """P6, D6."""
        nic = self.nic
        transfer = subprocess.Popen(
            ["ip", "netns", "exec", self.netns, "curl", "-sS", "--max-time", "20", self.url("/bytes/500000000")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(1)
        self.vm.sh(f"kill -9 {nic.pid}")
        eventually("it is dead", lambda: self.vm.sh(f"kill -0 {nic.pid} 2>/dev/null || echo dead", check=False))
        transfer.kill()
        transfer.wait()
        self.nothing_attached("kill -9")
        self.kernel_answers()
        self.holds("kill -9 under load leaves the NIC to the kernel: nothing attached, ping answered")
        self.start()
        self.check(self.curl(self.url("/hello")) == b"hello\n", "a byway started after kill -9 doesn't serve")
        self.holds("byway started after kill -9 serves")

    def term(self):
        self.vm.sh(f"kill {self.nic.pid}")
        eventually("SIGTERM ends byway", lambda: self.vm.sh(f"kill -0 {self.nic.pid} 2>/dev/null || echo gone"))
        self.nothing_attached("SIGTERM")

    def stopped(self):
        self.term()
        self.kernel_answers()
        self.holds("SIGTERM leaves the NIC to the kernel, too")

    def nothing_attached(self, after):
        link = self.vm.sh(f"/usr/local/bin/ip -details link show {self.nic.name}")
        self.check("xdp" not in link, f"attached after {after}: {link}")

    def kernel_answers(self):
        run("ping", "-c", "1", "-w", str(PATIENCE), self.nic.v4(4), inside=self.netns, timeout=PATIENCE + 5)

    def jumbo(self):
        """An MTU of 9,000: neither driver spreads a packet over several buffers in zero-copy mode, and igb's XDP takes
        none at all of that size. virtio-net does in copy mode."""
        nic = self.nic
        for port in [nic.tap, nic.bridge]:
            run("ip", "link", "set", port, "mtu", "9000", inside=self.netns)
        self.vm.sh(f"ip link set {nic.name} mtu 9000")
        serve = f"byway serve --interface {nic.name} --address {nic.v4(2)}/24 --queues 0,1 --control {nic.control}"
        refusal = self.vm.sh(f"{serve} --zero-copy on 2>&1; echo $?")
        self.check(refusal.endswith("78") and "spreads none over several" in refusal, f"--zero-copy on: {refusal}")
        if nic.driver == "igb":
            refusal = self.vm.sh(f"{serve} --attach native --zero-copy off 2>&1; echo $?")
            self.check("too large for native XDP" in refusal, f"--attach native: {refusal}")
            self.holds("refuses an MTU of 9,000 by name: the driver's XDP takes no packet in several buffers")
        else:
            self.start(zero_copy="off", more=(" mtu=9000 ",))
            for host in [nic.v4(2), f"[{nic.v6(2)}]"]:
                body = os.urandom(8_000_000)
                (self.scratch / "body").write_bytes(body)
                self.same(body, self.curl("--data-binary", f"@{self.scratch / 'body'}", self.url("/", host)), "a body")
            counters = self.stats()["counters"]
            for frames, segments in [("BywayFramesIn", "TcpInSegs"), ("BywayFramesOut", "TcpOutSegs")]:
                self.check(counters[frames] > 1.5 * counters[segments], f"one frame a segment: {counters}")
            self.conserved(whole=False)
            self.term()
            self.holds("at an MTU of 9,000: zero-copy refused, in copy mode 8 MB echoed whose segments lay in several frames")
        self.vm.sh(f"ip link set {nic.name} mtu 1500")

    def removed(self):
        """D5: exit code 69, and a line that says it."""
        self.start()
        nic = self.nic
        device = self.vm.sh(f"readlink -f /sys/class/net/{nic.name}/device")
        while "/virtio" in device:
            device = os.path.dirname(device)
        # The shell that started byway is the one that may ask how it ended.
        self.vm.sh(f"echo 1 >{device}/remove")
        code = self.vm.sh(f"wait {nic.pid}; echo $?")
        said = self.vm.sh(f"cat /tmp/{nic.name}.out")
        self.check(code == "69" and "is gone" in said, f"a removed device ended byway with {code}: {said}")
        self.holds("a removed device ends byway with 69")

    def check(self, condition, what):
        if not condition:
            self.fail(what)

    def fail(self, what):
        raise Failed(f"{self.nic.driver}: {what}")


def client(cache):
    """A Python with `websockets` in the cache."""
    venv, wanted = cache / "venv", HERE / "requirements.txt"
    made = venv / "made"
    if not made.exists() or made.read_text() != wanted.read_text():
        shutil.rmtree(venv, ignore_errors=True)
        run(sys.executable, "-m", "venv", str(venv))
        run(str(venv / "bin/pip"), "install", "--quiet", "-r", str(wanted), timeout=300)
        made.write_text(wanted.read_text())
    return str(venv / "bin/python3")


def pack(cache, byway, path):
    archive = Initramfs()
    archive.file("init", (HERE / "init").read_bytes())
    archive.file("bin/busybox", (cache / "qemu/bin/busybox").read_bytes())
    archive.modules(cache / "kernel", ["virtio_console", "virtio_net", "igb", "8021q", "xsk_diag"])
    archive.program(byway, "byway")
    for program in [shutil.which("ip"), shutil.which("ethtool")]:
        archive.program(program)
    archive.write(path)


def compile_vlan(scratch):
    """The host's kernel may have no VLAN devices: its traffic control tags what goes to the guest, and takes from there
    only what is tagged."""
    source, target = HERE / "vlan.bpf.c", scratch / "vlan.o"
    run("clang", "-O2", "-target", "bpf", "-Wall", "-Wextra", "-Werror", "-c", str(source), "-o", str(target))


def set_up(vm, nics):
    vm.sh("ip link set lo up")
    for nic in nics:
        found = vm.sh(f"grep -l {nic.mac} /sys/class/net/*/address")
        interface = pathlib.Path(found).parent.name
        vm.sh(f"ip link set {interface} name {nic.name} && ip link set {nic.name} up")
        vm.sh(f"ip address add {nic.v4(4)}/24 dev {nic.name}")
    versions = vm.sh("uname -r")
    print(f"test-nic: Linux {versions} under emulation: what follows is about correctness, never about speed", flush=True)


def tell(vm, nics, scratch):
    """The guest's side of a failure, which it may not survive."""
    console = scratch / "console.log"
    if console.exists():
        print(f"--- the guest's console\n{console.read_text(errors='replace')[-4000:]}", file=sys.stderr)
    for nic in nics if vm else []:
        commands = [f"tail -n 40 /tmp/{nic.name}.out", f"byway stats --control {nic.control} | grep -v ' 0$'"]
        commands.append(f"/usr/local/bin/ip -details -statistics link show {nic.name}")
        for command in commands:
            try:
                print(f"--- {command}\n{vm.sh(command, check=False, timeout=10)}", file=sys.stderr)
            except (Failed, OSError):
                return
    if vm:
        print(f"--- dmesg\n{vm.sh('dmesg | tail -n 40', check=False, timeout=10)}", file=sys.stderr)


def main():
    cache, byway = pathlib.Path(sys.argv[1]), sys.argv[2]
    nics = [Nic(1, "virtio_net", VIRTIO, 2), Nic(2, "igb", "igb", 1)]
    only = sys.argv[3:]
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="byway-nic-"))
    netns, vm = f"bwnic{os.getpid()}", None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        websockets = client(cache)
        pack(cache, byway, scratch / "initramfs")
        compile_vlan(scratch)
        run("ip", "netns", "add", netns)
        for nic in nics:
            nic.build(netns)
        vm = Vm(cache, scratch, netns, scratch / "initramfs", [word for nic in nics for word in nic.qemu()])
        set_up(vm, nics)
        for nic in nics:
            if not only or nic.driver in only:
                Test(netns, vm, nic, byway, scratch, websockets).all()
        print(f"test-nic: all right, after {time.monotonic() - began:.0f} s")
    except Failed as failed:
        tell(vm, nics, scratch)
        print(f"test-nic: FAILED: {failed}", file=sys.stderr)
        sys.exit(1)
    finally:
        if vm:
            vm.stop()
        # With it go the taps, the bridges and the veth pairs; a client that is still there ends by its own limit.
        subprocess.run(["ip", "netns", "del", netns], stderr=subprocess.DEVNULL)
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
