//! The processor's engine.

mod linear;
