use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use super::*;
use crate::logs::in_folder;
use crate::recent::Asked;
use crate::timeline::time_text;

const SECOND: i64 = 1_000_000_000;

/// Two containers that wrote a line each second from 0 to 2999, in files of 1000 lines, of which the first is compressed.
fn pods() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for pod in ["llama-0", "llama-1"] {
        let container = folder.path().join(format!("ml_{pod}_{pod}/server"));
        fs::create_dir_all(&container).unwrap();
        for (file, name) in [(0, "0.log.20260101-000000.gz"), (1, "0.log.20260102-000000"), (2, "0.log")] {
            let mut text = String::new();
            for second in file * 1000..(file + 1) * 1000 {
                let time = time_text(second * SECOND);
                writeln!(text, "{time} stdout F INFO line {second} of {pod} {}", "x".repeat(200)).unwrap();
            }
            let path = container.join(name);
            if file == 0 {
                let file = File::create(path).unwrap();
                let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                encoder.write_all(text.as_bytes()).unwrap();
                encoder.finish().unwrap();
            } else {
                fs::write(path, text).unwrap();
            }
        }
    }
    folder
}

fn ask(folder: &std::path::Path, text: &str) -> Searched {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    let query = Query::parse(Asked::Logs, &pairs.collect::<Vec<_>>()).unwrap();
    search(
        &in_folder(folder, "a", |_| Some(String::new())),
        &query,
        (3000 * SECOND, u64::MAX),
        &Redactor::new(true),
    )
}

fn seconds(found: &Searched) -> Vec<i64> {
    found.rows.iter().map(|row| row.time / SECOND).collect()
}

#[test]
fn windows_orders_and_conditions_over_all_files() {
    let folder = pods();
    let found = ask(folder.path(), "pod=llama-0&limit=3");
    assert_eq!((seconds(&found), found.logs), (vec![2999, 2998, 2997], 1));
    assert_eq!(seconds(&ask(folder.path(), "order=oldest&limit=3")), [0, 0, 1]);
    let moment = |second: i64| time_text(second * SECOND).to_string();
    for (from, to) in [(0, 5), (995, 1005), (1500, 1500), (1998, 2003), (2995, 2999)] {
        let window =
            format!("since={}&until={}&order=oldest&pod=llama-1&limit=100", moment(from), moment(to));
        assert_eq!(seconds(&ask(folder.path(), &window)), (from..=to).collect::<Vec<_>>(), "{window}");
    }
    assert_eq!(seconds(&ask(folder.path(), "phrase=line 7 of&pod=llama-*")), [7, 7]);
    assert_eq!(seconds(&ask(folder.path(), "regex=line 2\\d\\d\\d of llama-1&since=3s")), [2999, 2998, 2997]);
    let hits = ask(folder.path(), &format!("bucket=1000s&pod=llama-0&since={}", moment(0)));
    assert_eq!(hits.spans.into_values().collect::<Vec<_>>(), [1000, 1000, 1000]);
    assert_eq!(ask(folder.path(), "pod=gone").logs, 0);
}

#[test]
fn pages_have_every_row_once_and_ids_are_those_of_the_reader() {
    let folder = pods();
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let found = ask(folder.path(), &format!("limit=700&since=1500s{cursor}"));
        all.extend(found.rows);
        let Some(next) = found.next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all.len(), 3000);
    let mut tail = crate::logs::Tail::new(crate::logs::Places::default(), true);
    let (sources, mut told) = (in_folder(folder.path(), "a", |_| Some(String::new())), Vec::new());
    loop {
        let mut rows = Vec::new();
        let is_more = tail.turn(&sources, 0, &mut rows);
        told.append(&mut rows);
        if !is_more {
            break;
        }
    }
    tail.finish(&mut told);
    let ids = |rows: &[Row]| -> std::collections::BTreeSet<String> {
        rows.iter().filter(|row| row.time >= 1500 * SECOND).map(|row| row.id.clone()).collect()
    };
    assert_eq!(ids(&all), ids(&told));
}
