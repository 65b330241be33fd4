//! Hears of every panic of this thread, also of those that a supervisor catches.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

static LISTENING: Once = Once::new();

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Hears of panics from now on, in every thread its own.
pub(super) fn listen() {
    LISTENING.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            LAST.with_borrow_mut(|last| *last = Some(info.to_string()));
            before(info);
        }));
    });
    let _ = take();
}

/// The last panic since the last call.
pub(super) fn take() -> Option<String> {
    LAST.with_borrow_mut(Option::take)
}
