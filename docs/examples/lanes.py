"""Who may say what, and what was said: the root chain, lanes, and what a device should run (docs/protocol.md, 4 to 6).

Nothing is believed for having come from a server: a root record counts by the signatures of the root, an envelope by
the signature of a key that the root has made an authority. What is kept on the disk is checked again when it is read.
"""

import secrets
import time
from dataclasses import replace

from layout import ACTUAL, ALL_SITES, AUTHORITY, CA, DELTA_BYTES_MAX, DELTA_OPS_MAX, DESIRED, RELEASE, TRUST
from layout import Envelope, Malformed, NeedsNewerReader, Position, check, founded_fleet, id_bytes, is_signed
from layout import read_envelope, read_root_record, seal, stamp, tagged_hash, varint, with_length
from layout import write_op

EPOCH_CHANGES_MAX, EPOCH_BYTES_MAX, LANES_MAX = 64, 16 << 10, 8
RETIRED, COMPROMISED, STOPPED = 1, 2, 3
ASSIGNMENT = {"release", "manifest", "rollout", "attempt", "remove"}


class Chain:
    """The root records of one fleet, from the first to the newest."""

    def __init__(self, fleet):
        self.fleet, self.records, self.alarms = fleet, [], []

    @property
    def version(self):
        return len(self.records)

    @property
    def newest(self):
        return self.records[-1]

    def extend(self, data):
        """Takes the next record (4.2, 6.2). Returns whether it is new, and raises when it does not belong here."""
        record = read_root_record(data)
        check(record.fleet == self.fleet, "a root record of another fleet")
        if 0 < record.version <= self.version:
            if record.body != self.records[record.version - 1].body:
                # The first one is kept. Only one that could have stood here is an alarm: anybody can send others.
                check(record.version > 1, "the first root record founds another fleet")
                check_signed_after(record, self.records[record.version - 2])
                self.alarms.append(f"ALARM: there are two root records of version {record.version}")
            return False
        check(record.version == self.version + 1, "a root record is missing before this one")
        if not self.records:
            check(founded_fleet(record) == self.fleet, "the first root record founds another fleet")
        before = self.records[-1] if self.records else record
        check_signed_after(record, before)
        for key, delegation in record.delegations.items():
            had = [old.delegations[key].generation for old in self.records if key in old.delegations]
            last = before.delegations.get(key)
            same = last is not None and (last.role, last.scope) == (delegation.role, delegation.scope)
            check(delegation.generation >= max(had, default=0) + (0 if same or not had else 1), "an older delegation")
        self.records.append(record)
        return True


def check_signed_after(record, before):
    good = record.is_signed_by(before) and record.is_signed_by(record)
    check(good, "too few root keys have signed this record")


class Roster:
    """What the chain and the trust document together say of every key."""

    def __init__(self, chain, statements):
        """`statements` are the paths and values of each lane of the trust document."""
        self.revoked, self.denied = {}, set()
        for record in chain.records:
            for key, why in record.revocations.items():
                self.revoked[key] = max(why, self.revoked.get(key, 0))
        newest = chain.newest.delegations if chain.records else {}
        self.cas = {key: e.key for key, e in newest.items() if e.role == CA}
        self.authorities = {key: (e.key, *e.authority()) for key, e in newest.items() if e.role == AUTHORITY}
        self.release_keys = {key: (e.key, e.workloads()) for key, e in newest.items() if e.role == RELEASE}
        ever = [delegation for record in chain.records for delegation in record.delegations.items()]
        self.cas_ever = {key for key, e in ever if e.role == CA}
        self.release_keys_ever = {key for key, e in ever if e.role == RELEASE}
        # From the highest rank down: only a higher rank can make a lane void, so that is settled before it is read.
        for lane in sorted(self.authorities.keys() & statements, key=lambda lane: -self.authorities[lane][1]):
            if lane not in self.revoked:
                for path, value in statements[lane].items():
                    self.take(lane, path, value)

    def take(self, lane, path, value):
        _, rank, sites = self.authorities[lane]
        try:
            match path.split("/"):
                case ["revoke", text] if isinstance(value, str):
                    key = id_bytes("key_", text, 16)
                    if self.may_revoke(key, rank, sites):
                        # A reason that is not understood must not be without effect.
                        why = {"retired": RETIRED, "stopped": STOPPED}.get(value, COMPROMISED)
                        self.revoked[key] = max(why, self.revoked.get(key, 0))
                case ["deny", text] if isinstance(value, str) and sites is ALL_SITES:
                    self.denied.add(id_bytes("b3_", text, 32))
        except Malformed:
            pass  # A path of a later version.

    def may_revoke(self, key, rank, sites):
        if key in self.authorities:
            return self.authorities[key][1] < rank
        return key not in self.cas_ever and (sites is ALL_SITES or key not in self.release_keys_ever)

    def certificate_authorities(self):
        return [public for key, public in self.cas.items() if key not in self.revoked]

    def check_signed(self, release):
        """Raises unless a key that may sign releases of this workload has signed this one."""
        public, workloads = self.release_keys.get(release.signer, (None, ()))
        check(release.workload in workloads, f"its signer may not sign releases of {release.workload}")
        check(release.signer not in self.revoked, "its signer's key was revoked")
        good = is_signed(public, "fleetd/release/1", release.manifest, release.signature)
        check(good, "the release's signature is wrong")


