//! The functions that are found before the C library's own.
//!
//! They may be called before anything is set up, and from within an allocation: they allocate nothing and lock nothing.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// System calls by their numbers on x86-64.
const SYS_CLOCK_GETTIME: c_long = 228;
/// See above.
const SYS_GETRANDOM: c_long = 318;
/// Clocks by their numbers.
const CLOCK_REALTIME: c_int = 0;
/// See above.
const CLOCK_REALTIME_COARSE: c_int = 5;
/// The largest error that the kernel answers with, negated.
const ERROR_MAX: c_long = 4095;
/// The most bytes that `getentropy` gives.
const ENTROPY_BYTES_MAX: usize = 256;
/// Where the wall clock stands: 2026-01-01T00:00:00Z.
const WALL_SECONDS: i64 = 1_767_225_600;

/// [`super::SEED_VARIABLE`], as the C library takes it.
const VARIABLE: &CStr = c"FLEETD_SIM_SHIM_SEED";

const UNREAD: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNREAD);
static SEED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

/// A point in time, as the kernel writes it.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

unsafe extern "C" {
    safe fn __errno_location() -> *mut c_int;
    fn getenv(name: *const c_char) -> *const c_char;
}

/// Calls the kernel, and gives what it answers: an error is negative.
fn call_kernel(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let answer: c_long;
    // SAFETY: the registers are those of the x86-64 convention for system calls. What the arguments mean is the
    // caller's promise to the function that it meant to call.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// An answer of the kernel, as the C library gives it.
fn told(answer: c_long) -> c_long {
    if !(-ERROR_MAX..0).contains(&answer) {
        return answer;
    }
    // SAFETY: the C library's own place for this thread's error.
    unsafe { *__errno_location() = c_int::try_from(-answer).unwrap_or(0) };
    -1
}

/// The seed, if there is one.
fn seed() -> Option<u64> {
    match STATE.load(Ordering::Acquire) {
        PRESENT => Some(SEED.load(Ordering::Relaxed)),
        ABSENT => None,
        _ => {
            // SAFETY: the name ends with a zero, and so does what is found, which stays where it is: nobody changes the
            // environment of a worker.
            let text = unsafe {
                let found = getenv(VARIABLE.as_ptr());
                if found.is_null() { None } else { Some(CStr::from_ptr(found)) }
            };
            let seed = text.and_then(|text| text.to_str().ok()).and_then(|text| text.parse().ok());
            SEED.store(seed.unwrap_or(0), Ordering::Relaxed);
            STATE.store(if seed.is_some() { PRESENT } else { ABSENT }, Ordering::Release);
            seed
        }
    }
}

/// The next eight bytes of this thread's stream.
///
/// # Source
/// SplitMix64, by Sebastiano Vigna: enough to repeat, and nobody here has a secret.
fn next(seed: u64) -> [u8; 8] {
    let drawn = DRAWN.get().wrapping_add(1);
    DRAWN.set(drawn);
    let mut mixed = seed.wrapping_add(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).to_le_bytes()
}

/// Fills a buffer from this thread's stream.
///
/// # Safety
/// `length` bytes at `buffer` may be written.
unsafe fn fill(seed: u64, buffer: *mut u8, length: usize) {
    for begin in (0..length).step_by(8) {
        let count = (length - begin).min(8);
        // SAFETY: `begin + count` is within `length`, by the caller's promise.
        unsafe { buffer.add(begin).copy_from_nonoverlapping(next(seed).as_ptr(), count) };
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    let Some(seed) = seed() else {
        let arguments = [buffer as c_long, length as c_long, c_long::from(flags), 0, 0, 0];
        return told(call_kernel(SYS_GETRANDOM, arguments)) as isize;
    };
    // SAFETY: by the caller's promise.
    unsafe { fill(seed, buffer.cast(), length) };
    length.cast_signed()
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getentropy(buffer: *mut c_void, length: usize) -> c_int {
    if length > ENTROPY_BYTES_MAX {
        return -1;
    }
    // SAFETY: by the caller's promise.
    let given = unsafe { getrandom(buffer, length, 0) };
    if usize::try_from(given) == Ok(length) { 0 } else { -1 }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == SYS_GETRANDOM
        && let (Some(_), Ok(length)) = (seed(), usize::try_from(b))
    {
        // SAFETY: by the caller's promise.
        return unsafe { getrandom(a as *mut c_void, length, 0) } as c_long;
    }
    told(call_kernel(number, [a, b, c, d, e, f]))
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut c_void) -> c_int {
    if matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) && seed().is_some() {
        let wall = Timespec { seconds: WALL_SECONDS, nanoseconds: 0 };
        // SAFETY: by the caller's promise.
        unsafe { time.cast::<Timespec>().write(wall) };
        return 0;
    }
    c_int::try_from(told(call_kernel(SYS_CLOCK_GETTIME, [c_long::from(clock), time as c_long, 0, 0, 0, 0])))
        .unwrap_or(-1)
}
