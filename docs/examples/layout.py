"""What the bytes mean: ids, tokens, root records, envelopes and releases (docs/protocol.md, 1, 5 and 6).

Everything here is a pure function of bytes. Every layout is canonical, so a reader that takes minimal numbers only,
demands ascending lists, and leaves nothing behind the end has read the one encoding that there is.
"""

import base64
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TRUST, DESIRED, ACTUAL = 0, 1, 2
CA, AUTHORITY, RELEASE = 1, 2, 3
ALL_SITES = None
SNAPSHOT_BYTES_MAX, DELTA_BYTES_MAX, DELTA_OPS_MAX = 16 << 10, 4 << 10, 64


class Malformed(Exception):
    """The bytes are not what they should be."""


class NeedsNewerReader(Malformed):
    """The bytes are of a later version of the protocol, and so worth nothing to this one."""


def check(is_so, what):
    if not is_so:
        raise Malformed(what)


# --- Primitives ----------------------------------------------------------------------------------------------------


class Reader:
    """Takes fields from bytes, from the first to the last."""

    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def take(self, length):
        taken = self.data[self.at : self.at + length]
        check(len(taken) == length, "the bytes end inside a field")
        self.at += length
        return taken

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        check((byte or shift == 7) and number < 1 << 64, "a varint is longer than it needs, or too large")
        return number

    def signed(self):
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def stamp(self):
        return int.from_bytes(self.take(8), "little")

    def bytes(self, most=1 << 16):
        length = self.varint()
        check(length <= most, "a field is too long")
        return self.take(length)

    def text(self, most=1 << 16):
        return decoded(self.bytes(most))

    def list(self, read, most=1 << 16, ascending_by=None):
        count = self.varint()
        check(count <= most, "a list is too long")
        entries = [read() for _ in range(count)]
        if ascending_by:
            keys = [ascending_by(entry) for entry in entries]
            check(keys == sorted(set(keys)), "a list is not in its order")
        return entries

    def layout(self):
        """Takes the first byte, which says how to read the rest."""
        if self.byte() != 1:
            raise NeedsNewerReader("a layout above 1")

    def rest(self):
        return self.take(len(self.data) - self.at)

    def end(self):
        check(self.at == len(self.data), "something follows the last field")


def decoded(text):
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Malformed("text that is not UTF-8") from error


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def signed(number):
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def with_length(data):
    return varint(len(data)) + data


def stamp(number):
    return number.to_bytes(8, "little")


# --- Hashes, ids and signatures ------------------------------------------------------------------------------------

RFC_4648, CROCKFORD = "abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghjkmnpqrstvwxyz"


def tagged_hash(tag, data, length=16):
    return blake3(tag.encode() + b"\0" + data).digest(length=length)


def key_id(public_key):
    return tagged_hash("fleetd/key/1", b"\x01" + public_key)


def id_text(prefix, raw):
    """`loc_…`: the bits from the highest on, five to a digit, zeros behind the last."""
    text = base64.b32encode(raw).decode().lower().rstrip("=")
    return prefix + text.translate(str.maketrans(RFC_4648, CROCKFORD))


def id_bytes(prefix, text, length):
    check(text.startswith(prefix), f"{text!r} does not start with {prefix!r}")
    digits = text.removeprefix(prefix)
    check(set(digits) <= set(CROCKFORD), f"{text!r} has a digit that is none")
    raw = base32_bytes(digits.translate(str.maketrans(CROCKFORD, RFC_4648)))
    check(len(raw) == length and id_text(prefix, raw) == text, f"{text!r} has the wrong length")
    return raw


def base32_bytes(digits):
    try:
        return base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
    except ValueError as error:
        raise Malformed("no base 32") from error


# The points of small order, without the bit of the sign: under such a key anything would be signed.
SMALL_ORDER = {
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    bytes(32),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
}


def has_small_order(point):
    return point[:31] + bytes([point[31] & 0x7F]) in SMALL_ORDER


def is_signed(public_key, tag, body, signature):
    if has_small_order(public_key) or has_small_order(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, tag.encode() + b"\0" + body)
        return True
    except (InvalidSignature, ValueError):
        return False