class Lane:
    """What one writer said in one document: the envelopes of the newest epoch, from its opener on."""

    def __init__(self, document, writer):
        self.document, self.writer, self.envelopes = document, writer, []

    @property
    def head(self):
        return self.envelopes[-1].head if self.envelopes else None

    def receive(self, envelope, public_key):
        """Takes an envelope if it follows (4.5). Returns what became of it."""
        head, at = self.head, envelope.position
        for held in self.envelopes:
            if held.position == at and held.head == envelope.head:
                return "held already"
        fork = any(held.position == at for held in self.envelopes)
        if not fork and head and at < head.position:
            return "stale"
        if not (fork or envelope.is_opener) and not self.is_followed_by(envelope):
            return "gap"
        check(is_signed(public_key, "fleetd/envelope/1", envelope.body, envelope.signature), "a wrong signature")
        if fork:
            return "FORK: two hold this lane's key"
        if self.document == TRUST:
            check(all(op[0] != "delete" for op in envelope.ops), "the trust document only grows")
        if envelope.is_opener:
            paths = [op[1] for op in envelope.ops if op[0] == "set"]
            check(not envelope.needs, "an opener that waits")
            check(all(op[0] != "delete" for op in envelope.ops), "an opener that deletes")
            check(paths == sorted(set(paths)), "an opener's paths are not in their order")
            if self.document != TRUST:
                self.envelopes.clear()
        self.envelopes.append(envelope)
        return "applied"

    def is_followed_by(self, delta):
        if not self.head:
            return False
        at, last = delta.position, self.head.position
        if (at.epoch, at.stamp, at.seq, delta.link) != (last.epoch, last.stamp, last.seq + 1, self.head.hash):
            return False
        check(at.seq <= EPOCH_CHANGES_MAX and self.changed_bytes() + len(delta.data) <= EPOCH_BYTES_MAX, "a full epoch")
        return True

    def changed_bytes(self):
        deltas = 0
        for envelope in self.envelopes:
            deltas = 0 if envelope.is_opener else deltas + len(envelope.data)
        return deltas

    def state(self, is_met):
        """What the envelopes say whose needs are met: those behind one that waits, wait too."""
        state = {}
        for envelope in self.envelopes:
            if not all(self.is_own_past(need, envelope) or is_met(need) for need in envelope.needs):
                break
            for op in envelope.ops:
                if op[0] == "set":
                    state[op[1]] = op[2]
                elif op[0] == "delete":
                    state.pop(op[1], None)
        return state

    def is_own_past(self, need, envelope):
        if isinstance(need, int):
            return False
        document, _, writer, position = need
        return (document, writer) == (self.document, self.writer) and position <= envelope.position


