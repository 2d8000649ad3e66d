//! Loads the object, attaches its programs, and hands out what is read and written while it runs.

use std::{os::fd::AsFd as _, path::Path, thread};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{MapData, MapError, ProgramArray, RingBuf},
    programs::{
        Program, ProgramError, RawTracePoint, TracePoint, raw_trace_point::RawTracePointLink,
        trace_point::TracePointLink,
    },
};
use aya_log::EbpfLogger;
use thiserror::Error;
use tracing::{debug, warn};

use super::{
    btf,
    counters::{Counters, Counts},
    formats,
    programs::{ATTACHMENTS, EXITS, Hook, Probe, ProbeMode, STEPS},
    requirements::{self, Requirement},
    ring,
    tables::Tables,
    watch::WatchBytes,
};

pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-probes"));

/// What the loader may be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring: a power of two, a multiple of the page size.
    pub ring_bytes: u32,
    /// Whether to attach the probe on the arrival of data.
    pub arrival: bool,
    /// Whether nothing of a process is captured before it was admitted.
    pub ask_first: bool,
}

/// Why the probes do not run.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The machine does not grant something.
    #[error(transparent)]
    Requirement(#[from] Requirement),
    /// The program was built on a machine without a compiler for the kernel side.
    #[error(
        "this binary was built without its kernel side, so it can replay but not observe; \
         run `cargo xtask setup` and build again"
    )]
    NotBuilt,
    /// The object was refused.
    #[error("the kernel refused the eBPF object: {0}")]
    Object(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("the kernel refused eBPF program {program}: {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// A program or map is not in the object.
    #[error("the eBPF object has no {0}")]
    Absent(&'static str),
    /// A map could not be used.
    #[error("eBPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: MapError,
    },
    /// The watch bytes could not be mapped.
    #[error("cannot map the watch bytes: {0}")]
    Watch(std::io::Error),
}

/// The probes, running. Dropping it detaches them all.
pub struct Kernel {
    /// Watch bytes of processes.
    pub watch: WatchBytes,
    /// Maps that user space writes.
    pub tables: Tables,
    ring: RingBuf<MapData>,
    counters: Counters,
    report: Vec<Probe>,
    /// In the order of [`ATTACHMENTS`].
    links: Vec<Option<Link>>,
    offsets: Vec<(&'static str, u32)>,
    ebpf: Ebpf,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    /// The kernel empties a program array when nobody in user space holds it any more.
    _tail_calls: [ProgramArray<MapData>; 2],
}

impl Kernel {
    /// Checks the machine, loads everything, attaches everything.
    ///
    /// # Errors
    /// [`LoadError`] if observing would be pointless; what can be done without is in [`Kernel::report`].
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let tracefs = requirements::check()?;
        raise_memlock();
        let mut offsets = formats::offsets(&tracefs);
        let (of_types, untold) = btf::offsets(Path::new(btf::TYPES));
        offsets.extend(of_types);
        let mut ebpf = object(options, &offsets)?;
        let ring = RingBuf::try_from(take(&mut ebpf, "RING")?)
            .map_err(|source| LoadError::Map { map: "RING", source })?;
        let watch = WatchBytes::map(ebpf.map("WATCH").ok_or(LoadError::Absent("WATCH"))?)?;
        let tables = Tables::take(&mut ebpf)?;
        let counters = Counters::take(&mut ebpf)?;
        let tail_calls = tail_calls(&mut ebpf)?;
        let logger =
            EbpfLogger::init(&mut ebpf).inspect_err(|error| warn!(%error, "the kernel side cannot log")).ok();
        let (report, links) = (Vec::new(), Vec::new());
        let mut kernel = Self {
            watch,
            tables,
            ring,
            counters,
            report,
            links,
            offsets,
            ebpf,
            logger,
            _tail_calls: tail_calls,
        };
        kernel.attach(options)?;
        kernel.report.push(Probe::of_ends(untold));
        Ok(kernel)
    }

    fn attach(&mut self, options: &Options) -> Result<(), LoadError> {
        for attachment in ATTACHMENTS {
            let program = attachment.program;
            let outcome = if program == "sk_data_ready" && !options.arrival {
                Err(Refused::Off)
            } else if let Some(field) = formats::missing(&self.offsets, program) {
                Err(Refused::Field(field))
            } else {
                attach(&mut self.ebpf, program, attachment.hook)
            };
            let (mode, link) = match (outcome, attachment.without) {
                (Ok(link), _) => (ProbeMode::Attached, Some(link)),
                (Err(Refused::Program(source)), None) => return Err(LoadError::Program { program, source }),
                (Err(reason), Some(without)) => {
                    (ProbeMode::Missing { without, reason: reason.to_string() }, None)
                }
                (Err(Refused::Absent | Refused::Off | Refused::Field(_)), None) => {
                    return Err(LoadError::Absent(program));
                }
            };
            self.links.push(link);
            self.report.push(Probe { name: program, mode });
        }
        Ok(())
    }

    /// One line per probe.
    pub fn report(&self) -> &[Probe] {
        &self.report
    }

    /// Hands each record that is in the ring now to `sink`, at most `limit` of them; how many there were.
    pub fn poll(&mut self, limit: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < limit {
            let Some(record) = self.ring.next() else { break };
            sink(&record);
            taken += 1;
        }
        taken
    }

    /// Waits until the kernel asks for the ring to be read, or the timeout has passed.
    pub fn wait(&self, timeout: std::time::Duration) {
        ring::wait(self.ring.as_fd(), timeout);
    }

    /// Counters, summed over CPUs.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Runs of each attached program that the kernel skipped, where it tells (5.12 and later; of
    /// tracepoints, 6.7 and later).
    pub fn missed(&self) -> Vec<(&'static str, u64)> {
        ATTACHMENTS
            .iter()
            .filter_map(|attachment| {
                let program = self.ebpf.program(attachment.program)?;
                let fd = match program {
                    Program::TracePoint(program) => program.fd().ok()?,
                    Program::RawTracePoint(program) => program.fd().ok()?,
                    _ => return None,
                };
                Some((attachment.program, super::counters::recursion_misses(fd.as_fd())?))
            })
            .collect()
    }

    /// Passes on what the kernel side logged.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Detaches every probe: first the entry of system calls, then their exit, then the rest.
    pub fn detach(&mut self) {
        // For each perf event the kernel waits until no CPU can be in its program: all at once.
        thread::scope(|scope| {
            for (attachment, link) in ATTACHMENTS.iter().zip(self.links.drain(..)).rev() {
                match link {
                    Some(Link::Raw(link)) => drop(link),
                    Some(Link::Perf(link)) => {
                        scope.spawn(move || drop(link));
                    }
                    None => {}
                }
                debug!(program = attachment.program, "detached");
            }
        });
    }
}

/// What keeps a program attached.
enum Link {
    Raw(RawTracePointLink),
    Perf(TracePointLink),
}

fn object(options: &Options, offsets: &[(&'static str, u32)]) -> Result<Ebpf, LoadError> {
    let ask_first = u32::from(options.ask_first);
    let mut loader = EbpfLoader::new();
    for (global, offset) in offsets {
        loader.override_global(global, offset, true);
    }
    // Levels of the `log` crate: 4 is debug, 2 warnings and errors.
    let level: u8 = if tracing::enabled!(tracing::Level::DEBUG) { 4 } else { 2 };
    loader.override_global(aya_log::LEVEL, &level, false);
    loader.map_max_entries("RING", options.ring_bytes);
    loader.override_global("RING_BYTES", &options.ring_bytes, true);
    loader.override_global("ASK_FIRST", &ask_first, true);
    Ok(loader.load(OBJECT)?)
}

pub(super) fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<aya::maps::Map, LoadError> {
    ebpf.take_map(map).ok_or(LoadError::Absent(map))
}

/// Before 5.11 maps are charged against `RLIMIT_MEMLOCK`; later kernels do not need it raised.
fn raise_memlock() {
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    if !requirements::charges_memlock(&rustix::system::uname().release().to_string_lossy()) {
        return;
    }
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited) {
        warn!(%error, "cannot raise RLIMIT_MEMLOCK, which this kernel charges maps against");
    }
}

#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("not in the object")]
    Absent,
    #[error("turned off by capture.arrival")]
    Off,
    #[error("the tracepoint has no field {0} on this kernel")]
    Field(&'static str),
}

fn attach(ebpf: &mut Ebpf, program: &str, hook: Hook) -> Result<Link, Refused> {
    let program = ebpf.program_mut(program).ok_or(Refused::Absent)?;
    let link = match hook {
        Hook::Raw(name) => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            let id = program.attach(name)?;
            Link::Raw(program.take_link(id)?)
        }
        Hook::Perf(category, name) => {
            let program: &mut TracePoint = program.try_into()?;
            program.load()?;
            let id = program.attach(category, name)?;
            Link::Perf(program.take_link(id)?)
        }
    };
    Ok(link)
}

/// Loads the programs that are tail-called, and fills the tables that they are called from.
fn tail_calls(ebpf: &mut Ebpf) -> Result<[ProgramArray<MapData>; 2], LoadError> {
    let mut tables =
        [("EXIT", EXITS, program_array(ebpf, "EXIT")?), ("STEPS", STEPS, program_array(ebpf, "STEPS")?)];
    for (map, programs, array) in &mut tables {
        for &(index, program) in *programs {
            set(ebpf, array, map, index, program)?;
        }
    }
    Ok(tables.map(|(_, _, array)| array))
}

fn program_array(ebpf: &mut Ebpf, map: &'static str) -> Result<ProgramArray<MapData>, LoadError> {
    ProgramArray::try_from(take(ebpf, map)?).map_err(|source| LoadError::Map { map, source })
}

fn set(
    ebpf: &mut Ebpf,
    array: &mut ProgramArray<MapData>,
    map: &'static str,
    index: i64,
    program: &'static str,
) -> Result<(), LoadError> {
    let refused = |source| LoadError::Program { program, source };
    let loaded: &mut RawTracePoint =
        ebpf.program_mut(program).ok_or(LoadError::Absent(program))?.try_into().map_err(refused)?;
    if loaded.fd().is_err() {
        loaded.load().map_err(refused)?;
    }
    let fd = loaded.fd().map_err(refused)?;
    array.set(index as u32, fd, 0).map_err(|source| LoadError::Map { map, source })
}