class Key:
    """A secret key with what its holder needs of it."""

    def __init__(self, seed):
        self.secret = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.secret.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    def sign(self, tag, body):
        return self.secret.sign(tag.encode() + b"\0" + body)


# --- 6.2 Root records ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delegation:
    key: bytes
    role: int
    generation: int
    scope: bytes

    def authority(self):
        """An authority's rank, and the names of its sites."""
        reader = Reader(self.scope)
        rank, kind = reader.byte(), reader.byte()
        check(kind in (0, 1), "a kind of sites that is none")
        sites = names(reader) if kind else ALL_SITES
        reader.end()
        return rank, sites

    def workloads(self):
        """The workloads whose releases a release key signs."""
        reader = Reader(self.scope)
        workloads = names(reader)
        reader.end()
        return workloads


def names(reader):
    found = reader.list(reader.text, 64, ascending_by=str.encode)
    check(found, "a scope without a name")
    return found


@dataclass(frozen=True)
class RootRecord:
    fleet: bytes
    version: int
    keys: list
    threshold: int
    delegations: dict
    revocations: dict
    body: bytes
    signatures: dict
    data: bytes = field(repr=False)

    def is_signed_by(self, other):
        """Says whether a threshold of the keys of `other` has signed this record."""
        signers = [key for key in other.keys if key_id(key) in self.signatures]
        good = [is_signed(key, "fleetd/root/1", self.body, self.signatures[key_id(key)]) for key in signers]
        return all(good) and sum(good) >= other.threshold


def read_root_record(data):
    check(len(data) <= 16 << 10, "the root record is too large")
    outer = Reader(data)
    body = outer.bytes(16 << 10)
    signatures = outer.list(lambda: (outer.take(16), outer.take(64)), 32, ascending_by=lambda entry: entry[0])
    outer.end()
    reader = Reader(body)
    reader.layout()
    fleet, version = reader.bytes(16), reader.varint()
    check(len(fleet) == 16 and version, "the root record names no fleet or no version")
    keys = reader.list(lambda: read_key(reader), 16, ascending_by=bytes)
    threshold = reader.byte()
    check(1 <= threshold <= len(keys), "a threshold that nobody, or everybody, meets")

    def delegation():
        return Delegation(read_key(reader), reader.byte(), reader.varint(), reader.bytes())

    delegations = reader.list(delegation, 64, ascending_by=lambda entry: key_id(entry.key))
    revocations = reader.list(lambda: (reader.take(16), reader.byte()), 256, ascending_by=lambda entry: entry[0])
    reader.end()
    root, revoked = {key_id(key) for key in keys}, dict(revocations)
    check(set(revoked.values()) <= {1, 2, 3}, "a revocation for no reason that there is")
    delegated = {key_id(entry.key): entry for entry in delegations}
    check(not delegated.keys() & (root | revoked.keys()), "a delegation to a root key, or to a revoked one")
    for entry in delegations:
        check_scope(entry)
    return RootRecord(fleet, version, keys, threshold, delegated, revoked, body, dict(signatures), data)


def check_scope(delegation):
    if delegation.role == AUTHORITY:
        delegation.authority()
    elif delegation.role == RELEASE:
        delegation.workloads()
    elif delegation.role in (1, 4, 5, 6):
        check(not delegation.scope, "a scope where there should be none")


def read_key(reader):
    check(reader.byte() == 1, "a key that is not Ed25519")
    return reader.take(32)


def founded_fleet(record):
    """The id of the fleet that a first record founds: the hash of its body with the length 0 in place of its id."""
    return tagged_hash("fleetd/fleet/1", record.body[:1] + b"\0" + record.body[18:])


# --- 6.3 Enrolment tokens ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Token:
    fleet: bytes
    id: bytes
    secret: bytes = field(repr=False)
    addresses: list = field(default_factory=list)


