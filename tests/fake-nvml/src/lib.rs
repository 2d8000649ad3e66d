//! A fake NVML: a shared library with NVIDIA's C interface that tells what a scenario says, for tests where there is no
//! GPU. What it computes is arithmetic on the scenario and no claim about hardware.
//!
//! The scenario is the file beside the library with `.json` appended; it is read again when it changes. Names of
//! functions that were called are in the file with `.calls` appended.

mod exports;
mod loaded;
mod scenario;

pub use scenario::{Curve, Device, Gpm, Instance, Process, Scenario, integral, linear, step};
