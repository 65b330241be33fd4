//! Hello: versions, what a server proves of itself, and what a device learns of its fleet before it trusts anyone.

use super::message::{Capabilities, VERSION_MAX, VERSION_MIN};
use super::{
    Announced, Class, CloseCode, DeviceSide, Grade, Hello, Message, Output, Phase, ServerEvidence, Session, Side,
    Summary, Welcome,
};
use crate::key::PublicKey;
use crate::limit;
use crate::replica::Replica;
use crate::time::Now;
use crate::trust::{ExtendError, Extension, RootChain, RootRecord, Roster};

/// What a device made of a server's welcome.
enum Verdict {
    /// The server is of the fleet.
    Trusted,
    /// More root records must come first.
    Incomplete,
}

impl Session {
    /// Says Hello with what the replica holds now: a digest, or all of it.
    pub(super) fn announce(&mut self, replica: &Replica, full: bool, welcome: Option<Welcome>, out: &mut Vec<Output>) {
        let mut heads = replica.heads();
        heads.shrink_to_fit();
        let digest = replica.digest(&self.opening.log_positions);
        let summary = if full {
            Summary::Full { heads: heads.clone(), log_positions: self.opening.log_positions.clone() }
        } else {
            Summary::Digest(digest)
        };
        self.announced = Announced { digest, heads, full };
        self.say_hello(summary, welcome, out);
    }

    fn say_hello(&self, summary: Summary, welcome: Option<Welcome>, out: &mut Vec<Output>) {
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            capabilities: Capabilities::default(),
            boot: self.opening.boot,
            trust_version: self.chain_version(),
            summary,
            welcome,
        };
        out.push(Output::Send(Class::Control, Message::Hello(Box::new(hello))));
    }

    /// The version of the root chain; 0 before there is one.
    pub(super) fn chain_version(&self) -> u64 {
        match &self.opening.side {
            Side::Server(side) => side.chain.version(),
            Side::Device(side) => side.chain.as_ref().map_or(0, RootChain::version),
        }
    }

    pub(super) fn on_hello(&mut self, now: Now, hello: Hello, replica: &mut Replica, out: &mut Vec<Output>) {
        if hello.version_max.min(VERSION_MAX) < hello.version_min.max(VERSION_MIN) {
            return self.close(CloseCode::NeedsAgent, out);
        }
        match (&self.opening.side, &hello.welcome) {
            (Side::Server(_), None) => self.on_device_hello(now, hello, replica, out),
            (Side::Device(_), Some(_)) => self.on_server_hello(now, hello, replica, out),
            // A server introduces itself once; what it says of its heads later needs no welcome.
            (Side::Device(_), None) if !matches!(self.phase, Phase::Greeting { .. }) => {
                self.on_summary(now, hello.summary, replica, out);
            }
            _ => self.close(CloseCode::Unexpected, out),
        }
    }

    fn on_device_hello(&mut self, now: Now, hello: Hello, replica: &mut Replica, out: &mut Vec<Output>) {
        let Side::Server(side) = &self.opening.side else { return };
        let grade = side.grade;
        if matches!(self.phase, Phase::Greeting { .. }) {
            self.grade = Some(grade);
            let digest = replica.digest(&self.opening.log_positions);
            let equal = grade != Grade::Enroll && hello.summary == Summary::Digest(digest);
            self.greet(hello.trust_version, grade != Grade::Enroll && !equal, replica, out);
            if grade == Grade::Enroll {
                self.phase = Phase::Enrolling { deadline: Some(now.monotonic + limit::HELLO_TIMEOUT) };
                return;
            }
            self.phase = Phase::Comparing { deadline: now.monotonic + limit::HELLO_TIMEOUT };
        }
        if grade != Grade::Enroll {
            self.on_summary(now, hello.summary, replica, out);
        }
    }

    /// Sends the server's first Hello: the root records that fit in frames before it, the last ones with it.
    fn greet(&mut self, device_version: u64, full: bool, replica: &Replica, out: &mut Vec<Output>) {
        let Some(welcome) = self.welcome_above(device_version, out) else { return };
        if welcome.grade == Grade::Enroll {
            let nothing = Summary::Full { heads: Vec::new(), log_positions: Vec::new() };
            self.say_hello(nothing, Some(welcome), out);
        } else {
            self.announce(replica, full, Some(welcome), out);
        }
    }

    /// Tells a device of root records in the middle of a session. The summary is what was last announced: the two
    /// compare their heads only when they meet.
    pub(super) fn welcome(&self, device_version: u64, out: &mut Vec<Output>) {
        let Some(welcome) = self.welcome_above(device_version, out) else { return };
        self.say_hello(Summary::Digest(self.announced.digest), Some(welcome), out);
    }

    /// Collects the root records above a version; those that fit no single frame are sent ahead.
    fn welcome_above(&self, version: u64, out: &mut Vec<Output>) -> Option<Welcome> {
        let Side::Server(side) = &self.opening.side else { return None };
        let (mut root_records, mut bytes) = (Vec::new(), 0);
        for record in side.chain.records_above(version) {
            let record = record.encode();
            if bytes + record.len() > limit::HELLO_RECORDS_BYTES_MAX || root_records.len() == limit::ROOT_RECORDS_MAX {
                let root_records = std::mem::take(&mut root_records);
                let welcome = Welcome { grade: side.grade, root_records };
                self.say_hello(Summary::Digest(self.announced.digest), Some(welcome), out);
                bytes = 0;
            }
            bytes += record.len();
            root_records.push(record);
        }
        Some(Welcome { grade: side.grade, root_records })
    }

    fn on_server_hello(&mut self, now: Now, hello: Hello, replica: &mut Replica, out: &mut Vec<Output>) {
        let Hello { welcome: Some(welcome), summary, trust_version, .. } = hello else { return };
        let grade = welcome.grade;
        let first = matches!(self.phase, Phase::Greeting { .. });
        let verdict = match &mut self.opening.side {
            Side::Device(side) => side.judge(welcome, trust_version, out),
            Side::Server(_) => return,
        };
        match verdict {
            Err(code) => return self.close(code, out),
            Ok(Verdict::Incomplete) => return,
            Ok(Verdict::Trusted) if !first => {
                // Envelopes of a writer that was unknown until now may have been refused: ask what there is.
                self.announce(replica, true, None, out);
                return;
            }
            Ok(Verdict::Trusted) => {}
        }
        self.grade = Some(grade);
        out.push(Output::Welcomed(grade));
        if grade == Grade::Enroll {
            self.phase = Phase::Enrolling { deadline: None };
            return;
        }
        let early = match &mut self.phase {
            Phase::Greeting { early, .. } => std::mem::take(early),
            _ => Vec::new(),
        };
        self.phase = Phase::Comparing { deadline: now.monotonic + limit::HELLO_TIMEOUT };
        self.on_summary(now, summary, replica, out);
        for push in early {
            self.on_push(now, push, replica, out);
        }
    }
}

