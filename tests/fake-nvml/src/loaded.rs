//! The scenario of the library as it is loaded, and what was called.

#![expect(unsafe_code, reason = "where a loaded library lies is asked of the loader")]

use std::{
    collections::BTreeSet,
    ffi::{CStr, OsStr, c_void},
    fs,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nvml_wrapper_sys::bindings::{
    nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as LOST, nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID,
    nvmlReturn_enum_NVML_ERROR_LIBRARY_NOT_FOUND as NO_SCENARIO,
};

use crate::scenario::{Device, Instance, Scenario};

struct State {
    scenario: Option<Arc<Scenario>>,
    modified: Option<SystemTime>,
    called: BTreeSet<&'static str>,
}

static STATE: Mutex<State> = Mutex::new(State { scenario: None, modified: None, called: BTreeSet::new() });

/// What a function returns in place of success.
pub(crate) type Failure = u32;

/// Microseconds since 1970, as NVML gives its samples.
#[expect(clippy::disallowed_methods, reason = "the clock of fake devices")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// The library's path with this appended.
fn beside(suffix: &str) -> Option<PathBuf> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let own = (now as *const ()).cast::<c_void>();
    // SAFETY: `info` is a place for what is returned.
    if unsafe { libc::dladdr(own, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: the loader filled it in; the name lives as long as the library.
    let name = unsafe { CStr::from_ptr(info.assume_init().dli_fname) };
    let mut path = OsStr::from_bytes(name.to_bytes()).to_owned();
    path.push(suffix);
    Some(path.into())
}

/// What each function does first: notes that it was called, and hangs or fails if the scenario wants it.
pub(crate) fn enter(function: &'static str) -> Result<Arc<Scenario>, Failure> {
    let scenario = {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        if state.called.insert(function)
            && let Some(path) = beside(".calls")
        {
            let names: Vec<&str> = state.called.iter().copied().collect();
            let _unwritable = fs::write(path, names.join("\n"));
        }
        let path = beside(".json").ok_or(NO_SCENARIO)?;
        let modified = fs::metadata(&path).and_then(|file| file.modified()).ok();
        if state.scenario.is_none() || modified != state.modified {
            let text = fs::read_to_string(&path).ok();
            // One that is just being written is not taken over.
            if let Some(read) = text.and_then(|text| serde_json::from_str(&text).ok()) {
                (state.scenario, state.modified) = (Some(Arc::new(read)), modified);
            }
        }
        state.scenario.clone().ok_or(NO_SCENARIO)?
    };
    if let Some(seconds) = scenario.hang.get(function) {
        std::thread::sleep(Duration::from_secs_f64(*seconds));
    }
    scenario.failure(function).map_or(Ok(scenario), Err)
}

/// A handle's device, and its MIG instance if the handle is of one.
pub(crate) struct Target {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) device: usize,
    pub(crate) instance: Option<usize>,
    /// Seconds after the origin.
    pub(crate) at: f64,
}

/// Handles of MIG instances are these apart from those of devices.
const INSTANCES: usize = 1000;

/// The handle of a device, or of one of its instances.
pub(crate) fn handle(device: usize, instance: Option<usize>) -> usize {
    instance.map_or(device + 1, |instance| (device + 1) * INSTANCES + instance)
}

impl Target {
    pub(crate) fn device(&self) -> &Device {
        &self.scenario.devices[self.device]
    }

    pub(crate) fn instance(&self) -> Option<&Instance> {
        self.device().mig.get(self.instance?)
    }
}

/// As [`enter`], for a function of a device.
pub(crate) fn enter_device(function: &'static str, handle: usize) -> Result<Target, Failure> {
    let scenario = enter(function)?;
    let (device, instance) = if handle < INSTANCES {
        (handle.wrapping_sub(1), None)
    } else {
        (handle / INSTANCES - 1, Some(handle % INSTANCES))
    };
    let known = scenario.devices.get(device).ok_or(INVALID)?;
    let at = scenario.at(now());
    if known.lost_at.is_some_and(|lost| lost <= at) {
        return Err(LOST);
    }
    if let Some(code) = known.fail.get(function).or_else(|| known.fail.get("*")) {
        return Err(*code);
    }
    Ok(Target { scenario, device, instance, at })
}
