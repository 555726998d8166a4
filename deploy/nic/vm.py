"""A virtual machine by emulation: its network, its life, a shell inside it, and QEMU's monitor."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

# Emulated, and on a busy host: what takes seconds may take a minute.
PATIENCE = 60


class Failed(Exception):
    """What was wrong, in a line."""


def run(*words, inside=None, check=True, timeout=PATIENCE, binary=False):
    """Runs a command here, or inside a network namespace; returns what it printed."""
    prefix = ["ip", "netns", "exec", inside] if inside else []
    try:
        done = subprocess.run([*prefix, *words], capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"`{' '.join(words)}` didn't end within {timeout} s") from None
    if check and done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
        raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {said}")
    return done.stdout if binary else done.stdout.decode(errors="replace")


def eventually(what, condition, patience=PATIENCE):
    """Waits until `condition` gives something true, and returns that."""
    until = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise Failed(f"not within {patience} s: {what}")
        time.sleep(0.1)


class Line:
    """A Unix socket to QEMU."""

    def __init__(self, path):
        def connect():
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(str(path))
                return line
            except OSError:
                line.close()
                return None

        self.socket = eventually(f"QEMU opens {path}", connect)
        self.got = b""

    def send(self, text):
        self.socket.sendall(text.encode())

    def until(self, mark, timeout):
        """What comes before `mark`, which is taken, too."""
        until = time.monotonic() + timeout
        while mark not in self.got:
            self.socket.settimeout(max(until - time.monotonic(), 0.01))
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                raise Failed(f"the guest said nothing more within {timeout} s after: {self.got[-500:]!r}") from None
            except ConnectionError:
                more = b""
            if not more:
                raise Failed("QEMU ended")
            self.got += more
        before, self.got = self.got.split(mark, 1)
        return before


class Vm:
    """Boots in the network namespace `netns`; `nics` are QEMU's options for them."""

    def __init__(self, cache, scratch, netns, initramfs, nics):
        qemu, self.log = cache / "qemu", scratch / "console.log"
        vmlinuz = next((cache / "kernel").rglob("vmlinuz*"))
        libraries = ":".join(str(qemu / part) for part in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"])
        accelerator = "kvm" if os.environ.get("BYWAY_KVM") else "tcg,thread=multi"
        # QEMU's own libraries by their own loader, so that the host's Debian doesn't matter.
        command = [
            *["ip", "netns", "exec", netns, "setpriv", "--pdeathsig", "KILL"],
            *[qemu / "lib64/ld-linux-x86-64.so.2", "--library-path", libraries, qemu / "usr/bin/qemu-system-x86_64"],
            *["-L", qemu / "usr/share/qemu", "-L", qemu / "usr/share/seabios"],
            *["-M", "q35", "-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "1536"],
            *["-nodefaults", "-display", "none", "-no-reboot"],
            *["-kernel", vmlinuz, "-initrd", initramfs],
            *["-append", "console=ttyS0 panic=-1 quiet mitigations=off nokaslr tsc=reliable"],
            *["-serial", f"file:{self.log}"],
            *["-chardev", f"socket,id=shell,path={scratch}/shell,server=on,wait=off"],
            *["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=shell"],
            *["-qmp", f"unix:{scratch}/qmp,server=on,wait=off", *nics],
        ]
        modules = {"QEMU_MODULE_DIR": str(qemu / "usr/lib/x86_64-linux-gnu/qemu")}
        self.errors = open(scratch / "qemu.log", "wb")
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
            env={**os.environ, **modules},
        )
        try:
            self.monitor = Line(scratch / "qmp")
            self.monitor.until(b"\n", PATIENCE)
            self.ask_monitor("qmp_capabilities")
            self.shell, self.serial = Line(scratch / "shell"), 0
            self.shell.until(b"the guest is up\n", PATIENCE)
        except Failed as failed:
            said = pathlib.Path(self.errors.name).read_text(errors="replace").strip()
            self.stop()
            raise Failed(f"the VM doesn't boot: {failed} {said}") from None
        except BaseException:
            self.stop()
            raise

    def sh(self, command, check=True, timeout=PATIENCE):
        """Runs a line of shell in the guest; returns what it printed."""
        self.serial += 1
        self.shell.send(f"{{ {command}\n}} </dev/null 2>&1; echo done-{self.serial}-$?.\n")
        said = self.shell.until(f"done-{self.serial}-".encode(), timeout).decode(errors="replace").strip("\n")
        code = int(self.shell.until(b".", timeout))
        if check and code != 0:
            raise Failed(f"in the guest `{command}` ended with {code}: {said}")
        return said

    def ask_monitor(self, execute, **arguments):
        self.monitor.send(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        while True:
            answer = json.loads(self.monitor.until(b"\n", PATIENCE))
            if "error" in answer:
                raise Failed(f"QEMU's monitor on {execute}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.errors.close()
