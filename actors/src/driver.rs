//! A driver acts and never decides.

use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::time::Now;

/// Carries out what one machine decided.
///
/// A driver only *starts* work: nothing it does may hold the mailbox. Long work carries an operation id, ends as an
/// input at the machine's address, and is stopped by an effect that names the id.
pub trait Driver<M: Machine>: Send + 'static {
    /// Appends the mutations that make `record` durable.
    fn store(&mut self, record: M::Record, mutations: &mut Vec<Mutation>);

    /// Appends what must become durable with a turn because of what its effects answer. Called after
    /// [`Driver::store`], and only for a turn that stores something.
    fn accompany(&mut self, _effects: &[M::Effect], _mutations: &mut Vec<Mutation>) {}

    /// Starts what `effect` asks for. Called in order, and only once the effect's turn is durable.
    fn start(&mut self, now: Now, effect: M::Effect);

    /// Sees what the machine is about to take; `None` when it looks at what is due.
    fn witness_step(&mut self, _now: Now, _input: Option<&M::Input>) {}

    /// Sees the machine after that, with what it decided.
    fn witness_turn(&mut self, _machine: &M, _turn: &Turn<M::Record, M::Effect>) {}
}
