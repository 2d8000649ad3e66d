//! What is written can be read; what is damaged says so, after the records that are whole.

use super::*;
use crate::recording::fixture;

fn data(payload: &[u8]) -> Vec<u8> {
    fixture::data(9, 0, 0, payload.len() as u32, payload)
}

fn recording(records: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), Content::Masked).unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    assert_eq!(writer.records(), records.len() as u64);
    writer.finish().unwrap()
}

/// The payloads that can be read, and the error that ends them.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<ReadError>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut payloads = Vec::new();
    loop {
        match reader.read() {
            Ok(Some(Record::Data(_, payload))) => payloads.push(payload.to_vec()),
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) => return (payloads, None),
            Err(error) => {
                assert!(matches!(reader.read(), Ok(None)), "nothing is read after an error");
                return (payloads, Some(error));
            }
        }
    }
}

#[test]
fn what_was_written_is_read() {
    let bytes = recording(&[data(b"one"), data(b""), data(&[7; 16_000])]);
    let (payloads, error) = read(&bytes);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(payloads, [b"one".to_vec(), Vec::new(), vec![7; 16_000]]);
}

#[test]
fn a_truncated_tail_keeps_the_records_before_it() {
    let bytes = recording(&[data(b"one"), data(b"two")]);
    for cut in 1..67 {
        let (payloads, error) = read(&bytes[..bytes.len() - cut]);
        assert_eq!(payloads, [b"one".to_vec()], "{cut} bytes missing");
        assert!(matches!(error, Some(ReadError::Truncated { offset: 91 })), "{error:?}");
    }
    assert_eq!(read(&bytes[..91]).0.len(), 1);
    assert!(read(&bytes[..91]).1.is_none());
}

#[test]
fn damage_is_told_with_its_place() {
    let mut bytes = recording(&[data(b"one"), data(b"two")]);
    bytes[91] = 99;
    let (payloads, error) = read(&bytes);
    assert_eq!(payloads.len(), 1);
    assert!(
        matches!(error, Some(ReadError::Malformed { offset: 91, reason: Malformed::Kind(99) })),
        "{error:?}"
    );
    // A length that would take all memory.
    bytes[95..99].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(matches!(read(&bytes).1, Some(ReadError::Malformed { offset: 91, reason: Malformed::Length })));
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(read(b"").1, Some(ReadError::NotARecording)));
    assert!(matches!(read(b"OBSREC01").1, Some(ReadError::NotARecording)));
    assert!(matches!(read(&[b'x'; 100]).1, Some(ReadError::NotARecording)));
    let mut newer = recording(&[]);
    newer[8..12].copy_from_slice(&(ABI_VERSION + 1).to_ne_bytes());
    let error = read(&newer).1.unwrap();
    assert!(matches!(error, ReadError::Abi { found } if found == ABI_VERSION + 1));
    assert!(error.to_string().contains("replay it with"));
    let mut foreign = recording(&[]);
    foreign[12..16].reverse();
    assert!(matches!(read(&foreign).1, Some(ReadError::ByteOrder)));
}

#[test]
fn only_records_are_written() {
    let mut writer = Writer::new(Vec::new(), Content::Included).unwrap();
    assert!(matches!(writer.write(b"text"), Err(WriteError::Malformed(Malformed::Short))));
    assert!(matches!(writer.write(&data(&vec![0; RECORD])), Err(WriteError::Malformed(Malformed::Length))));
    let bytes = writer.finish().unwrap();
    assert_eq!(Reader::new(bytes.as_slice()).unwrap().content(), Content::Included);
}

#[test]
fn files_are_private_and_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rec");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut writer = Writer::create(&path, Content::Masked, false).unwrap();
    writer.write(&data(b"one")).unwrap();
    writer.finish().unwrap();
    assert_eq!(mode(&path), 0o600);
    let error = Writer::create(&path, Content::Masked, false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    let mut reader = Reader::open(&path).unwrap();
    assert!(matches!(reader.read(), Ok(Some(Record::Data(_, b"one")))));
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    Writer::create(&path, Content::Masked, true).unwrap().finish().unwrap();
    assert_eq!(mode(&path), 0o600);
    assert!(matches!(Reader::open(&path).unwrap().read(), Ok(None)));
}
