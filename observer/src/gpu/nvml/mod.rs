//! NVIDIA's GPUs through NVML, by nvml-wrapper, which resolves each function when the library is opened and fails only
//! where a missing one is called: so drivers of any age are asked for what they have.

mod calls;
mod device;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nvml_wrapper::{
    Device, EventSet, GpmSample, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
};

use super::{Board, Calls, Ended, Owners, Vendor, library, pause};
use crate::gpus::{self, OTHER_XID, Reading, Round};
use calls::{Asking, is_gone, word};

/// Devices that are read; a machine has 16 at most.
const DEVICES: u32 = 64;

/// XID errors that are taken from a device in one round.
const XIDS: usize = 64;

/// NVIDIA's GPUs.
pub struct Nvidia {
    /// The library, if it is not to be looked for.
    pub library: Option<PathBuf>,
    /// Between two rounds.
    pub interval: Duration,
    /// The wall clock in nanoseconds, which the times of samples are of.
    pub wall: fn() -> u64,
}

impl Vendor for Nvidia {
    fn run(&mut self, board: &Board, owners: &Owners, stop: &AtomicBool) -> Ended {
        let Some(path) = library::find(self.library.as_deref()) else { return Ended::Absent };
        match Nvml::builder().lib_path(path.as_os_str()).init() {
            Ok(nvml) => Session::new(&nvml, self).run(board, owners, stop),
            Err(error) => Ended::Failed(format!("{}: {error}", path.display())),
        }
    }
}

/// Devices as long as the driver stays loaded.
struct Session<'nvml> {
    nvml: &'nvml Nvml,
    interval: Duration,
    wall: fn() -> u64,
    driver: String,
    count: u32,
    devices: Vec<Known<'nvml>>,
    calls: Calls,
    mistimed: u64,
}

/// A device, and what was read of it so far.
struct Known<'nvml> {
    device: Device<'nvml>,
    named: Arc<gpus::Device>,
    unsupported: BTreeSet<&'static str>,
    events: Option<EventSet<'nvml>>,
    lost: bool,
    /// Times of the last samples, by what they are of: microseconds of the wall clock.
    seen: [u64; 4],
    /// Shares of time of processes, and when they were told: monotonic nanoseconds.
    busy: (u64, Vec<(u32, f64)>),
    /// The last moments of its counters: of the device, and of its MIG instances by id.
    gpm: Vec<(Option<u32>, GpmSample<'nvml>)>,
}

impl<'nvml> Session<'nvml> {
    fn new(nvml: &'nvml Nvml, from: &Nvidia) -> Self {
        let driver = nvml.sys_driver_version().unwrap_or_default();
        let Nvidia { interval, wall, .. } = *from;
        Self {
            nvml,
            interval,
            wall,
            driver,
            count: 0,
            devices: Vec::new(),
            calls: Calls::default(),
            mistimed: 0,
        }
    }

    fn run(mut self, board: &Board, owners: &Owners, stop: &AtomicBool) -> Ended {
        while !stop.load(Ordering::Relaxed) {
            let began = board.now();
            if let Err(error) = self.find_devices() {
                return Ended::Failed(error.to_string());
            }
            let mut readings = Vec::new();
            for at in 0..self.devices.len() {
                match self.read(at, board, owners) {
                    Some(reading) => readings.push(reading),
                    None => return Ended::Failed("the driver was unloaded".to_owned()),
                }
            }
            let time = board.now();
            let mistimed = std::mem::take(&mut self.mistimed);
            board.publish(Round { time, readings }, began, self.calls.clone(), mistimed);
            pause(self.interval.saturating_sub(Duration::from_nanos(time - began)), stop);
        }
        Ended::Stopped
    }

    /// Finds the devices, anew if there are more or fewer than before, and those that were lost.
    fn find_devices(&mut self) -> Result<(), NvmlError> {
        let count = self.nvml.device_count()?.min(DEVICES);
        if std::mem::replace(&mut self.count, count) != count {
            self.devices.clear();
            self.calls.unsupported.clear();
        }
        for index in 0..count {
            let known = self.devices.iter().position(|known| known.named.index == index);
            if known.is_some_and(|at| !self.devices[at].lost) {
                continue;
            }
            match self.known(index) {
                Ok(found) => match known {
                    Some(at) => self.devices[at] = found,
                    None => self.devices.push(found),
                },
                Err(error) if is_gone(&error) => return Err(error),
                // It is told of as lost, if it ever was there.
                Err(error) => {
                    *self.calls.failures.entry(("nvmlDeviceGetHandleByIndex", word(&error))).or_default() +=
                        1;
                }
            }
        }
        Ok(())
    }

    fn known(&self, index: u32) -> Result<Known<'nvml>, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let named = gpus::Device {
            uuid: device.uuid()?,
            index,
            minor: device.minor_number().ok(),
            model: device.name().unwrap_or_default(),
            bus: device.pci_info().ok().map(|info| info.bus_id),
            driver: self.driver.clone(),
        };
        // On an error the set is gone, so each device has its own.
        let events = self.nvml.create_event_set().ok();
        let events = events.and_then(|set| device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok());
        Ok(Known {
            device,
            named: Arc::new(named),
            unsupported: BTreeSet::new(),
            events,
            lost: false,
            seen: [0; 4],
            busy: (0, Vec::new()),
            gpm: Vec::new(),
        })
    }

    /// What one device tells; none if the driver is gone.
    fn read(&mut self, at: usize, board: &Board, owners: &Owners) -> Option<Reading> {
        let (known, nvml) = (&mut self.devices[at], self.nvml);
        let mut reading = Reading { device: Arc::clone(&known.named), ..Reading::default() };
        if known.lost {
            return Some(Reading { lost: true, ..reading });
        }
        let named = Arc::clone(&known.named);
        let mut unsupported = std::mem::take(&mut known.unsupported);
        let mut asking = Asking {
            uuid: &named.uuid,
            unsupported: &mut unsupported,
            calls: &mut self.calls,
            lost: false,
            gone: false,
        };
        for _ in 0..XIDS {
            let Some(events) = &known.events else { break };
            let Some(event) = asking.ask("nvmlEventSetWait", || events.wait(0)) else { break };
            match event.event_data {
                Some(XidError::Value(xid)) => reading.xids.push(xid),
                Some(XidError::Unknown) => reading.xids.push(OTHER_XID),
                None => {}
            }
        }
        let now = (board.now(), (self.wall)());
        self.mistimed += device::read(nvml, known, &mut asking, now, &mut reading, owners);
        let (lost, gone) = (asking.lost, asking.gone);
        known.unsupported = unsupported;
        if gone {
            return None;
        }
        if lost {
            // What it said of errors counts; its last values would look like present ones.
            known.lost = true;
            let Reading { device, xids, .. } = reading;
            return Some(Reading { device, lost, xids, ..Reading::default() });
        }
        Some(reading)
    }
}
