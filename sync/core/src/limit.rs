//! Every limit that somebody else meets, with the reason for its number: peers, callers, operators, and whoever
//! writes a second implementation. A number that only paces the work of one file (a page, a buffer, a pause) stands
//! there, beside what it paces.

use std::time::Duration;

/// Operations in one DELTA envelope: the largest state that one device needs changed at once, twice over.
pub const ENVELOPE_OPS_MAX: usize = 64;
/// Bytes of a DELTA envelope: a change is small, and large things are artifacts.
pub const DELTA_BYTES_MAX: usize = 4 << 10;
/// Bytes of a SNAPSHOT envelope, and so of one lane's whole state.
pub const SNAPSHOT_BYTES_MAX: usize = 16 << 10;
/// Bytes that a server keeps for holds in its lane of a device's document: six with the longest reason, twenty with
/// usual ones.
pub const HOLDS_BYTES_RESERVED: usize = 4 << 10;
/// Bytes that operators' holds of one device take at most; the rest is for those of rollouts, orders and pins.
pub const OPERATOR_HOLDS_BYTES_MAX: usize = HOLDS_BYTES_RESERVED / 2;
/// Bytes of everything else there: five workloads with the largest configurations, or some thirty without.
pub const ASSIGNED_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX - HOLDS_BYTES_RESERVED;
/// Operations in one SNAPSHOT envelope: each has 6 bytes at least, so that its bytes are the limit that counts.
pub const SNAPSHOT_OPS_MAX: usize = SNAPSHOT_BYTES_MAX / 6;
/// Changes after which a lane begins a new epoch: replaying them costs under a millisecond.
pub const EPOCH_CHANGES_MAX: u64 = 64;
/// Bytes after which a lane begins a new epoch.
pub const EPOCH_BYTES_MAX: usize = 16 << 10;
/// Lanes of one document: a central authority, a few sites and their successors.
pub const DOCUMENT_LANES_MAX: usize = 8;
/// Openers that a receiver keeps of each lane, to tell a stale branch from a forked one.
pub const LANE_OPENERS_KEPT: usize = 4;
/// Conditions that one envelope may wait for.
pub const ENVELOPE_NEEDS_MAX: usize = 8;
/// Characters of one path in a document.
pub const PATH_CHARS_MAX: usize = 128;
/// Bytes of one operation: a path, a value, and a few of framing.
pub const OP_BYTES_MAX: usize = VALUE_BYTES_MAX + PATH_CHARS_MAX + 16;
/// Bytes of one value in a document.
pub const VALUE_BYTES_MAX: usize = 2 << 10;

/// Bytes of one frame between peers: holds the largest envelope and three artifact groups with their framing.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Lanes named in one Hello: a device has three documents of at most eight lanes.
pub const HELLO_HEADS_MAX: usize = 64;
/// Log streams named in one Hello.
pub const HELLO_STREAMS_MAX: usize = 64;
/// Envelopes in one Push: as many of the smallest as fit a frame.
pub const PUSH_ENVELOPES_MAX: usize = 256;
/// Inputs that a connection may have in its actor's mailbox before it reads on: mailboxes have no bound of their own.
pub const CONNECTION_CREDITS: usize = 64;
/// Frames that wait in one connection's outbox; one more closes the session, and Hello repairs it.
pub const OUTBOX_FRAMES_MAX: usize = 1024;
/// Bytes that wait in one connection's outbox: twice what an artifact's window needs.
pub const OUTBOX_BYTES_MAX: usize = 2 << 20;
/// Bytes of envelopes in one Push: leaves a frame room for its framing.
pub const PUSH_BYTES_MAX: usize = 60 << 10;
/// Bytes of root records in one Hello: leaves a frame room for the CA's certificate and the heads.
pub const HELLO_RECORDS_BYTES_MAX: usize = 48 << 10;
/// Bytes of pushes that may overtake the server's Hello: a live change or two.
pub const EARLY_BYTES_MAX: usize = 64 << 10;
/// Pushes that may overtake the server's Hello.
pub const EARLY_PUSHES_MAX: usize = 16;
/// Bytes of a certificate: ours have about 500.
pub const CERTIFICATE_BYTES_MAX: usize = 4 << 10;
/// Certificates in one chain: leaf, a site's CA, the fleet's CA, and one to spare.
pub const CERTIFICATES_MAX: usize = 4;
/// Time for which a device's certificate is issued. It may pass unnoticed: an expired one can still be renewed.
pub const DEVICE_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Time over which devices whose certificates were issued on one day are asked to renew them: a fleet that enrolled at
/// once does not come back at once.
pub const RENEWAL_SPREAD: Duration = Duration::from_secs(21 * 24 * 60 * 60);
/// Pause before a connected device is asked again to renew its certificate: a server that was busy has had its day.
pub const RENEWAL_ASKED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Time in which a server answers a request for a new certificate, before the device dials again.
pub const RENEWAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of what a device says about itself.
pub const FACTS_BYTES_MAX: usize = 4 << 10;
/// Connections that may be in their handshake at once.
pub const HANDSHAKES_MAX: usize = 256;

