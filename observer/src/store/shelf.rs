//! All volumes of a store, and how many of them there may be.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::{FlockOperation, flock, statvfs};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::counts::Counts;
use super::document::Fields;
use super::volume::Volume;
use super::{Bounds, StoreError};

/// Of what is written here. Another one is set aside, not read.
const FORMAT: u32 = 1;

/// A store is made of about so many volumes: so much of it is deleted at a time.
pub(super) const VOLUMES: u32 = 8;

/// What is left free of a disk: a twentieth, and no more than this.
const FREE: u64 = 1 << 30;

/// Fewest bytes after which another volume begins.
const SMALLEST: u64 = 16 << 10;

const SET_ASIDE: &str = "set-aside-";

/// What the folder says of itself.
#[derive(Serialize, Deserialize)]
struct About {
    format: u32,
    /// Since when nothing is missing, nanoseconds since 1970.
    complete_since: i64,
}

pub(super) struct Shelf {
    pub(super) bounds: Bounds,
    pub(super) fields: Fields,
    pub(super) counts: Counts,
    pub(super) now: fn() -> i64,
    /// Oldest first; the last is written.
    volumes: RwLock<Vec<Arc<Volume>>>,
    pub(super) places: Mutex<Option<String>>,
    generation: AtomicU64,
    complete_since: AtomicI64,
    _lock: File,
}

impl Shelf {
    pub(super) fn open(bounds: Bounds, now: fn() -> i64) -> Result<Self, StoreError> {
        let folder = |cause| StoreError::Folder { path: bounds.path.clone(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(&bounds.path).map_err(folder)?;
        fs::set_permissions(&bounds.path, fs::Permissions::from_mode(0o700)).map_err(folder)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(bounds.path.join("lock"))
            .map_err(folder)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Taken(bounds.path)),
            Err(cause) => return Err(folder(cause.into())),
        }
        let counts = Counts::default();
        let about = about(&bounds.path, now(), &counts).map_err(folder)?;
        let fields = Fields::new();
        let mut volumes = Vec::new();
        for (sequence, path) in numbered(&bounds.path).map_err(folder)? {
            match Volume::open(path.clone(), sequence, &fields) {
                Ok(volume) => volumes.push(Arc::new(volume)),
                Err(error) => set_aside(&path, &error.to_string(), &counts),
            }
        }
        let places = volumes.iter().rev().find_map(|volume| volume.payload());
        let shelf = Self {
            complete_since: AtomicI64::new(about.complete_since),
            bounds,
            fields,
            counts,
            now,
            volumes: RwLock::new(volumes),
            places: Mutex::new(places),
            generation: AtomicU64::new(0),
            _lock: lock,
        };
        shelf.measure();
        Ok(shelf)
    }

