//! The processor's engine.

pub(crate) mod linear;
