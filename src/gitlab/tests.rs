//! The port over HTTP, against a scripted server: the calls, their failures, and the connection itself.

mod calls;
mod faults;
mod stub;
mod wire;