def read_token(text):
    text = "".join(text.split()).lower()
    check(text.isascii() and text.startswith("fleetd-") and len(text) <= 1024, "this is no enrolment token")
    digits = text.removeprefix("fleetd-")
    data = base32_bytes(digits)
    check(base64.b32encode(data).decode().lower().rstrip("=") == digits, "the token has a digit too many")
    body, checksum = data[:-4], data[-4:]
    # The checksum comes first, so that a typing error is not taken for a newer layout.
    check(tagged_hash("fleetd/token-checksum/1", body, 4) == checksum, "the token's checksum is wrong: a typing error?")
    reader = Reader(body)
    reader.layout()
    token = Token(reader.take(16), reader.take(10), reader.take(32), reader.list(lambda: reader.text(259), 8))
    reader.end()
    check(token.addresses, "the token names no address")
    return token


# --- 5 Envelopes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Position:
    epoch: int
    stamp: int
    seq: int


@dataclass(frozen=True)
class Head:
    position: Position
    hash: bytes


@dataclass(frozen=True)
class Envelope:
    fleet: bytes
    document: int
    device: bytes
    lane: bytes
    position: Position
    link: bytes | None
    parent: Head | None
    wall: int
    quality: int
    needs: list
    ops: list
    body: bytes = field(default=b"", repr=False)
    signature: bytes = field(default=b"", repr=False)

    @property
    def is_opener(self):
        return self.link is None

    @property
    def head(self):
        return Head(self.position, tagged_hash("fleetd/envelope-hash/1", self.body))

    @property
    def data(self):
        return self.body + self.signature


