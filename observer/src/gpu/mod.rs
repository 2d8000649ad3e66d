//! GPUs as their vendor's library tells of them, read each second on a thread of its own.
//!
//! In: a library of the driver's, found where drivers are installed. Out: a [`Board`] that scrapes look at and rounds of
//! readings for the thread that captures. A call into a driver may hang for ever: then what was read grows old, which
//! the board says, and nobody waits. Without a library there is nothing but that it is absent.
//!
//! Another vendor is another [`Vendor`].

mod board;
mod library;
mod nvml;
mod pod_resources;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::{info, warn};

pub use board::{Board, Calls, State, Sums, Told};
pub use nvml::Nvidia;
pub use pod_resources::{AllocationsTold, watch_allocations};

use crate::gpus::Owner;

/// Between two looks for a library that was not there, or did not work.
const RETRY: Duration = Duration::from_secs(5);

/// Why readings ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is no library, so no such GPU.
    Absent,
    /// The library or the driver does not work, or no longer.
    Failed(String),
    /// It was told to stop.
    Stopped,
}

/// Whose a process is, by its id on the host.
pub type Owners = dyn Fn(u32) -> Owner;

/// A vendor's GPUs.
pub trait Vendor {
    /// Reads its GPUs over and over onto the board, until that ends.
    fn run(&mut self, board: &Board, owners: &Owners, stop: &AtomicBool) -> Ended;
}

/// Reads until it is told to stop. Nobody waits for it: at worst it hangs in a call while the process ends.
pub fn run(vendor: &mut dyn Vendor, board: &Arc<Board>, owners: &Owners, stop: &AtomicBool) {
    let mut said = None;
    loop {
        let ended = vendor.run(board, owners, stop);
        if stop.load(Ordering::Relaxed) || ended == Ended::Stopped {
            return;
        }
        board.ended(&ended);
        if said.as_ref() != Some(&ended) {
            if let Ended::Failed(why) = &ended {
                warn!(why, "GPUs cannot be read; tried again every {RETRY:?}");
            } else {
                info!("no library of a GPU's driver here; looked for every {RETRY:?}");
            }
            said = Some(ended);
        }
        pause(RETRY, stop);
    }
}

/// Sleeps, unless it is told to stop.
fn pause(time: Duration, stop: &AtomicBool) {
    const STEP: Duration = Duration::from_millis(100);
    let mut left = time;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        let step = left.min(STEP);
        thread::sleep(step);
        left -= step;
    }
}
