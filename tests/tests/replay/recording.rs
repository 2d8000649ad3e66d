//! A recording replays as what was recorded.

use std::os::unix::fs::PermissionsExt;

use observer::{
    exchange::RequestRecord,
    pipeline::STALLS_AFTER,
    recording::{
        file::{Content, ReadError, Reader, Writer},
        mask::Masker,
    },
    replay::replay,
};
use observer_tests::script::{Owned, encode, script};
use proptest::prelude::*;

use crate::run;

fn write(records: &[Owned], masked: bool) -> Vec<u8> {
    let content = if masked { Content::Masked } else { Content::Included };
    let mut writer = Writer::new(Vec::new(), content).expect("memory");
    let mut masker = Masker::new();
    for record in records {
        let mut bytes = encode(&record.record());
        if masked {
            masker.mask(&mut bytes).expect("a record");
        }
        writer.write(&bytes).expect("a record");
    }
    writer.finish().expect("written")
}

/// What a recording's file replays as, and the error that ends it.
fn replayed(bytes: &[u8]) -> (Vec<RequestRecord>, Option<ReadError>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("a file");
    let mut records = Vec::new();
    let outcome = replay(file.path(), STALLS_AFTER, |record| records.push(record));
    (records, outcome.err())
}

/// The whole records of a recording, and the error that ends them.
fn whole(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<ReadError>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut records = Vec::new();
    loop {
        match reader.read() {
            Ok(Some(record)) => records.push(encode(&record)),
            Ok(None) => return (records, None),
            Err(error) => return (records, Some(error)),
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(600))]

    #[test]
    fn a_recording_with_content_replays_as_it_was(script in script()) {
        let (records, error) = replayed(&write(&script.records, false));
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(records, run(&script.records).records);
    }

    /// Everything is compared, field by field: whatever a record holds is on the list of what a mask keeps.
    #[test]
    fn a_masked_recording_replays_as_it_was(script in script()) {
        let bytes = write(&script.records, true);
        prop_assert!(memchr(&bytes, b"Say ").is_none(), "a prompt is readable");
        let (records, error) = replayed(&bytes);
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(records, run(&script.records).records);
    }

    #[test]
    fn a_truncated_recording_gives_what_came_before(script in script(), cut in any::<prop::sample::Index>()) {
        let bytes = write(&script.records, false);
        let cut = cut.index(bytes.len());
        let (records, error) = whole(&bytes[..cut]);
        let all: Vec<Vec<u8>> = script.records.iter().map(|record| encode(&record.record())).collect();
        let mut end = 24;
        let fit = all.iter().take_while(|record| { end += record.len(); end <= cut }).count();
        prop_assert_eq!(&records, &all[..fit]);
        let boundary = 24 + all[..fit].iter().map(Vec::len).sum::<usize>();
        match error {
            _ if cut < 24 => prop_assert!(matches!(error, Some(ReadError::NotARecording)), "{error:?}"),
            // Between two records nothing is missing that could be noticed.
            None => prop_assert_eq!(cut, boundary),
            Some(ReadError::Truncated { offset }) => {
                prop_assert!(cut > boundary);
                prop_assert_eq!(offset, boundary as u64);
            }
            Some(error) => prop_assert!(false, "{error}"),
        }
        if cut > 24 {
            let (records, error) = replayed(&bytes[..cut]);
            prop_assert_eq!(error.is_some(), cut > boundary);
            prop_assert_eq!(records, run(&script.records[..fit]).records);
        }
    }
}

fn memchr(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window == word)
}

#[test]
fn only_the_owner_reads_a_recording() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.rec");
    let writer = Writer::create(&path, Content::Masked, false).expect("a file");
    writer.finish().expect("written");
    let mode = |path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert!(Writer::create(&path, Content::Masked, false).is_err(), "a recording is not replaced unasked");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a file");
    Writer::create(&path, Content::Masked, true).expect("a file").finish().expect("a file");
    assert_eq!(mode(&path), 0o600, "the mode of a file that is replaced is narrowed");
}
