"""Holds layout.py and lanes.py to the golden vectors of sync/core/tests/golden/, which the product is held to as well.

python -m unittest test_vectors
"""

import unittest
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from connection import wire
from lanes import Chain, Documents, Lane, digest_of
from layout import DESIRED, TRUST, Key, Malformed, founded_fleet, id_bytes, id_text
from layout import read_envelope, read_release, read_root_record, read_token, seal, tagged_hash, varint, with_length
from layout import write_body

GOLDEN = Path(__file__).resolve().parents[2] / "sync/core/tests/golden"
ENVELOPES = ["opener", "delta", "above", "unknown"]


def read_lines(name):
    """The last lines of a vector: a label and a value each."""
    lines = (GOLDEN / f"{name}.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line[:1].islower())


def read_hex(name):
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def is_refused(read, data):
    try:
        read(data)
    except Malformed:
        return True
    return False


def signed_record(body, keys):
    entries = sorted(key.id + key.sign("fleetd/root/1", body) for key in keys)
    return with_length(body) + varint(len(entries)) + b"".join(entries)


# --- Envelopes as the texts beside them write them -----------------------------------------------------------------


def shown(value, indent=""):
    """Writes a name with its fields, a name with one value, a list, or a word."""
    deeper = indent + "    "
    match value:
        case []:
            return "[]"
        case list():
            inner = "".join(f"{deeper}{shown(entry, deeper)},\n" for entry in value)
            return f"[\n{inner}{indent}]"
        case (name, dict() as fields):
            inner = "".join(f"{deeper}{field}: {shown(entry, deeper)},\n" for field, entry in fields.items())
            return f"{name} {{\n{inner}{indent}}}"
        case (name, entry):
            return f"{name}(\n{deeper}{shown(entry, deeper)},\n{indent})"
    return str(value)


def document_text(document, device):
    return "trust" if document == TRUST else f"{('desired', 'actual')[document - 1]}/{id_text('loc_', device)}"


def position_of(at):
    return "Position", {"epoch": at.epoch, "stamp": ("Stamp", at.stamp), "seq": at.seq}


def body_of(envelope):
    previous = "Start"
    if envelope.link:
        previous = "Link", id_text("env_", envelope.link)
    elif envelope.parent:
        parent = envelope.parent
        fields = {"position": position_of(parent.position), "hash": id_text("env_", parent.hash)}
        previous = "Parent", ("Head", fields)
    return "Body", {
        "fleet": id_text("flt_", envelope.fleet),
        "document": document_text(envelope.document, envelope.device),
        "lane": id_text("key_", envelope.lane),
        "position": position_of(envelope.position),
        "previous": previous,
        "wall": ("Wall", envelope.wall),
        "quality": ("None", "Floor", "Beacon", "Synced")[envelope.quality],
        "needs": [need_of(need) for need in envelope.needs],
        "kind": "Snapshot" if envelope.is_opener else "Delta",
        "ops": [op_of(op) for op in envelope.ops],
    }


def need_of(need):
    if isinstance(need, int):
        return "TrustVersion", need
    document, device, lane, at = need
    lane = id_text("key_", lane)
    return "Head", {"document": document_text(document, device), "lane": lane, "position": position_of(at)}


def op_of(op):
    match op:
        case ("set", path, bool() as value):
            return "Set", {"path": path, "value": ("Boolean", str(value).lower())}
        case ("set", path, int() as value):
            return "Set", {"path": path, "value": ("Integer", value)}
        case ("set", path, str() as value):
            return "Set", {"path": path, "value": ("Text", f'"{value}"')}
        case ("set", path, value):
            return "Set", {"path": path, "value": ("Bytes", list(value))}
        case ("delete", path):
            return "Delete", {"path": path}
        case (_, code, data):
            return "Unknown", {"code": code, "bytes": list(data)}


class Envelopes(unittest.TestCase):
    def test_each_says_what_its_text_says(self):
        for name in ENVELOPES:
            text = (GOLDEN / f"envelope_{name}.txt").read_text()
            self.assertEqual(shown(body_of(read_envelope(read_hex(f"envelope_{name}")))), text[: text.index("\nseed")])

    def test_each_is_made_anew_from_what_it_says(self):
        for name in ENVELOPES:
            data, lines = read_hex(f"envelope_{name}"), read_lines(f"envelope_{name}")
            envelope, key = read_envelope(data), Key(bytes.fromhex(lines["seed"]))
            self.assertEqual(key.id, envelope.lane)
            self.assertEqual(seal(key, envelope).data, data)
            self.assertEqual(envelope.signature.hex(), lines["signature"])
            self.assertEqual(envelope.head.hash.hex(), lines["hash"])

    def test_there_is_one_encoding(self):
        for name in ENVELOPES:
            data = read_hex(f"envelope_{name}")
            self.assertEqual(write_body(read_envelope(data)), data[:-64])
            for at in range(len(data) - 64):
                for bit in range(8):
                    other = bytearray(data)
                    other[at] ^= 1 << bit
                    if not is_refused(read_envelope, bytes(other)):
                        self.assertEqual(write_body(read_envelope(bytes(other))), other[:-64], f"{name}: byte {at}")
            for end in range(len(data)):
                self.assertTrue(is_refused(read_envelope, data[:end]))

    def test_a_lane_takes_what_follows_and_is_signed(self):
        opener, delta = (read_envelope(read_hex(f"envelope_{name}")) for name in ("opener", "delta"))
        key = Key(bytes.fromhex(read_lines("envelope_delta")["seed"]))
        lane = Lane(DESIRED, key.id)
        # The vector shows how needs look, but no lane takes an opener that waits.
        with self.assertRaisesRegex(Malformed, "waits"):
            lane.receive(opener, key.public)
        opener = seal(key, replace(opener, needs=[]))
        delta = seal(key, replace(delta, link=opener.head.hash))
        self.assertEqual(lane.receive(delta, key.public), "gap")
        with self.assertRaisesRegex(Malformed, "signature"):
            lane.receive(opener, Key(bytes(32)).public)
        self.assertEqual(lane.receive(opener, key.public), "applied")
        self.assertEqual(lane.receive(opener, key.public), "held already")
        self.assertEqual(lane.receive(delta, key.public), "applied")
        other = seal(key, replace(delta, wall=0))
        self.assertIn("FORK", lane.receive(other, key.public))
        self.assertEqual(lane.state(lambda need: False)["workload/coffee/release"], "1.8.1")

    def test_what_waits_has_no_effect_until_it_may(self):
        opener, delta = (read_envelope(read_hex(f"envelope_{name}")) for name in ("opener", "delta"))
        key = Key(bytes.fromhex(read_lines("envelope_delta")["seed"]))
        lane = Lane(DESIRED, key.id)
        lane.receive(seal(key, replace(opener, needs=[])), key.public)
        lane.receive(seal(key, replace(delta, needs=[300], link=lane.head.hash)), key.public)
        self.assertEqual(lane.state(lambda need: need <= 299)["workload/coffee/release"], "1.8.0")
        self.assertEqual(lane.state(lambda need: need <= 300)["workload/coffee/release"], "1.8.1")


class Digests(unittest.TestCase):
    def test_heads_and_log_positions_have_one_digest(self):
        lines = (GOLDEN / "digest.txt").read_text().splitlines()
        values, logs = dict(line.split(" ", 1) for line in lines), []
        for line in lines:
            match line.split():
                case ["log", workload, boot, stamp, number]:
                    logs.append((workload, bytes.fromhex(boot), int(stamp), int(number)))
        envelopes = [read_envelope(read_hex(name)) for name in values["heads"].split()]
        heads = sorted((envelope.document, envelope.lane, envelope.head) for envelope in envelopes)
        device = id_bytes("key_", values["device"], 16)
        self.assertEqual(digest_of(device, heads, logs).hex(), values["digest"])
        self.assertEqual(digest_of(device, heads, []).hex(), values["digest_without_logs"])

    def test_a_greeting_is_as_small_as_the_page_says(self):
        hello = wire.Hello(version_max=1, boot=bytes(16), trust_version=1, digest=bytes(16))
        self.assertEqual(len(with_length(wire.Frame(hello=hello).SerializeToString())), 43)


class RootRecords(unittest.TestCase):
    def setUp(self):
        self.lines = read_lines("root_record")
        self.fleet = id_bytes("flt_", self.lines["fleet"], 16)
        self.first, self.second = (bytes.fromhex(self.lines[name]) for name in ("record_1", "record_2"))

    def test_each_is_made_anew_from_its_body_and_its_seeds(self):
        root, root_2 = (Key(bytes.fromhex(self.lines[name])) for name in ("root_seed", "root_2_seed"))
        self.assertEqual(root.public.hex(), self.lines["root_key"])
        self.assertEqual(id_text("key_", root.id), self.lines["root_key_id"])
        body = bytes.fromhex(self.lines["body_1"])
        self.assertEqual(signed_record(body, [root]), self.first)
        self.assertEqual(signed_record(read_root_record(self.second).body, [root, root_2]), self.second)

    def test_the_first_founds_the_fleet_and_the_second_follows(self):
        chain = Chain(self.fleet)
        self.assertEqual(founded_fleet(read_root_record(self.first)), self.fleet)
        self.assertTrue(chain.extend(self.first))
        self.assertTrue(chain.extend(self.second))
        self.assertFalse(chain.extend(self.first))
        first, second = chain.records
        self.assertEqual((first.version, second.version, second.threshold, len(second.keys)), (1, 2, 2, 2))
        self.assertEqual(len(second.delegations), len(first.delegations) - 2)
        self.assertEqual(len(second.revocations), 1)

    def test_a_chain_takes_nothing_out_of_turn_nor_of_another_fleet(self):
        chain = Chain(self.fleet)
        self.assertTrue(is_refused(chain.extend, self.second))
        self.assertTrue(is_refused(Chain(bytes(16)).extend, self.first))

    def test_of_two_records_of_one_version_the_first_is_kept_and_the_second_an_alarm(self):
        chain, body = Chain(self.fleet), bytearray(read_root_record(self.second).body)
        chain.extend(self.first)
        chain.extend(self.second)
        keys = [Key(bytes.fromhex(self.lines[name])) for name in ("root_seed", "root_2_seed")]
        # The threshold, behind the layout, the fleet, the version and two keys.
        body[1 + 17 + 1 + 1 + 2 * 33] -= 1
        other = signed_record(bytes(body), keys)
        self.assertEqual(read_root_record(other).threshold, chain.newest.threshold - 1)
        self.assertTrue(is_refused(chain.extend, signed_record(bytes(body), keys[1:])))
        self.assertEqual(chain.alarms, [])
        self.assertFalse(chain.extend(other))
        self.assertEqual((len(chain.alarms), chain.newest.data), (1, self.second))

    def test_no_bit_can_be_changed(self):
        for at in range(len(self.first)):
            other = bytearray(self.first)
            other[at] ^= 1
            self.assertTrue(is_refused(Chain(self.fleet).extend, bytes(other)), f"byte {at}")
        for at in range(len(self.second)):
            chain, other = Chain(self.fleet), bytearray(self.second)
            chain.extend(self.first)
            other[at] ^= 1
            self.assertTrue(is_refused(chain.extend, bytes(other)), f"byte {at}")

    def test_a_revoked_release_key_signs_nothing_any_more(self):
        chain, release = Chain(self.fleet), read_release(bytes.fromhex(read_lines("release")["release"]))
        chain.extend(self.first)
        documents = Documents(Key(bytes(32)), chain)
        documents.roster.check_signed(release)
        with self.assertRaisesRegex(Malformed, "signature"):
            documents.roster.check_signed(replace(release, manifest=release.manifest + b"\0"))
        chain.extend(self.second)
        with self.assertRaises(Malformed):
            documents.roster.check_signed(release)


class Tokens(unittest.TestCase):
    def test_a_token_says_its_parts(self):
        lines = read_lines("token")
        token = read_token(lines["text"])
        self.assertEqual(id_text("flt_", token.fleet), lines["fleet"])
        self.assertEqual(id_text("tok_", token.id), lines["id"])
        self.assertEqual(token.secret.hex(), lines["secret"])
        self.assertEqual(tagged_hash("fleetd/token/1", token.secret, 32).hex(), lines["secret_hash"])
        self.assertTrue(token.addresses)

    def test_capitals_and_white_space_do_not_matter(self):
        text = read_lines("token")["text"]
        self.assertEqual(read_token(f" {text[:40].upper()}\n{text[40:]} "), read_token(text))

    def test_a_typing_error_is_found(self):
        text = read_lines("token")["text"]
        for at in range(len("fleetd-"), len(text)):
            with self.assertRaisesRegex(Malformed, "checksum|base 32|digit"):
                read_token(text[:at] + ("b" if text[at] == "a" else "a") + text[at + 1 :])


class Releases(unittest.TestCase):
    def test_a_release_is_made_anew_from_its_manifest_and_its_seed(self):
        lines = read_lines("release")
        key, manifest = Key(bytes.fromhex(lines["signer_seed"])), bytes.fromhex(lines["manifest"])
        data = with_length(manifest) + key.id + key.sign("fleetd/release/1", manifest)
        self.assertEqual(data.hex(), lines["release"])
        self.assertEqual(id_text("b3_", blake3(data).digest()), lines["digest"])

    def test_a_release_says_its_parts(self):
        release = read_release(bytes.fromhex(read_lines("release")["release"]))
        self.assertEqual((release.workload, release.version), ("coffee", "1.8.0"))
        self.assertEqual([artifact.platform for artifact in release.artifacts], ["any", "linux/arm64"])
        self.assertEqual(release.probe[0], "http")

    def test_every_other_length_is_refused(self):
        data = bytes.fromhex(read_lines("release")["release"])
        for other in [data[:end] for end in range(len(data))] + [data + b"\0"]:
            self.assertTrue(is_refused(read_release, other))


if __name__ == "__main__":
    unittest.main()
