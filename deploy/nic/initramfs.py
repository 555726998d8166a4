"""The guest's first and only file system: busybox, the drivers, and the programs under test with their libraries."""

import lzma
import os
import pathlib
import re
import subprocess


class Initramfs:
    """A cpio archive in the kernel's format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.entries, self.names = bytearray(), set()

    def directory(self, name):
        parent = os.path.dirname(name)
        if parent:
            self.directory(parent)
        self._add(name, 0o040755, b"")

    def file(self, name, octets, mode=0o755):
        self.directory(os.path.dirname(name))
        self._add(name, 0o100000 | mode, octets)

    def program(self, path, name=None):
        """A program of this host, and every library that `ldd` names for it."""
        listed = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            self.file(library.lstrip("/"), pathlib.Path(library).read_bytes())
        self.file(f"usr/local/bin/{name or os.path.basename(path)}", pathlib.Path(path).read_bytes())

    def modules(self, kernel, wanted):
        """Kernel modules with all they depend on, and the order to load them in; what isn't there is built in."""
        found = {path.name.split(".")[0].replace("-", "_"): path for path in kernel.rglob("*.ko*")}
        order = []

        def add(module):
            path = found.get(module.replace("-", "_"))
            if path is None or path.name.split(".")[0] + ".ko" in order:
                return
            octets = lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()
            depends = re.search(rb"\0depends=([^\0]*)\0", octets)
            for other in depends.group(1).decode().split(",") if depends else []:
                add(other)
            name = path.name.split(".")[0] + ".ko"
            self.file(f"modules/{name}", octets)
            order.append(name)

        for module in wanted:
            add(module)
        self.file("modules/order", "".join(f"{name}\n" for name in order).encode())

    def write(self, path):
        self._add("TRAILER!!!", 0, b"")
        pathlib.Path(path).write_bytes(self.entries)

    def _add(self, name, mode, octets):
        if name in self.names:
            return
        self.names.add(name)
        fields = [len(self.names), mode, 0, 0, 1, 0, len(octets), 0, 0, 0, 0, len(name) + 1, 0]
        self.entries += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self.entries += bytes(-len(self.entries) % 4) + octets
        self.entries += bytes(-len(self.entries) % 4)
