//! Enrolment tokens: what a device is given so that it may ask for an identity.
