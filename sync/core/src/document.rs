//! A document: its lanes, and the one rule for which bytes may enter them.
