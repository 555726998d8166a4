#!/usr/bin/env python3
"""Sends http-probes.jsonl to a server and judges its answers.

    deploy/conformance/http.py http://127.0.0.1:8080            (or https://…, whose certificate isn't checked)

Each probe has a connection of its own and is sent twice: in one piece with a request behind it, and octet by octet.
Needs nothing but Python 3.9. Exits with 1 if a probe is answered otherwise than the corpus says.
"""

import argparse
import json
import pathlib
import socket
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

# A server that says nothing in this time won't.
PATIENCE = 10
# Time in which a server that ought to wait for the rest has said nothing.
SILENCE = 0.2
# Octet by octet, longer probes would only show the same again.
DRIPPED = 600
AFTER = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


class Wrong(Exception):
    """What is wrong with an answer."""


def strings(value):
    """Strings as octets; a number repeats the one before it."""
    out = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            out.append(item.encode("latin-1"))
        else:
            out += [out.pop()] * item
    return out


class Connection:
    """A connection to the server, and what has been read from it and not used."""

    def __init__(self, url):
        port = url.port or (443 if url.scheme == "https" else 80)
        self.socket = socket.create_connection((url.hostname, port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket, server_hostname=url.hostname)
        self.read = b""
        self.ended = False

    def send(self, octets, piece):
        """In the background: a server may answer, and close, before it has taken all."""

        def run():
            try:
                for at in range(0, len(octets), piece):
                    self.socket.sendall(octets[at : at + piece])
            except OSError:
                pass

        if isinstance(self.socket, ssl.SSLSocket):
            # Not two threads at once in one TLS session; no probe is longer than what sockets hold.
            run()
        else:
            threading.Thread(target=run, daemon=True).start()

    def more(self):
        """Reads on; whether anything came."""
        if not self.ended:
            try:
                octets = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLEOFError):
                octets = b""
            self.read += octets
            self.ended = not octets
        return not self.ended

    def until(self, end):
        while end not in self.read:
            if not self.more():
                return None
        taken, _, self.read = self.read.partition(end)
        return taken

    def exactly(self, count):
        while len(self.read) < count and self.more():
            pass
        taken, self.read = self.read[:count], self.read[count:]
        return taken

    def silent(self):
        self.socket.settimeout(SILENCE)
        try:
            self.more()
        except (TimeoutError, socket.timeout):
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        return False

    def answer(self, head):
        """The next answer: status, content, and whether the content is whole. None: the connection has ended."""
        block = self.until(b"\r\n\r\n")
        if block is None:
            if self.read:
                raise Wrong(f"half a header block: {self.read!r}")
            return None
        line, *lines = block.split(b"\r\n")
        fields = {}
        for one in lines:
            name, colon, value = one.partition(b": ")
            if not colon or name.lower() in fields:
                raise Wrong(f"a bad field in the answer: {one!r}")
            fields[name.lower()] = value
        if not line.startswith(b"HTTP/1.1 ") or not line[9:12].isdigit() or line[12:13] != b" ":
            raise Wrong(f"a bad status line: {line!r}")
        status = int(line[9:12])
        if status >= 200 and b"date" not in fields:
            raise Wrong("an answer without Date")
        if head or status < 200:
            return status, b"", True
        if b"content-length" in fields:
            length = int(fields[b"content-length"])
            content = self.exactly(length)
            return status, content, len(content) == length
        if fields.get(b"transfer-encoding") == b"chunked":
            return status, *self.chunks()
        raise Wrong(f"an answer without end: {block!r}")

    def chunks(self):
        content = b""
        while (line := self.until(b"\r\n")) is not None:
            chunk = self.exactly(int(line, 16))
            content += chunk
            if len(chunk) < int(line, 16) or self.exactly(2) != b"\r\n":
                break
            if not chunk:
                return content, True
        return content, False


def expect(connection, answers, probe, interim=False):
    """Holds the next answers against the corpus; `interim`: 100 may come before them."""
    for number, expected in enumerate(answers, 1):
        status, colon, content = expected.partition(b":")
        answer = connection.answer(probe.get("head"))
        while interim and answer is not None and answer[0] == 100 and status != b"100":
            answer = connection.answer(probe.get("head"))
        if answer is None:
            raise Wrong(f"closed instead of answer {number}, {expected!r}")
        if str(answer[0]).encode() != status or (colon and answer[1] != content):
            raise Wrong(f"answer {number} is {answer[0]} {answer[1][:200]!r}, not {expected!r}")
        if answer[2] == bool(probe.get("cut") and number == len(answers)):
            raise Wrong(f"answer {number} is {'whole' if answer[2] else 'cut'}")


def run(url, probe, piece):
    """Sends a probe in pieces of so many octets."""
    send, is_open = b"".join(strings(probe["send"])), probe.get("open")
    answers = strings(probe["answers"])
    connection = Connection(url)
    try:
        if "rest" in probe:
            connection.send(send, piece)
            expect(connection, answers, probe)
            if not connection.silent():
                raise Wrong(f"the server doesn't wait for the rest: {connection.read[:200]!r}")
            send, answers = strings(probe["rest"])[0], strings(probe["then"])
        connection.send(send + AFTER, piece)
        expect(connection, answers, probe, interim=True)
        if is_open:
            expect(connection, [b"200:hello\n"], {})
            if not connection.silent():
                raise Wrong("closed, or something was said beyond the answers")
        else:
            while connection.more():
                pass
            # After 101 there is another protocol's goodbye.
            if connection.read if answers[-1:] != [b"101"] else b"HTTP/" in connection.read:
                raise Wrong(f"something was said beyond the answers: {connection.read[:200]!r}")
    except (TimeoutError, socket.timeout):
        raise Wrong(f"nothing came for {PATIENCE} s; read and not used: {connection.read[:200]!r}") from None
    finally:
        connection.socket.close()


def judge(url, probe):
    """What is wrong, or nothing."""
    wrong = []
    length = sum(map(len, strings(probe["send"])))
    for piece in [1 << 30] + [1] * (length <= DRIPPED):
        try:
            run(url, probe, piece)
        except (Wrong, OSError, ValueError) as why:
            wrong.append(f"{probe['name']}, {'in one piece' if piece > 1 else 'octet by octet'}: {why} ({probe['see']})")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="http://HOST:PORT or https://HOST:PORT")
    corpus = pathlib.Path(__file__).with_name("http-probes.jsonl")
    parser.add_argument("--probes", type=pathlib.Path, default=corpus, help="another corpus")
    parser.add_argument("--only", default="", help="only probes whose name contains this")
    options = parser.parse_args()
    url = urlsplit(options.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        parser.error(f"{options.url} is no http:// or https:// URL")
    probes = [json.loads(line) for line in options.probes.read_text().splitlines()[1:]]
    probes = [
        probe
        for probe in probes
        if options.only in probe["name"] and not (probe.get("plain") and url.scheme == "https")
    ]
    with ThreadPoolExecutor(8) as pool:
        wrong = [one for found in pool.map(lambda probe: judge(url, probe), probes) for one in found]
    print("\n".join(wrong), end="\n" * bool(wrong))
    print(f"http: {len(probes)} probes to {options.url}, {len(wrong)} answered otherwise than they must be")
    sys.exit(bool(wrong) or not probes)


if __name__ == "__main__":
    main()
