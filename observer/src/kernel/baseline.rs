//! What probing all system calls costs before anything is done with them: a yardstick for benchmarks.

use aya::{EbpfLoader, programs::RawTracePoint};

use super::load::{LoadError, OBJECT};

/// An empty raw tracepoint pair on all system calls, attached until it is dropped.
pub struct EmptyPair(#[expect(dead_code, reason = "keeps the programs attached")] aya::Ebpf);

impl EmptyPair {
    /// Attaches the pair.
    ///
    /// # Errors
    /// [`LoadError`] if the kernel refuses.
    pub fn attach() -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let mut ebpf = EbpfLoader::new().load(OBJECT)?;
        for (program, tracepoint) in [("empty_exit", "sys_exit"), ("empty_enter", "sys_enter")] {
            let refused = |source| LoadError::Program { program, source };
            let loaded: &mut RawTracePoint =
                ebpf.program_mut(program).ok_or(LoadError::Absent(program))?.try_into().map_err(refused)?;
            loaded.load().map_err(refused)?;
            loaded.attach(tracepoint).map_err(refused)?;
        }
        Ok(Self(ebpf))
    }
}
