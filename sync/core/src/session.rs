//! One peer's half of a sync session.
//!
//! A session turns what a peer says into changes of a [`crate::replica::Replica`], and changes made here into what
//! the peer must hear. It never sends: it says what to send, and its owner does so once the turn is durable. Both
//! ends run the same code; only the opening differs.
//!
//! Where to start reading: [`message`] (what is said), [`output`] (what is decided), [`close`] (how it ends) and
//! [`dial`] (how a device finds its server).

pub mod class;
pub mod close;
pub mod dial;
pub mod message;
pub mod output;

pub use class::Class;
pub use close::CloseCode;
pub use message::{Grade, Hello, LogPosition, LogStream, Message, Push, Summary, Want, Welcome};
pub use output::Output;
