//! Keys, signatures and their domains.
