//! One volume: an index of rows of some time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, TantivyError};

use super::document::{Fields, TIME, tokenizers};

/// Bytes in which the writer gathers documents before it writes a segment.
const HEAP: usize = 24 << 20;

/// Most documents of a segment that is merged with others: a merge takes memory and time by its size.
const MERGED: usize = 2_000_000;

/// An index, open to be read.
pub(super) struct Volume {
    /// Counts volumes from the first on.
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    index: Index,
    reader: IndexReader,
    /// Times of the first and the last row.
    first: AtomicI64,
    last: AtomicI64,
    rows: AtomicU64,
    bytes: AtomicU64,
    /// Something in it cannot be read.
    pub(super) is_damaged: AtomicBool,
}

impl Volume {
    /// Makes an empty one in a folder of its own.
    pub(super) fn create(folder: &Path, sequence: u64, fields: &Fields) -> Result<Self, TantivyError> {
        let path = folder.join(format!("{sequence:08}"));
        fs::create_dir(&path)?;
        let settings =
            IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let index = Index::builder().schema(fields.schema.clone()).settings(settings).create_in_dir(&path)?;
        Self::of(index, path, sequence)
    }

    /// Opens one.
    pub(super) fn open(path: PathBuf, sequence: u64, fields: &Fields) -> Result<Self, TantivyError> {
        let index = Index::open_in_dir(&path)?;
        if index.schema() != fields.schema {
            return Err(TantivyError::SchemaError("another schema".to_owned()));
        }
        Self::of(index, path, sequence)
    }

    fn of(mut index: Index, path: PathBuf, sequence: u64) -> Result<Self, TantivyError> {
        index.set_tokenizers(tokenizers());
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let volume = Self {
            sequence,
            path,
            index,
            reader,
            first: AtomicI64::new(i64::MAX),
            last: AtomicI64::new(i64::MIN),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_damaged: AtomicBool::new(false),
        };
        volume.measure()?;
        Ok(volume)
    }

    /// A writer into it; there is one at a time.
    pub(super) fn writer(&self) -> Result<IndexWriter, TantivyError> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(HEAP)
            .build();
        let writer: IndexWriter = self.index.writer_with_options(options)?;
        let mut merges = LogMergePolicy::default();
        merges.set_max_docs_before_merge(MERGED);
        writer.set_merge_policy(Box::new(merges));
        Ok(writer)
    }

    /// Deletes what no commit names: what a writer that failed has left.
    pub(super) fn clean(&self) -> Result<(), TantivyError> {
        self.writer()?.garbage_collect_files().wait()?;
        Ok(())
    }

    /// What was committed last with the rows.
    pub(super) fn payload(&self) -> Option<String> {
        self.index.load_metas().ok()?.payload
    }

    /// Looks at what was committed.
    pub(super) fn measure(&self) -> Result<(), TantivyError> {
        self.reader.reload()?;
        let searcher = self.reader.searcher();
        self.rows.store(searcher.num_docs(), Ordering::Relaxed);
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for segment in searcher.segment_readers() {
            let times = segment.fast_fields().i64(TIME)?;
            (first, last) = (first.min(times.min_value()), last.max(times.max_value()));
        }
        self.first.store(first, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
        let sizes = fs::read_dir(&self.path)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        self.bytes.store(sizes.sum(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether all bytes are as they were written.
    pub(super) fn is_sound(&self) -> bool {
        self.index.validate_checksum().is_ok_and(|damaged| damaged.is_empty())
    }

    pub(super) fn searcher(&self) -> tantivy::Searcher {
        self.reader.searcher()
    }

    /// Times of its first and last row; the first is the later one if it has none.
    pub(super) fn times(&self) -> (i64, i64) {
        (self.first.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed))
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