    /// All volumes, oldest first.
    pub(super) fn volumes(&self) -> Vec<Arc<Volume>> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a volume, which is written from now on.
    pub(super) fn add(&self) -> Result<Arc<Volume>, tantivy::TantivyError> {
        // What was set aside keeps its number.
        let highest = numbered_or_aside(&self.bounds.path)?;
        let volume = Arc::new(Volume::create(&self.bounds.path, highest + 1, &self.fields)?);
        self.volumes.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&volume));
        Ok(volume)
    }

    fn remove(&self, sequence: u64) -> Option<Arc<Volume>> {
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        let at = volumes.iter().position(|volume| volume.sequence == sequence)?;
        Some(volumes.remove(at))
    }

    /// Deletes a volume. Whoever reads in it does so to the end.
    fn delete(&self, volume: &Volume, cause: &'static str) {
        if self.remove(volume.sequence).is_none() {
            return;
        }
        let (first, last) = volume.times();
        if first <= last {
            self.is_complete_since(last.saturating_add(1));
        }
        *self.counts.change().deleted.entry(cause).or_default() += 1;
        if let Err(error) = fs::remove_dir_all(&volume.path) {
            warn!(path = %volume.path.display(), %error, "a volume of the store cannot be deleted");
        }
    }

    /// Sets a damaged volume aside.
    pub(super) fn set_aside(&self, volume: &Volume, why: &str) {
        if self.remove(volume.sequence).is_some() {
            set_aside(&volume.path, why, &self.counts);
        }
    }

    /// Deletes what is too old and what is too much, oldest first, but never the volume that is written: whether that
    /// is in the way of a disk that is too full.
    pub(super) fn tidy(&self) -> bool {
        let age = i64::try_from(self.bounds.age.as_nanos()).unwrap_or(i64::MAX);
        let oldest = (self.now)().saturating_sub(age);
        loop {
            let volumes = self.volumes();
            let Some((_, full)) = volumes.split_last() else { return self.is_disk_full() };
            let bytes: u64 = volumes.iter().map(|volume| volume.bytes()).sum();
            let aside = aside(&self.bounds.path);
            let cause = match full.first() {
                Some(volume) if volume.times().1 < oldest => "age",
                _ if bytes + aside.iter().map(|(_, bytes)| bytes).sum::<u64>() > self.bounds.bytes => "bytes",
                _ if self.is_disk_full() => "disk_full",
                _ => return false,
            };
            // What cannot be read goes before what can.
            if cause != "age"
                && let Some((path, _)) = aside.first()
            {
                if fs::remove_dir_all(path).is_err() {
                    return self.is_disk_full();
                }
                continue;
            }
            match full.first() {
                Some(volume) => {
                    info!(cause, volume = volume.sequence, "the oldest volume of the store is deleted");
                    self.delete(volume, cause);
                }
                None => return cause == "disk_full" || bytes > self.bounds.bytes,
            }
        }
    }

    /// Whether too little of the disk is free: beside what has to stay free, a commit and a merge of the volume that is
    /// written may each take as much as it has.
    pub(super) fn is_disk_full(&self) -> bool {
        self.room().is_some_and(|(free, least)| free < least + 2 * self.part())
    }

    /// Bytes of the disk that are free, and how many have to stay so.
    fn room(&self) -> Option<(u64, u64)> {
        let disk = statvfs(&self.bounds.path).ok()?;
        Some((disk.f_bavail * disk.f_frsize, (disk.f_blocks * disk.f_frsize / 20).min(FREE)))
    }

    /// Bytes after which another volume begins: a part of what may be kept, and of what this disk has room for.
    pub(super) fn part(&self) -> u64 {
        let bytes: u64 = self.volumes().iter().map(|volume| volume.bytes()).sum();
        let room = self.room().map_or(u64::MAX, |(free, least)| bytes + free.saturating_sub(least));
        (self.bounds.bytes.min(room) / u64::from(VOLUMES)).max(SMALLEST)
    }

    /// Looks at what there is.
    pub(super) fn measure(&self) {
        let volumes = self.volumes();
        let mut counts = self.counts.change();
        counts.bytes = volumes.iter().map(|volume| volume.bytes()).sum();
        counts.rows = volumes.iter().map(|volume| volume.rows()).sum();
        counts.volumes = volumes.len() as u64;
        let oldest = volumes.iter().map(|volume| volume.times().0).min();
        counts.oldest = oldest.filter(|oldest| *oldest < i64::MAX).unwrap_or(0);
    }

    pub(super) fn complete_since(&self) -> i64 {
        self.complete_since.load(Ordering::Relaxed)
    }

    /// Something before this is missing from now on.
    pub(super) fn is_complete_since(&self, time: i64) {
        if self.complete_since.fetch_max(time, Ordering::Relaxed) < time {
            let told = write(&self.bounds.path, &About { format: FORMAT, complete_since: time });
            if let Err(error) = told {
                warn!(%error, "the store cannot say since when it is complete");
            }
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What was handed over and not committed is lost.
    pub(super) fn lose(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// What the folder says of itself; another format is set aside.
fn about(folder: &Path, now: i64, counts: &Counts) -> io::Result<About> {
    let known = match fs::read(folder.join("store.json")) {
        Ok(text) => serde_json::from_slice::<About>(&text).ok(),
        Err(error) if error.kind() == ErrorKind::NotFound && numbered(folder)?.is_empty() => None,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(about) = known.filter(|about| about.format == FORMAT) {
        return Ok(about);
    }
    for (_, path) in numbered(folder)? {
        set_aside(&path, "its format is not known", counts);
    }
    let about = About { format: FORMAT, complete_since: now };
    write(folder, &about)?;
    Ok(about)
}

/// In one piece or not at all.
fn write(folder: &Path, about: &About) -> io::Result<()> {
    let (path, new) = (folder.join("store.json"), folder.join("store.json.new"));
    fs::write(&new, serde_json::to_vec(about)?)?;
    File::open(&new)?.sync_all()?;
    fs::rename(new, path)
}

/// Folders of volumes, oldest first.
fn numbered(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(sequence) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((sequence, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The highest number that was ever given, as far as folders tell.
fn numbered_or_aside(folder: &Path) -> io::Result<u64> {
    let aside = aside(folder);
    let aside = aside.iter().filter_map(|(path, _)| {
        path.file_name()?.to_str()?.strip_prefix(SET_ASIDE)?.split('.').next()?.parse().ok()
    });
    Ok(numbered(folder)?.into_iter().map(|(sequence, _)| sequence).chain(aside).max().unwrap_or(0))
}

/// Folders that were set aside, and the bytes that they take.
fn aside(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let aside = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(SET_ASIDE));
    let mut aside: Vec<_> = aside.map(|entry| (entry.path(), bytes(&entry.path()))).collect();
    aside.sort();
    aside
}

fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

fn set_aside(path: &Path, why: &str, counts: &Counts) {
    counts.change().set_aside += 1;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut to = path.with_file_name(format!("{SET_ASIDE}{name}"));
    let mut again = 0;
    while to.exists() {
        again += 1;
        to = path.with_file_name(format!("{SET_ASIDE}{name}.{again}"));
    }
    match fs::rename(path, &to) {
        Ok(()) => {
            warn!(to = %to.display(), why, "a volume of the store cannot be read and is set aside; the rest is served");
        }
        Err(error) => {
            warn!(path = %path.display(), why, %error, "a volume of the store cannot be read, nor be set aside");
        }
    }
}