def read_envelope(data):
    check(64 < len(data) <= SNAPSHOT_BYTES_MAX, "an envelope of no size that there is")
    body, signature = data[:-64], data[-64:]
    reader = Reader(body)
    reader.layout()
    fleet, shape = reader.take(16), reader.byte()
    document, kind, quality = shape & 3, shape >> 2 & 3, shape >> 4 & 3
    check(document <= 2 and kind <= 2 and not shape >> 6, "an envelope of no shape that there is")
    device = reader.take(16) if document == DESIRED else b""
    lane = reader.take(16)
    device = lane if document == ACTUAL else device
    epoch, own_stamp, seq, link, parent = reader.varint(), reader.stamp(), 0, None, None
    check(epoch, "an epoch before the first")
    if kind == 0:
        check(len(data) <= DELTA_BYTES_MAX, "a delta that is too large")
        seq, link = reader.varint(), reader.take(16)
        check(seq, "a delta with an opener's number")
    elif kind == 1:
        check(epoch == 1, "a first opener above the first epoch")
    else:
        check(epoch > 1, "an opener above a parent in the first epoch")
        parent = Head(Position(epoch - 1, reader.stamp(), reader.varint()), reader.take(16))
    wall = reader.signed()
    needs = reader.list(lambda: read_need(reader), 8)
    ops = reader.list(lambda: read_op(reader), DELTA_OPS_MAX if kind == 0 else SNAPSHOT_BYTES_MAX // 6)
    reader.end()
    position = Position(epoch, own_stamp, seq)
    return Envelope(fleet, document, device, lane, position, link, parent, wall, quality, needs, ops, body, signature)


def read_need(reader):
    kind = reader.byte()
    if kind == 1:
        return reader.varint()
    check(kind == 0, "a need of no kind that there is")
    document = reader.byte()
    check(document <= 2, "a need of no document that there is")
    device = reader.take(16) if document != TRUST else b""
    lane = reader.take(16) if document != ACTUAL else device
    return document, device, lane, Position(reader.varint(), reader.stamp(), reader.varint())


def read_op(reader):
    if reader.byte() != 1:
        raise NeedsNewerReader("a class of operations that no reader may skip")
    code, data = reader.byte(), reader.bytes(2048 + 128 + 16)
    if code == 2:
        return ("delete", checked_path(decoded(data)))
    if code != 1:
        return ("unknown", code, data)
    inner = Reader(data)
    path, kind = checked_path(inner.text(128)), inner.byte()
    value = read_value(inner, kind)
    inner.end()
    return ("set", path, value)


def read_value(reader, kind):
    match kind:
        case 0 | 1:
            return kind == 1
        case 2:
            return reader.signed()
        case 3 | 4:
            value = reader.rest()
            check(len(value) <= 2048, "a value that is too long")
            return decoded(value) if kind == 3 else value
    raise Malformed("a value of no type that there is")


def checked_path(path):
    plain = all(part and all(c.isascii() and (c.isalnum() or c in ".-_+") for c in part) for part in path.split("/"))
    check(plain and len(path) <= 128, f"{path!r} is no path")
    return path


def write_body(envelope):
    """Writes all of an envelope but its signature."""
    kind = 0 if envelope.link else 2 if envelope.parent else 1
    body = b"\x01" + envelope.fleet + bytes([envelope.document | kind << 2 | envelope.quality << 4])
    body += envelope.device if envelope.document == DESIRED else b""
    body += envelope.lane + varint(envelope.position.epoch) + stamp(envelope.position.stamp)
    if envelope.link:
        body += varint(envelope.position.seq) + envelope.link
    elif envelope.parent:
        above = envelope.parent
        body += stamp(above.position.stamp) + varint(above.position.seq) + above.hash
    body += signed(envelope.wall)
    body += varint(len(envelope.needs)) + b"".join(map(write_need, envelope.needs))
    return body + varint(len(envelope.ops)) + b"".join(map(write_op, envelope.ops))


def seal(key, envelope):
    """Signs an envelope of the key's own lane."""
    body = write_body(envelope)
    return read_envelope(body + key.sign("fleetd/envelope/1", body))


def write_need(need):
    if isinstance(need, int):
        return b"\x01" + varint(need)
    document, device, lane, position = need
    lane = lane if document != ACTUAL else b""
    place = varint(position.epoch) + stamp(position.stamp) + varint(position.seq)
    return bytes([0, document]) + device + lane + place


def write_op(op):
    match op:
        case ("set", path, value):
            code, data = 1, with_length(path.encode()) + write_value(value)
        case ("delete", path):
            code, data = 2, path.encode()
        case (_, code, data):
            pass
    return bytes([1, code]) + with_length(data)


def write_value(value):
    match value:
        case bool():
            return bytes([int(value)])
        case int():
            return b"\x02" + signed(value)
        case str():
            return b"\x03" + value.encode()
        case bytes():
            return b"\x04" + value


# --- 6.4 Releases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artifact:
    platform: str
    digest: bytes
    size: int
    file_name: str


@dataclass(frozen=True)
class Release:
    fleet: bytes
    workload: str
    version: str
    artifacts: list
    arguments: list
    environment: list
    probe: tuple
    timing: tuple
    user: str | None
    stop_grace_ms: int
    manifest: bytes = field(repr=False)
    signer: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_release(data):
    outer = Reader(data)
    manifest, signer, signature = outer.bytes(16 << 10), outer.take(16), outer.take(64)
    outer.end()
    reader = Reader(manifest)
    reader.layout()
    fleet, workload, version = reader.take(16), reader.text(63), reader.text(64)

    def artifact():
        return Artifact(reader.text(31), reader.take(32), reader.varint(), reader.text(128))

    artifacts = reader.list(artifact, 16, ascending_by=lambda entry: entry.platform.encode())
    check(artifacts, "a release without an artifact")
    arguments = reader.list(reader.text, 64)

    def variable():
        name, kind = reader.text(128), reader.byte()
        check(kind <= 1, "an environment variable of no kind that there is")
        return name, None if kind else reader.text()

    environment = reader.list(variable, 64, ascending_by=lambda entry: entry[0].encode())
    probe = read_probe(reader)
    timing = (reader.varint(), reader.varint(), reader.varint(), reader.byte(), reader.byte())
    has_user = reader.byte()
    check(has_user <= 1 and all(timing), "a user of no kind that there is, or a probe without time")
    user = reader.text(128) if has_user else None
    stop_grace_ms = reader.varint()
    reader.end()
    return Release(
        fleet, workload, version, artifacts, arguments, environment, probe, timing, user, stop_grace_ms,
        manifest, signer, signature,
    )  # fmt: skip


def read_probe(reader):
    match reader.byte():
        case 0:
            return ("alive",)
        case 1:
            return ("notify",)
        case 2:
            return ("command", reader.list(reader.text, 64))
        case 3:
            return ("tcp", reader.varint())
        case 4:
            return ("http", reader.varint(), reader.text())
    raise Malformed("a probe of no kind that there is")