/// Handshakes of one source address that may be under way while many are, once it has shown that the address is its
/// own: a site behind one router has room for its devices to come back, and leaves as much to others. One more is
/// passed over, and comes again in a second.
pub const HANDSHAKES_EACH_MAX: usize = HANDSHAKES_MAX / 4;

/// Devices without a certificate that a server lets wait at once; the next are told to come back.
pub const LOBBY_CONNECTIONS_MAX: usize = 4096;

/// Keep-alive of a connection that may cross a NAT: shorter than the 30 s after which cheap routers forget UDP.
pub const KEEP_ALIVE_NAT: Duration = Duration::from_secs(25);
/// Time without a packet after which a connection is given up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(80);
/// Keep-alive of a connection that no router forgets.
pub const KEEP_ALIVE_LAN: Duration = Duration::from_secs(300);
/// Time without a packet after which a connection on a LAN is given up: three keep-alives may be lost.
pub const IDLE_TIMEOUT_LAN: Duration = Duration::from_secs(960);
/// Time in which a probed peer must answer where somebody waits for presence.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time in which a dialled server must have sent its Hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which each end must have what the other said it had; after it, the rest is asked for once.
pub const RECONCILE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which envelopes that were asked for may be asked for again.
pub const WANT_AGAIN: Duration = Duration::from_secs(5);
/// Time in which a connection that is to end must be down.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// First ceiling of the pause before a device dials again.
pub const DIAL_BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Last ceiling of the pause before a device dials again.
pub const DIAL_BACKOFF_LAST: Duration = Duration::from_secs(60);
/// Ceiling of the pause after every address refused the device for a reason that only a person can change.
pub const DIAL_BACKOFF_REFUSED: Duration = Duration::from_secs(15 * 60);
/// Failed rounds that are counted: the ceiling of the pause has reached its last value before.
pub const DIAL_FAILURES_MAX: u32 = 8;
/// Longest pause that a server may ask for: a wrong number must not silence a device for good.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// Addresses that a device tries in turn: those of its token, of its configuration, and the last that worked.
pub const DIAL_ADDRESSES_MAX: usize = 16;

/// Bytes of a root record: 16 keys and 64 delegations fit.
pub const ROOT_RECORD_BYTES_MAX: usize = 16 << 10;
/// Keys that may sign a root record.
pub const ROOT_KEYS_MAX: usize = 16;
/// Delegations in one root record.
pub const ROOT_DELEGATIONS_MAX: usize = 64;
/// Signatures of one root record: those of its own keys and of the keys before it.
pub const ROOT_SIGNATURES_MAX: usize = 2 * ROOT_KEYS_MAX;
/// Keys that one root record revokes: they fit its bytes beside its delegations, and a later record can name more.
pub const ROOT_REVOCATIONS_MAX: usize = 256;
/// Names that one delegation may reach: a fleet of more sites or workloads gives them to several keys.
pub const SCOPE_NAMES_MAX: usize = 64;
/// Root records that one message may carry.
pub const ROOT_RECORDS_MAX: usize = 64;
/// Bytes of an enrolment token as text: a few addresses, a fleet id and a secret.
pub const TOKEN_CHARS_MAX: usize = 1024;
/// Addresses in one enrolment token.
pub const TOKEN_ADDRESSES_MAX: usize = 8;
/// Characters of one server's address: the longest host name, a colon and a port.
pub const ADDRESS_CHARS_MAX: usize = 253 + 6;
/// Devices that may wait for approval: more is no fleet that somebody approves by hand.
pub const PENDING_DEVICES_MAX: usize = 10_000;
/// Bytes of a certificate signing request.
pub const CSR_BYTES_MAX: usize = 4 << 10;

