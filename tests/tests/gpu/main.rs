//! GPUs: the fake NVML, read by the observer's own code through the unmodified nvml-wrapper. Figures are arithmetic on a
//! scenario and say nothing about hardware.

mod allocations;
mod faults;
mod functions;
mod metrics;
mod requests;
