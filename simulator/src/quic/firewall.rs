//! What stands between a node and the others and follows connections by their ids, as middleboxes do that know QUIC.

use std::collections::BTreeSet;

/// Bytes of a connection's id: both ends of the product choose as many.
///
/// # Source
/// RFC 9000, section 17.3: a packet with a short header has the id right behind its first byte.
const ID_BYTES: usize = 8;
/// The bit that only packets of a handshake have.
///
/// # Source
/// RFC 9000, section 17.2.
const LONG_HEADER: u8 = 0x80;

type Id = [u8; ID_BYTES];

/// Which connections pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Firewall {
    known: BTreeSet<Id>,
    forgotten: BTreeSet<Id>,
}

impl Firewall {
    /// Forgets every connection that it knows: their packets pass no more.
    pub(super) fn forget(&mut self) {
        self.forgotten.append(&mut self.known);
    }

    /// Looks at a packet, and says whether it passes.
    pub(super) fn lets_pass(&mut self, packet: &[u8]) -> bool {
        let Some((first, rest)) = packet.split_first() else { return true };
        let Some(id) = rest.first_chunk::<ID_BYTES>().filter(|_| first & LONG_HEADER == 0) else { return true };
        if self.forgotten.contains(id) {
            return false;
        }
        self.known.insert(*id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_forgotten_passes_no_more_and_a_new_one_does() {
        let mut firewall = Firewall::default();
        let (old, new, handshake) = ([0x40; 20], [0x41; 20], [0xc0; 20]);
        assert!(firewall.lets_pass(&old));
        firewall.forget();
        assert!(!firewall.lets_pass(&old));
        assert!(firewall.lets_pass(&handshake), "whoever begins anew is let in");
        assert!(firewall.lets_pass(&new));
    }
}