/// Bytes of a release manifest.
pub const MANIFEST_BYTES_MAX: usize = 16 << 10;
/// Artifacts in one release, one for each platform.
pub const RELEASE_ARTIFACTS_MAX: usize = 16;
/// Arguments, environment names and probes of one release together.
pub const MANIFEST_ENTRIES_MAX: usize = 64;
/// Characters of a file's name, an environment variable's name and a user's: what file systems and shells take.
pub const SHORT_NAME_CHARS_MAX: usize = 128;
/// The longest interval or grace of a manifest, a day: longer ones are mistakes of unit.
pub const MANIFEST_DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a configuration: it is one value of a document.
pub const CONFIGURATION_BYTES_MAX: usize = VALUE_BYTES_MAX;
/// Bytes of all values of a configuration together: what is larger is a file.
pub const CONFIGURATION_VALUES_BYTES_MAX: usize = 1 << 10;
/// Bytes of one artifact: what an embedded device's storage can hold twice.
pub const ARTIFACT_BYTES_MAX: u64 = 8 << 30;
/// Bytes of one verified group of an artifact: a flipped bit costs no more than this to fetch again.
pub const ARTIFACT_GROUP_BYTES: u64 = 16 << 10;
/// Groups that a device asks for at once: 512 KiB in flight keeps a 50 ms link busy at 10 MB/s.
pub const ARTIFACT_WINDOW_GROUPS: u64 = 32;

/// Characters of a workload's name: a file name on every file system, with room for a suffix.
pub const WORKLOAD_NAME_CHARS_MAX: usize = 63;
/// Characters of a version.
pub const VERSION_CHARS_MAX: usize = 64;
/// Characters of a device's name.
pub const DEVICE_NAME_CHARS_MAX: usize = 63;
/// Characters of a label's key, and of its value.
pub const LABEL_CHARS_MAX: usize = 63;
/// Events that a server keeps of one device: what happened lately, for `device why`.
pub const DEVICE_EVENTS_MAX: usize = 32;
/// Labels of one device.
pub const DEVICE_LABELS_MAX: usize = 32;
/// Characters of a platform's name.
pub const PLATFORM_CHARS_MAX: usize = 31;

