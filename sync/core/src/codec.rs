//! The canonical binary layout of envelopes and other signed bodies.