impl DeviceSide {
    /// Extends the root chain by what the server brought, then judges the server by the chain. Nothing that the
    /// server said counts before.
    fn judge(&mut self, welcome: Welcome, trust_version: u64, out: &mut Vec<Output>) -> Result<Verdict, CloseCode> {
        let mut records = Vec::new();
        for bytes in &welcome.root_records {
            let record = RootRecord::decode(bytes).map_err(|_| CloseCode::Impostor)?;
            match self.extend(record.clone())? {
                Extension::Extended => records.push(record),
                Extension::Known => {}
                Extension::Alarm { version } => out.push(Output::RootAlarm { version }),
            }
        }
        if !records.is_empty() {
            // They stand by their own signatures, whoever brought them.
            out.push(Output::RootRecords(records));
        }
        let Some(chain) = &self.chain else { return Err(CloseCode::WrongFleet) };
        if chain.version() < trust_version {
            return Ok(Verdict::Incomplete);
        }
        if chain.version() < self.trust_version_min {
            // An older root may name a CA that a newer one took away.
            return Err(CloseCode::Impostor);
        }
        let authorities: Vec<PublicKey> = Roster::new(chain, []).certificate_authorities().collect();
        let evidence = ServerEvidence { leaf: &self.server_leaf, authorities: &authorities, fleet: self.fleet };
        (self.verify)(&evidence).map_err(|_| CloseCode::Impostor)?;
        Ok(Verdict::Trusted)
    }

    fn extend(&mut self, record: RootRecord) -> Result<Extension, CloseCode> {
        let extended = match &mut self.chain {
            Some(chain) => chain.extend(record),
            None => RootChain::found(self.fleet, record).map(|chain| {
                self.chain = Some(chain);
                Extension::Extended
            }),
        };
        extended.map_err(|error| match error {
            ExtendError::ForeignFleet { .. } | ExtendError::NotFounding { .. } => CloseCode::WrongFleet,
            _ => CloseCode::Impostor,
        })
    }
}