/// Bytes of one log line; a longer one is cut and says so.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// Bytes of records in one log segment before it is sealed: about seven times smaller on disk, and quick to sign.
pub const LOG_SEGMENT_BYTES: usize = 16 << 10;
/// Age at which a log segment is sealed though it is not full.
pub const LOG_SEGMENT_AGE: Duration = Duration::from_secs(1);
/// Bytes of spooled logs that a device keeps before it drops the oldest segment and marks the gap.
pub const SPOOL_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a selector: more than any command line wants, and quick to parse.
pub const SELECTOR_BYTES_MAX: usize = 4 << 10;
/// Bytes of a condition: each is read by a parser that takes stack for what it reads, and this much fits a thread's.
pub const CONDITION_BYTES_MAX: usize = 2 << 10;
/// How deep a condition may nest, for the same reason.
pub const CONDITION_DEPTH_MAX: usize = 32;
/// Steps that a condition may take for one device: with so many, a million devices take a core some ten seconds.
pub const CONDITION_STEPS_MAX: usize = 256;
/// Characters of a group's name: as many as a device's.
pub const GROUP_NAME_CHARS_MAX: usize = 63;
/// Devices of a fixed group: each plan for it carries them, in some 30 bytes each.
pub const GROUP_DEVICES_MAX: usize = 10_000;
/// Characters of an access token's name: as many as a device's.
pub const ACCESS_NAME_CHARS_MAX: usize = 63;
/// Bytes of an operator's reason: it travels to the device in a document, which has little room.
pub const REASON_BYTES_MAX: usize = 512;
/// Characters of a request's id: a UUID takes 36, and names of pipelines some more.
pub const REQUEST_ID_CHARS_MAX: usize = 64;
/// The most entries of one page of a list: a thousand devices with their workloads are about 1 MiB.
pub const PAGE_SIZE_MAX: usize = 1000;
/// Lines of the past that may be asked for as the last ones: they wait in memory until all of them are known.
pub const TAIL_LINES_MAX: u32 = 100_000;
/// Bytes of one message of an upload: what the schema promises to take.
pub const UPLOAD_PART_BYTES_MAX: usize = 1 << 20;
/// Bytes of a plan's document that a caller may send: one over a hundred thousand devices takes 20 MiB.
pub const PLAN_DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// Connections to the API at once: operators, pipelines and consoles call it, and devices do not. With full windows
/// they hold 256 MiB.
pub const API_CONNECTIONS_MAX: usize = 1024;
/// Connections to the API for which no credential was shown yet: a quarter of all, so that strangers never take the
/// places of those who have one. One more is let in, and the oldest of them goes.
pub const API_STRANGERS_MAX: usize = 256;
/// The same, of one source address: an office behind one router opens a few at once, and shows its credentials in
/// milliseconds.
pub const API_STRANGERS_EACH_MAX: usize = 64;
/// Calls of one credential within a second: a script over a fleet asks ten times a second, a console fewer; the server
/// answers some thousands.
pub const API_CALLS_PER_SECOND: u32 = 200;
/// Calls of one credential at once, after a pause: a console that opens, or a loop over a thousand devices.
pub const API_CALLS_BURST: u32 = 1000;
/// Calls without a credential that counts, of one source address within a second: a person who mistypes, or a pipeline
/// whose token has expired. No token can be guessed at any rate; this bounds the work and the noise.
pub const API_FAILURES_PER_SECOND: u32 = 1;
/// The same, at once.
pub const API_FAILURES_BURST: u32 = 60;
/// Calls that need no credential, of one source address within a second: health checks, and devices that register
/// over HTTP from behind one router.
pub const API_OPEN_PER_SECOND: u32 = 50;
/// The same, at once.
pub const API_OPEN_BURST: u32 = 500;
/// Credentials and source addresses whose calls are counted at once: about 400 KiB for each of three counts.
pub const API_COUNTED_MAX: usize = 4096;
/// Requests at once on one connection of HTTP/2: a console's many watches fit one.
pub const API_CONNECTION_REQUESTS_MAX: u32 = 128;
/// Bytes of a request's headers: a GET of Connect has its message in the path, and 16 KiB hold any read, and a token.
pub const API_HEADER_BYTES_MAX: usize = 16 << 10;
/// Bytes of one message of a Connect request: an upload's part of 1 MiB is 1.4 MiB in JSON; gRPC's usual limit leaves
/// room.
pub const API_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a whole request that needs no credential: a registration is a token, a certificate request and facts, 8 KiB.
pub const API_OPEN_BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of bodies under way on one connection of HTTP/2: keeps an upload at 5 MB/s over 50 ms.
pub const API_WINDOW_BYTES: u32 = 256 << 10;
/// Time for the API's TLS handshake, and then for the first request: slow links shake hands in 2 s.
pub const API_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which the headers of a request on HTTP/1.1 must have come, the pause before it included.
pub const API_HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which a connection of HTTP/2 is asked whether it lives: routers forget silent ones after 30 s at the
/// earliest.
pub const API_KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How often the credential of a call that still goes on is looked at again: who is sent away sees no more after this long.
pub const API_CREDENTIAL_INTERVAL: Duration = Duration::from_secs(5);
/// Time that open requests have to finish when the server stops: an exchange takes well under a second; what lasts
/// longer is a watch, which the client opens again.
pub const API_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How far behind the truth *last heard* may be after a server was killed: once in so long it is noted who is there.
pub const PRESENCE_NOTED_EVERY: Duration = Duration::from_secs(60);

/// Entries of the audit log that a server keeps: at a hundred calls a day, thirteen years. About 300 MB on disk.
pub const AUDIT_ENTRIES_KEPT: u64 = 1_000_000;
/// Bytes of a request that an entry of the audit log shows: all of most requests, and the beginning of a long one.
pub const AUDIT_REQUEST_BYTES_MAX: usize = 2 << 10;
/// Things that one entry of the audit log is about: what the caller named, and what it turned out to be.
pub const AUDIT_SUBJECTS_MAX: usize = 4;
/// Bytes of the name of one thing that an entry of the audit log is about: a digest has 64.
pub const AUDIT_SUBJECT_BYTES_MAX: usize = 128;
/// Refusals for too low a role that leave an entry in the audit log, of one caller within an hour; more are counted.
/// Whoever may do nothing must not be able to push out of the log what others did.
pub const AUDIT_REFUSALS_EACH_MAX: u32 = 10;
/// The same, of all callers.
pub const AUDIT_REFUSALS_MAX: u32 = 40;
