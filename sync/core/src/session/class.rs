//! Classes of messages: each has its own ordered stream, and a better one goes first.

use crate::envelope::DocumentId;

/// What a message is about, and so which stream carries it. Messages of one class arrive in order; those of two
/// classes may overtake each other. The order of the variants is the order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The session itself: Hello, Want, registration, probes.
    Control,
    /// Envelopes of the trust document.
    Trust,
    /// Envelopes of desired documents.
    Desired,
    /// Envelopes of actual documents.
    Actual,
    /// Log records and their acks.
    Logs,
    /// Groups of artifacts.
    Artifacts,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Self; 6] = [Self::Control, Self::Trust, Self::Desired, Self::Actual, Self::Logs, Self::Artifacts];

    /// The class that carries a document's envelopes.
    #[must_use]
    pub const fn of_document(document: DocumentId) -> Self {
        match document {
            DocumentId::Trust => Self::Trust,
            DocumentId::Desired(_) => Self::Desired,
            DocumentId::Actual(_) => Self::Actual,
        }
    }

    /// The number that opens the class's stream on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Trust => 2,
            Self::Desired => 3,
            Self::Actual => 4,
            Self::Logs => 5,
            Self::Artifacts => 6,
        }
    }

    /// The class of a number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_goes_before_desired_before_actual_before_logs() {
        assert!(Class::ALL.is_sorted());
        assert!(Class::Trust < Class::Desired && Class::Desired < Class::Actual && Class::Actual < Class::Logs);
        assert!(Class::ALL.into_iter().all(|class| Class::from_number(class.number()) == Some(class)));
        assert_eq!(Class::from_number(0), None);
    }
}
