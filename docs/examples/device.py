"""A device in Python, by docs/protocol.md alone: it enrols, syncs its documents, and reports itself healthy.

    python device.py --folder ./device --enroll-token-file ./token

It does all that the page asks of a device but run programs: where the agent would install and start a release, this
one fetches and verifies it, puts it into its folder, and says that it is healthy. What else a device needs in the field
and is left out here: logs, proofs of forks by circles of stamps, holds that outlive a lost branch, artifacts above
16 MiB, and stateless resets, which aioquic does not know.

Read it from `Device.run` on: dial, greet, enrol, sync. The bytes are in layout.py, and what they mean in lanes.py.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import secrets
import signal
import socket
import sys
import uuid
from pathlib import Path

from blake3 import blake3
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from connection import ARTIFACTS, CONTROL, HELLO_TIMEOUT_S, Close, Closed, dial, wire
from lanes import Chain, Documents
from layout import ACTUAL, DESIRED, TRUST, Head, Key, Malformed, Position, check, id_bytes, id_text, key_id
from layout import read_release, read_token

KIND_OF = {TRUST: wire.DOCUMENT_KIND_TRUST, DESIRED: wire.DOCUMENT_KIND_DESIRED, ACTUAL: wire.DOCUMENT_KIND_ACTUAL}
DOCUMENT_OF = {kind: document for document, kind in KIND_OF.items()}
GROUP_BYTES, WINDOW_GROUPS, FETCH_BYTES_MAX = 16 << 10, 32, 16 << 20
EARLY_PUSHES_MAX, EARLY_BYTES_MAX = 16, 64 << 10
RECONCILE_TIMEOUT_S, WANT_AGAIN_S = 10, 5
BACKOFF_FIRST_S, BACKOFF_LAST_S, BACKOFF_REFUSED_S, RETRY_AFTER_MAX_S = 0.5, 60, 15 * 60, 60 * 60


def say(text):
    print(text, flush=True)


# --- What the device keeps -----------------------------------------------------------------------------------------


class Folder:
    """The device's keys, and what it knows: each file is replaced as a whole, once it is on the disk."""

    def __init__(self, path):
        self.path = Path(path)
        (self.path / "artifacts").mkdir(parents=True, exist_ok=True)

    def read(self, name):
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else {}

    def write(self, name, content):
        self.write_bytes(name, json.dumps(content, indent=1).encode())

    def write_bytes(self, name, content):
        path = self.path / name
        fresh = path.with_name(path.name + ".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def artifact(self, digest):
        """The bytes of this digest, if they are here and whole."""
        path = self.path / "artifacts" / id_text("b3_", digest)
        content = path.read_bytes() if path.exists() else b""
        return content if blake3(content).digest() == digest else None

    def keep_artifact(self, digest, content):
        self.write_bytes(f"artifacts/{id_text('b3_', digest)}", content)


def hexed(entries):
    return [entry.hex() for entry in entries]


def unhexed(entries):
    return [bytes.fromhex(entry) for entry in entries]


# --- The device ----------------------------------------------------------------------------------------------------


class Device:
    def __init__(self, folder, token):
        self.folder, known = Folder(folder), Folder(folder).read("state.json")
        keys = self.folder.read("keys.json") or {"key": secrets.token_hex(32), "sealing": secrets.token_hex(32)}
        self.folder.write("keys.json", keys)
        self.key = Key(bytes.fromhex(keys["key"]))
        self.sealing = X25519PrivateKey.from_private_bytes(bytes.fromhex(keys["sealing"]))
        self.token = read_token(token) if token else None
        check(known or self.token, "this device has never enrolled: it needs an enrolment token")
        fleet = bytes.fromhex(known["fleet"]) if known else self.token.fleet
        self.addresses = known["addresses"] if known else self.token.addresses
        self.certificates = unhexed(known.get("certificates", []))
        self.documents = Documents(self.key, Chain(fleet))
        # The releases that were judged good when they were installed: a key that is taken back takes nothing back.
        self.judged = set(unhexed(known.get("judged", [])))
        self.said = {}
        # What is on the disk is believed no more than what a peer says.
        for record in unhexed(known.get("root_records", [])):
            self.chain.extend(record)
        for envelope in unhexed(known.get("envelopes", [])):
            self.documents.receive(envelope)

    @property
    def chain(self):
        return self.documents.chain

    def save(self):
        envelopes = [envelope.data for lane in self.documents.lanes.values() for envelope in lane.envelopes]
        state = {"fleet": self.chain.fleet.hex(), "addresses": self.addresses, "certificates": hexed(self.certificates)}
        state["root_records"] = hexed(record.data for record in self.chain.records)
        state["judged"] = hexed(sorted(self.judged))
        self.folder.write("state.json", {**state, "envelopes": hexed(envelopes)})

    async def run(self):
        """Dials each address once, and pauses as section 3 says after a round that led to no session."""
        failed_rounds = 0
        while True:
            pause_s_max = min(BACKOFF_FIRST_S * 2**failed_rounds, BACKOFF_LAST_S)
            for address in self.addresses:
                code = await self.visit(address)
                if self.is_live or code is Close.REDIAL:
                    failed_rounds, pause_s_max = 0, 0 if code is Close.REDIAL else BACKOFF_FIRST_S
                    break
                if code.needs_a_person:
                    pause_s_max = BACKOFF_REFUSED_S
            else:
                failed_rounds = min(failed_rounds + 1, 8)
            await asyncio.sleep(max(self.retry_after_s, random.uniform(0, pause_s_max)))

    async def visit(self, address):
        """One connection. Returns how it ended."""
        self.is_live, self.retry_after_s, self.fetches = False, 0, {}
        try:
            async with dial(address, self.key, self.certificates) as connection:
                await self.session(connection)
        except Closed as closed:
            say(f"{address} {closed}")
            return closed.code
        except OSError as error:
            say(f"{address} cannot be dialled: {error}")
        return Close.INTERNAL_ERROR

    # --- 4: the session

    async def session(self, connection):
        digest = self.documents.digest()
        self.say_hello(connection, digest=digest)
        hello, early = await self.greet(connection)
        # The server is of the fleet: only now the device says anything else (4.2).
        if hello.grade == wire.GRADE_ENROLL:
            await self.enrol(connection)
        elif hello.grade == wire.GRADE_RENEW_ONLY:
            await self.renew(connection)
        # What the server has and has not sent yet: `None` until it has said what it has.
        self.awaited, self.wanted_at = None, {}
        self.on_summary(connection, hello, digest)
        for push in early:
            self.on_push(connection, push)
        # A frame that says nothing wakes the loop when the wait is over.
        asyncio.get_running_loop().call_later(RECONCILE_TIMEOUT_S, self.give_up_awaiting, connection)
        while True:
            if self.awaited == {} and not self.is_live:
                self.is_live = True
                say(f"live: trust version {self.chain.version}")
            if self.is_live:
                self.act(connection)
            self.on_frame(connection, await connection.receive())

    def give_up_awaiting(self, connection):
        self.awaited = {}
        connection.inbox.put_nowait(wire.Frame())

    def say_hello(self, connection, **summary):
        version = self.chain.version
        hello = wire.Hello(version_max=1, boot=boot_id(), trust_version=version, **summary)
        connection.send(CONTROL, hello=hello)

    async def greet(self, connection):
        """Takes the server's Hello, and judges the server by the root records in it (4.2)."""
        early = []
        while True:
            frame = await connection.receive(HELLO_TIMEOUT_S)
            match frame.WhichOneof("kind"):
                case "push":
                    # A live change may overtake the Hello, which is on another stream (4.5).
                    early.append(frame.push)
                    early_bytes = sum(len(envelope) for push in early for envelope in push.envelopes)
                    if len(early) > EARLY_PUSHES_MAX or early_bytes > EARLY_BYTES_MAX:
                        raise Closed(Close.UNEXPECTED_MESSAGE, "too much before the Hello")
                case "retry_after":
                    self.on_retry_after(frame.retry_after)
                case "hello":
                    hello = frame.hello
                    if not (hello.version_min or hello.version_max) <= 1 <= hello.version_max:
                        raise Closed(Close.NEEDS_AGENT, "no version is spoken by both")
                    self.extend_chain(hello.root_records)
                    if self.chain.version >= hello.trust_version:
                        self.check_server(connection.server_leaf)
                        return hello, early

    def extend_chain(self, records):
        """Root records stand by their own signatures, whoever brings them: they are kept even from an impostor."""
        for data in records:
            try:
                if self.chain.extend(data):
                    self.save()
                while self.chain.alarms:
                    say(self.chain.alarms.pop())
            except Malformed as error:
                raise Closed(Close.IMPOSTOR if self.chain.records else Close.WRONG_FLEET, error) from error

    def check_server(self, leaf):
        """Raises unless a CA that the newest root record names has issued the certificate to a server of the fleet."""
        if not self.chain.records:
            raise Closed(Close.WRONG_FLEET, "the server names no root")
        try:
            names, key = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, leaf.public_key()
            check(isinstance(key, Ed25519PublicKey), "the server's key is not Ed25519")
            fleet, server = id_text("flt_", self.chain.fleet), id_text("key_", key_id(key.public_bytes_raw()))
            name = f"spiffe://{fleet}/server/{server}"
            check(names.get_values_for_type(x509.UniformResourceIdentifier) == [name], f"the server is not {name}")
            cas = self.documents.roster.certificate_authorities()
            check(any(has_issued(ca, leaf) for ca in cas), "the server's certificate is not from a CA of the fleet")
        except (Malformed, ValueError, x509.ExtensionNotFound) as error:
            raise Closed(Close.IMPOSTOR, error) from error

    async def enrol(self, connection):
        """Registers with the token (4.6), and dials again with the certificate that it gets."""
        if not self.token:
            raise Closed(Close.DONE, "the server asks for an enrolment token, and there is none")
        request = wire.RegisterDeviceRequest(token_id=self.token.id, secret=self.token.secret, csr_der=self.csr())
        request.sealing_public_key = self.sealing.public_key().public_bytes_raw()
        for name, fact in facts().items():
            setattr(request.facts, name, fact)
        connection.send(CONTROL, register_device_request=request)
        answer = await self.answer(connection, "register_device_response")
        match answer.WhichOneof("outcome"):
            case "registered":
                self.take_certificates(answer.registered.certificate_chain_der)
                say(f"enrolled as {answer.registered.name} ({id_text('dev_', answer.registered.device_id)})")
                raise Closed(Close.REDIAL, "there is a certificate now")
            case "pending":
                self.retry_after_s = answer.pending.retry_after.ToTimedelta().total_seconds()
                raise Closed(Close.DONE, "somebody has to approve this device")
        raise Closed(Close.DONE, f"{answer.refused.code}: {answer.refused.message}")

    async def renew(self, connection):
        """Gets a new certificate in place of one that has expired (4.3)."""
        self.ask_for_certificate(connection)
        answer = await self.answer(connection, "certificate_response")
        self.on_certificate(answer)
        raise Closed(Close.DONE, f"{answer.refused.code}: {answer.refused.message}")

    def ask_for_certificate(self, connection):
        connection.send(CONTROL, csr_request=wire.CsrRequest(csr_der=self.csr()))

    def on_certificate(self, answer):
        if answer.WhichOneof("outcome") == "chain":
            self.take_certificates(answer.chain.certificates_der)
            raise Closed(Close.REDIAL, "there is a new certificate")

    async def answer(self, connection, kind):
        while (frame := await connection.receive()).WhichOneof("kind") != kind:
            self.on_frame(connection, frame)
        return getattr(frame, kind)

    def csr(self):
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return request.sign(self.key.secret, None).public_bytes(Encoding.DER)

    def take_certificates(self, chain):
        if x509.load_der_x509_certificate(chain[0]).public_key().public_bytes_raw() != self.key.public:
            raise Closed(Close.UNEXPECTED_MESSAGE, "a certificate for another key")
        self.certificates = list(chain)
        self.save()

    # --- 4.4 and 4.5: what each end lacks

    def on_frame(self, connection, frame):
        match frame.WhichOneof("kind"):
            case "hello":
                self.on_hello(connection, frame.hello)
            case "push":
                self.on_push(connection, frame.push)
            case "want":
                self.on_want(connection, frame.want)
            case "ping":
                connection.send(CONTROL, pong=wire.Pong(nonce=frame.ping.nonce))
            case "retry_after":
                self.on_retry_after(frame.retry_after)
            case "renewal_due":
                self.ask_for_certificate(connection)
            case "certificate_response":
                self.on_certificate(frame.certificate_response)
            case "artifact_tree" | "artifact_groups" | "artifact_refused" as kind:
                self.on_artifact(connection, kind, getattr(frame, kind))

    def on_hello(self, connection, hello):
        if hello.grade:
            # The root has spoken in the middle of a session: envelopes of a new writer may have been refused before.
            self.extend_chain(hello.root_records)
            self.say_heads(connection)
        else:
            self.on_summary(connection, hello, None)

    def on_retry_after(self, retry_after):
        delay_s = min(retry_after.delay.ToTimedelta().total_seconds(), RETRY_AFTER_MAX_S)
        self.retry_after_s = random.uniform(delay_s, 2 * delay_s)

    def say_heads(self, connection):
        heads = []
        for document, writer, head in self.documents.heads():
            heads.append(wire.Head(**self.place(document, writer, head)))
        self.say_hello(connection, heads=heads)

    def on_summary(self, connection, hello, digest):
        """Compares what the server has with what is here, and pushes what it lacks. `digest` is what this device has
        said that it has, as long as it has not spelt it out."""
        if hello.digest and hello.digest == digest:
            say("both have the same")
            self.awaited = {}
            return
        if digest:
            self.say_heads(connection)
        if hello.digest:
            return
        theirs = {}
        for head in hello.heads:
            if head.document in DOCUMENT_OF:
                at = Position(head.epoch, head.stamp, head.seq)
                theirs[DOCUMENT_OF[head.document], head.lane] = Head(at, head.hash)
        ours = {(document, writer): head for document, writer, head in self.documents.heads()}
        for (document, writer), head in ours.items():
            there = theirs.get((document, writer))
            if there != head:
                connection.push(document, self.documents.envelopes_above(document, writer, there))
        self.awaited = {
            at: head.position
            for at, head in theirs.items()
            if self.documents.writer_key(*at) and (at not in ours or ours[at].position < head.position)
        }

    def on_push(self, connection, push):
        revoked = self.documents.roster.revoked
        for data in push.envelopes:
            outcome, lane = self.documents.receive(data)
            if outcome == "gap":
                self.want(connection, lane)
            elif outcome not in ("applied", "held already", "stale"):
                say(f"an envelope: {outcome}")
            if outcome != "gap" and lane and self.awaited:
                at = (lane.document, lane.writer)
                if outcome != "applied" or lane.head.position >= self.awaited.get(at, lane.head.position):
                    self.awaited.pop(at, None)
        self.save()
        for key in self.documents.roster.revoked.keys() - revoked:
            say(f"{id_text('key_', key)} is revoked")

    def on_want(self, connection, want):
        document, at = DOCUMENT_OF.get(want.document), Position(want.epoch, want.stamp, want.seq)
        have = Head(at, want.hash) if want.hash else None
        connection.push(document, self.documents.envelopes_above(document, want.lane, have))

    def want(self, connection, lane):
        now, at = asyncio.get_running_loop().time(), (lane.document, lane.writer)
        if now - self.wanted_at.get(at, -WANT_AGAIN_S) < WANT_AGAIN_S:
            return
        self.wanted_at[at] = now
        head = lane.head or Head(Position(0, 0, 0), b"")
        connection.send(CONTROL, want=wire.Want(**self.place(lane.document, lane.writer, head)))

    def place(self, document, writer, head):
        """A head as Hello and Want name it."""
        at, subject = head.position, b"" if document == TRUST else self.key.id
        lane = {"document": KIND_OF[document], "subject": subject, "lane": writer}
        return {**lane, "epoch": at.epoch, "stamp": at.stamp, "seq": at.seq, "hash": head.hash}

    # --- What the device should run, and what it says

    def act(self, connection):
        """Brings the device to what is desired, as far as it can go now, and reports how far that is."""
        before = self.documents.reported()
        # Absence never removes: what no authority speaks of, stays.
        state = {path: value for path, value in before.items() if path.startswith("workload/")}
        state |= {f"fact/{name}": fact for name, fact in facts().items()}
        for name, (assignment, head, run) in self.documents.desired().items():
            if assignment is None:
                continue
            start = f"workload/{name}/"
            was = {path.removeprefix(start): value for path, value in before.items() if path.startswith(start)}
            report = self.install(connection, name, assignment, was) | {"desired": head.hash}
            report["run"] = (run or was.get("run") or "running") if report.get("release") else None
            state = {path: value for path, value in state.items() if not path.startswith(start)}
            # A path that is not there means none, or 0.
            state |= {start + field: value for field, value in report.items() if value not in (None, 0)}
        written = self.documents.report(state)
        if written:
            # Durable first, then known to others: a position must not be used twice.
            self.save()
            connection.push(ACTUAL, written)

    def install(self, connection, name, assignment, was):
        """Gets a release, verifies it and all that it names, and says how far that has come. `was` is what the device
        said of the workload before."""
        if assignment.get("remove"):
            return {"phase": "removed"}
        version, rollout, digest = assignment["release"], assignment.get("rollout"), assignment["manifest"]
        report = {"digest": digest, "attempt": assignment.get("attempt", 0), "release": was.get("release")}
        report["rollout"] = id_bytes("rol_", rollout, 10) if rollout else None
        self.tell(name, f"{name} should run {version}, release {id_text('b3_', digest)}")
        fault = "manifest"
        try:
            content = self.fetched(connection, digest)
            if content is None:
                return report | {"phase": "download"}
            release = read_release(content)
            check(release.fleet == self.chain.fleet, "the release is of another fleet")
            check((release.workload, release.version) == (name, version), "the release is another one")
            if digest not in self.judged:
                fault, roster = "denied", self.documents.roster
                check(digest not in roster.denied, "an authority denied the release")
                fault = "signature"
                roster.check_signed(release)
            fault, platforms = "platform", {artifact.platform: artifact for artifact in release.artifacts}
            artifact = platforms.get(facts()["platform"]) or platforms.get("any")
            check(artifact, "the release has nothing for this platform")
            fault = "no_space"
            check(artifact.size <= FETCH_BYTES_MAX, "the artifact is larger than this device takes")
            if self.fetched(connection, artifact.digest, artifact.size) is None:
                return report | {"phase": "download"}
        except Malformed as error:
            self.tell(name, f"{name} {version} is refused: {error}")
            return report | {"phase": "restored" if was.get("release") else "failed", "error": f"{fault}: {error}"}
        if digest not in self.judged:
            self.judged.add(digest)
            self.save()
        # Here the agent would start the program and watch its probe.
        self.tell(name, f"{name} {version} is verified, and healthy")
        return report | {"phase": "healthy", "release": version}

    def tell(self, name, text):
        if text not in self.said.setdefault(name, []):
            self.said[name].append(text)
            say(text)

    # --- 4.7: artifacts

    def fetched(self, connection, digest, size=None):
        """The bytes of this digest; `None` while they are on their way."""
        content = self.folder.artifact(digest)
        if content is None and digest not in self.fetches:
            self.fetches[digest] = {"size": size, "content": bytearray()}
            want = wire.ArtifactWant(digest=digest, group_first=0, group_count=1, tree=size is None)
            connection.send(ARTIFACTS, artifact_want=want)
        return content

    def on_artifact(self, connection, kind, part):
        fetch = self.fetches.get(part.digest)
        if not fetch:
            return
        if kind == "artifact_refused":
            say(f"the server does not send {id_text('b3_', part.digest)}: {wire.ArtifactRefusal.Name(part.refusal)}")
        elif kind == "artifact_tree":
            # The size comes with it. The values would let a device keep what is right of a bad artifact; this one
            # takes small ones only, and judges each as a whole.
            fetch["size"] = fetch["size"] or part.size_bytes
        elif part.group_first * GROUP_BYTES == len(fetch["content"]) < FETCH_BYTES_MAX:
            fetch["content"] += part.content
            self.on_groups(connection, part.digest, **fetch)

    def on_groups(self, connection, digest, size, content):
        groups, had = -(-(size or 0) // GROUP_BYTES), -(-len(content) // GROUP_BYTES)
        if had < groups:
            # The next window, once the one before it is here.
            if (had - 1) % WINDOW_GROUPS == 0:
                count = min(WINDOW_GROUPS, groups - had)
                want = wire.ArtifactWant(digest=digest, group_first=had, group_count=count)
                connection.send(ARTIFACTS, artifact_want=want)
        elif blake3(content).digest() == digest:
            self.folder.keep_artifact(digest, bytes(content))
        else:
            raise Closed(Close.UNEXPECTED_MESSAGE, "an artifact that is not what its digest says")


def has_issued(ca, certificate):
    try:
        Ed25519PublicKey.from_public_bytes(ca).verify(certificate.signature, certificate.tbs_certificate_bytes)
        return True
    except InvalidSignature:
        return False


def facts():
    family = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {"platform": f"linux/{family}", "hostname": socket.gethostname(), "agent_version": "device.py"}


def boot_id():
    return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes


async def main():
    parser = argparse.ArgumentParser(description="A device of a fleet.")
    parser.add_argument("--folder", required=True, help="where the device keeps its keys and what it knows")
    parser.add_argument("--enroll-token-file", type=Path, help="a file with the token, for the first time")
    parser.add_argument("--enroll-token", help="the token itself, which other users of this machine can see")
    options = parser.parse_args()
    token = options.enroll_token_file.read_text() if options.enroll_token_file else options.enroll_token
    token = token or os.environ.get("FLEETD_AGENT_ENROLL_TOKEN")
    try:
        running = asyncio.create_task(Device(options.folder, token).run())
    except Malformed as error:
        sys.exit(f"device.py: {error}")
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    asyncio.run(main())
