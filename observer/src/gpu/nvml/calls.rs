//! Calls into NVML: each may fail by itself, and most say that a device does not support something.

use std::collections::BTreeSet;

use nvml_wrapper::error::NvmlError;

use crate::gpu::Calls;

/// Calls about one device.
pub(super) struct Asking<'a> {
    pub(super) uuid: &'a str,
    /// What it does not support: not asked for again as long as the driver is loaded.
    pub(super) unsupported: &'a mut BTreeSet<&'static str>,
    pub(super) calls: &'a mut Calls,
    /// It is not there any more.
    pub(super) lost: bool,
    /// The driver is not.
    pub(super) gone: bool,
}

impl Asking<'_> {
    /// Asks, unless it is known that there is no answer. `function` is NVML's name, with what is asked for in brackets
    /// where that makes a difference.
    pub(super) fn ask<T>(
        &mut self,
        function: &'static str,
        ask: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.lost || self.gone || self.unsupported.contains(function) {
            return None;
        }
        let error = match ask() {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        };
        match error {
            NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => {
                self.unsupported.insert(function);
                self.calls.unsupported.entry(function).or_default().insert(self.uuid.to_owned());
            }
            // Nothing new.
            NvmlError::NotFound | NvmlError::NoData | NvmlError::Timeout => {}
            NvmlError::GpuLost | NvmlError::ResetRequired => self.lost = true,
            error if is_gone(&error) => self.gone = true,
            error => *self.calls.failures.entry((function, word(&error))).or_default() += 1,
        }
        None
    }
}

/// Whether an error says that the driver was unloaded or exchanged.
pub(super) fn is_gone(error: &NvmlError) -> bool {
    matches!(error, NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch)
}

/// An error as a label.
pub(super) fn word(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::GpuLost | NvmlError::ResetRequired => "gpu_lost",
        NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => {
            "not_supported"
        }
        NvmlError::NoPermission => "no_permission",
        NvmlError::InvalidArg => "invalid_argument",
        NvmlError::InsufficientSize(_) => "insufficient_size",
        NvmlError::InsufficientPower => "insufficient_power",
        NvmlError::IrqIssue => "irq_issue",
        NvmlError::LibraryNotFound => "library_not_found",
        NvmlError::CorruptedInfoROM => "corrupted_inforom",
        NvmlError::OperatingSystem => "operating_system",
        NvmlError::InUse => "in_use",
        NvmlError::InsufficientMemory => "memory",
        NvmlError::Utf8Error(_) | NvmlError::UnexpectedVariant(_) | NvmlError::IncorrectBits(_) => {
            "unexpected_answer"
        }
        _ => "unknown",
    }
}