def digest_of(device, heads, logs):
    """A hash over all that a node has (4.4): heads and log positions, each sorted."""
    data = varint(len(heads))
    for document, writer, head in heads:
        place = varint(head.position.epoch) + stamp(head.position.stamp) + varint(head.position.seq)
        data += bytes([document]) + (device if document != TRUST else b"") + writer + place + head.hash
    data += varint(len(logs))
    for workload, boot, log_stamp, number in sorted(logs):
        data += with_length(workload.encode()) + boot + stamp(log_stamp) + varint(number)
    return tagged_hash("fleetd/digest/1", data)


class Documents:
    """The three documents of a device: the fleet's trust, what it should run, and what it says that it runs."""

    def __init__(self, key, chain):
        self.key, self.chain, self.lanes = key, chain, {}
        # The right to write: drawn when the process starts, and never written down.
        self.stamp = secrets.randbits(64)

    @property
    def roster(self):
        trust = {writer: lane for (document, writer), lane in self.lanes.items() if document == TRUST}
        # Of whom the trust document revokes, it cannot know itself what it waits for: there the root's word counts.
        by_root = Roster(self.chain, {}).revoked
        states = {writer: lane.state(lambda need: self.is_met(need, by_root)) for writer, lane in trust.items()}
        return Roster(self.chain, states)

    def is_met(self, need, revoked=None):
        if isinstance(need, int):
            return self.chain.version >= need
        document, _, writer, position = need
        # A lane whose key is revoked will never get there.
        if writer in (self.roster.revoked if revoked is None else revoked):
            return True
        lane = self.lanes.get((document, writer))
        return bool(lane and lane.head and lane.head.position >= position)

    def writer_key(self, document, writer):
        """The public key that may write a lane here, if one may."""
        roster = self.roster
        if writer in roster.revoked:
            return None
        if document == ACTUAL:
            return self.key.public if writer == self.key.id else None
        public, _, sites = roster.authorities.get(writer, (None, None, None))
        # A device does not know its site, and so takes nothing from an authority of some sites only.
        return public if document == TRUST or sites is ALL_SITES else None

    def receive(self, data):
        """Takes an envelope, the cheapest checks first (5). Returns what became of it, and its lane if it named one."""
        lane = None
        try:
            envelope = read_envelope(data)
            document, writer = envelope.document, envelope.lane
            check(envelope.fleet == self.chain.fleet, "an envelope of another fleet")
            check(document == TRUST or envelope.device == self.key.id, "an envelope about another device")
            public_key = self.writer_key(document, writer)
            check(public_key, "a lane that this key may not write")
            others = [lane for lane in self.lanes if lane[0] == document and lane[1] != writer]
            counting = [lane for lane in others if self.writer_key(*lane)]
            check(len(counting) < LANES_MAX, "a lane too many")
            lane = self.lanes.get((document, writer)) or Lane(document, writer)
            outcome = lane.receive(envelope, public_key)
            if lane.envelopes:
                self.lanes[document, writer] = lane
                # A lane that does not count gives way to one that does.
                if len(others) >= LANES_MAX:
                    del self.lanes[next(other for other in others if other not in counting)]
            return outcome, lane
        except NeedsNewerReader as error:
            return f"needs a newer agent: {error}", lane
        except Malformed as error:
            return f"refused: {error}", lane

    def heads(self):
        """The head of each lane that counts, in the order of the digest (4.4)."""
        live = {at: lane for at, lane in self.lanes.items() if self.writer_key(*at)}
        return [(document, writer, live[document, writer].head) for document, writer in sorted(live)]

    def digest(self):
        return digest_of(self.key.id, self.heads(), [])

    def envelopes_above(self, document, writer, head):
        """What a peer lacks of a lane whose head there is `head`; a device has only its own to give."""
        envelopes = self.lanes[document, writer].envelopes if (document, writer) in self.lanes else []
        for number, envelope in enumerate(envelopes):
            if envelope.head == head:
                return [envelope.data for envelope in envelopes[number + 1 :]]
        if head and envelopes and envelopes[-1].position < head.position:
            return []
        return [envelope.data for envelope in envelopes]

    def reported(self):
        """What this device's own lane says."""
        own = self.lanes.get((ACTUAL, self.key.id))
        return own.state(self.is_met) if own else {}

    def report(self, state):
        """Writes what changes the device's own lane to `state`; nothing when it says that already (5)."""
        old, lane = self.reported(), self.lanes.get((ACTUAL, self.key.id)) or Lane(ACTUAL, self.key.id)
        ops = [("set", path, state[path]) for path in sorted(state) if old.get(path) != state[path]]
        ops += [("delete", path) for path in sorted(old.keys() - state)]
        if not ops:
            return []
        head, wall, device = lane.head, time.time_ns() // 1_000_000, self.key.id
        size = sum(len(write_op(op)) for op in ops) + 256
        fits = len(ops) <= DELTA_OPS_MAX and size <= DELTA_BYTES_MAX and lane.changed_bytes() + size <= EPOCH_BYTES_MAX
        if head and head.position.stamp == self.stamp and head.position.seq < EPOCH_CHANGES_MAX and fits:
            position, link, parent = replace(head.position, seq=head.position.seq + 1), head.hash, None
        else:
            # The first words under a stamp, and those that no longer fit an epoch, say the whole state.
            position, link, parent = Position(head.position.epoch + 1 if head else 1, self.stamp, 0), None, head
            ops = [("set", path, state[path]) for path in sorted(state)]
        place = (self.chain.fleet, ACTUAL, device, device, position, link, parent)
        written = seal(self.key, Envelope(*place, wall, 0, [], ops))
        outcome, _ = self.receive(written.data)
        check(outcome == "applied", outcome)
        return [written.data]

    def desired(self):
        """What the device should run (5): for each workload its assignment, the head of the lane that it is from, and
        whether it should run.

        The assignment is `None` where what there is, stays: under a hold, where authorities of one rank disagree, and
        where nobody says anything."""
        roster, lanes = self.roster, []
        for (document, writer), lane in sorted(self.lanes.items()):
            if document == DESIRED and self.writer_key(document, writer):
                lanes.append((roster.authorities[writer][1], lane.head, lane.state(self.is_met)))
        names = {path.split("/")[1] for _, _, state in lanes for path in state if path.startswith("workload/")}
        held, desired = holds(lanes), {}
        for name in sorted(names):
            assignment, head = decide(lanes, name, ASSIGNMENT)
            run, _ = decide(lanes, name, {"run"})
            run = run["run"] if run and run["run"] in ("running", "stopped") else None
            is_free = assignment and is_readable(assignment) and not held & {None, name}
            desired[name] = (assignment, head, run) if is_free else (None, None, None)
        return desired


