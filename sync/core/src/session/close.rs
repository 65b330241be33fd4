//! Why a session ended, as both ends can tell.

use std::fmt;

/// Why one end closed the session. The number travels as the connection's application close code: append, never
/// renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseCode {
    /// Nothing is wrong: the end shuts down, or has nothing more to say.
    Done,
    /// The session's work is done and the device should dial again, with the certificate that it now has.
    Redial,
    /// The same device has opened a newer session.
    Replaced,
    /// The server has too much to do; it said when to come back.
    Busy,
    /// The device's key is revoked.
    Revoked,
    /// The device was retired by its operator.
    Retired,
    /// The device is not known to this server.
    Unknown,
    /// No version of the protocol is spoken by both.
    NeedsAgent,
    /// The other end belongs to another fleet.
    WrongFleet,
    /// The server could not prove that it belongs to the fleet.
    Impostor,
    /// A frame was larger than the limit.
    FrameTooLarge,
    /// A frame could not be read.
    Malformed,
    /// A message came that has no place here.
    Unexpected,
    /// The other end reads too slowly: its outbox is full.
    Overflow,
    /// The other end did not say its part in time.
    Timeout,
    /// The closing end failed in itself, for example because its store refused a write.
    Internal,
    /// A code that this version does not know.
    Other(u32),
}

impl CloseCode {
    /// Every code that this version knows.
    pub const KNOWN: [Self; 16] = [
        Self::Done,
        Self::Redial,
        Self::Replaced,
        Self::Busy,
        Self::Revoked,
        Self::Retired,
        Self::Unknown,
        Self::NeedsAgent,
        Self::WrongFleet,
        Self::Impostor,
        Self::FrameTooLarge,
        Self::Malformed,
        Self::Unexpected,
        Self::Overflow,
        Self::Timeout,
        Self::Internal,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Redial => 1,
            Self::Replaced => 2,
            Self::Busy => 3,
            Self::Revoked => 10,
            Self::Retired => 11,
            Self::Unknown => 12,
            Self::NeedsAgent => 20,
            Self::WrongFleet => 21,
            Self::Impostor => 22,
            Self::FrameTooLarge => 30,
            Self::Malformed => 31,
            Self::Unexpected => 32,
            Self::Overflow => 33,
            Self::Timeout => 34,
            Self::Internal => 40,
            Self::Other(number) => number,
        }
    }

    /// The code of a number on the wire.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self::KNOWN.into_iter().find(|code| code.number() == number).unwrap_or(Self::Other(number))
    }

    /// Says whether the other end will refuse again until a person does something, so that dialling soon is no use.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Revoked | Self::Retired | Self::Unknown | Self::NeedsAgent | Self::WrongFleet | Self::Impostor
        )
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Done => "done",
            Self::Redial => "redial",
            Self::Replaced => "replaced",
            Self::Busy => "busy",
            Self::Revoked => "revoked",
            Self::Retired => "retired",
            Self::Unknown => "unknown device",
            Self::NeedsAgent => "needs_agent",
            Self::WrongFleet => "wrong fleet",
            Self::Impostor => "impostor",
            Self::FrameTooLarge => "frame too large",
            Self::Malformed => "malformed frame",
            Self::Unexpected => "unexpected message",
            Self::Overflow => "outbox overflow",
            Self::Timeout => "timeout",
            Self::Internal => "internal error",
            Self::Other(number) => return write!(f, "close code {number}"),
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_number() {
        for code in CloseCode::KNOWN {
            assert_eq!(CloseCode::from_number(code.number()), code);
        }
        assert_eq!(CloseCode::from_number(9999), CloseCode::Other(9999));
    }
}
