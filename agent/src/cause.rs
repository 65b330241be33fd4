//! An error in one line, for those who get it as text.

use std::error::Error;

/// An error's text and that of each source below it.
pub(crate) fn cause_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let below_text = below.to_string();
        // A transparent error says what its source says.
        if !text.ends_with(&below_text) {
            text.push_str(": ");
            text.push_str(&below_text);
        }
        source = below.source();
    }
    text
}