def decide(lanes, name, fields):
    """What the highest rank says that says anything of these fields: parts of two lanes never mix."""
    said = []
    for rank, head, state in lanes:
        values = {field: state[f"workload/{name}/{field}"] for field in fields if f"workload/{name}/{field}" in state}
        if values:
            said.append((rank, head, values))
    highest = max((rank for rank, _, _ in said), default=0)
    top = [(head, values) for rank, head, values in said if rank == highest]
    if not top or any(values != top[0][1] for _, values in top):
        return None, None
    return top[0][1], max((head for head, _ in top), key=lambda head: (head.position, head.hash))


def is_readable(assignment):
    """Says whether an assignment is one that this device understands: what it does not, removes nothing."""
    match assignment:
        case {"remove": True}:
            return True
        case {"remove": value} if value is not False:
            return False
        case {"release": str(), "manifest": bytes(manifest)} if len(manifest) == 32:
            attempt, rollout = assignment.get("attempt", 0), assignment.get("rollout", "rol_" + 16 * "0")
            return type(attempt) is int and attempt >= 0 and isinstance(rollout, str) and is_id("rol_", rollout, 10)
    return False


def is_id(prefix, text, length):
    try:
        return bool(id_bytes(prefix, text, length))
    except Malformed:
        return False


def holds(lanes):
    """The workloads that a hold stops; `None` among them stands for all."""
    lifts, held = {}, set()
    for rank, _, state in lanes:
        for path in state:
            if path.startswith("lift/"):
                lift = path.split("/")[1]
                lifts[lift] = max(rank, lifts.get(lift, 0))
    for rank, _, state in lanes:
        for path in state:
            if path.startswith("hold/"):
                _, hold, *workload = path.split("/")
                if lifts.get(hold, -1) < rank:
                    held.add(workload[0] if len(workload) == 1 else None)
    return held
