//! Envelopes: signed changes of one lane.
