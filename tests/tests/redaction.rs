//! How much of what was planted the redaction finds in logs of real engines, and how much it takes besides.
//!
//! `tests/redaction/*.log` is what llama.cpp, fastllm and LiteLLM wrote at their most verbose of the requests of
//! `tests/redaction/collect.py`; `planted.json` says what was in them. Files called `*.written.log` were written by hand from the
//! formats in the sources of engines that do not run here, and are counted apart.

use std::{
    fs,
    path::{Path, PathBuf},
};

use observer::{
    lines::Origin,
    logs::{Places, Tail, Wanted},
    timeline::Row,
};
use observer_tests::workload::folder;
use serde_json::Value;

/// What was planted, in every spelling in which it is looked for.
struct Planted {
    marks: Vec<String>,
}

impl Planted {
    fn read() -> Self {
        let text = fs::read_to_string(folder("redaction").join("planted.json")).expect("what was planted");
        let planted: Value = serde_json::from_str(&text).expect("JSON");
        let mut marks = Vec::new();
        let texts = |kind: &str| {
            let all = planted[kind].as_array().expect("a list").iter();
            all.map(|text| text.as_str().expect("text").to_owned()).collect::<Vec<_>>()
        };
        marks.extend(["prompts", "keys"].into_iter().flat_map(texts).flat_map(|text| spellings(&text)));
        // Words of answers are anybody's.
        for answer in texts("answers") {
            marks.push(Value::from(answer.as_str()).to_string().trim_matches('"').to_owned());
            marks.push(answer);
        }
        marks.sort();
        marks.dedup();
        Self { marks }
    }

    /// How often something planted is in a text.
    fn count(&self, text: &str) -> usize {
        self.marks.iter().map(|mark| text.matches(mark.as_str()).count()).sum()
    }
}

/// Words of a text by which it is known, whatever was escaped around them; and those that themselves are escaped.
fn spellings(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for word in text
        .split([' ', '\n', '"', '{', '}', ',', '\''])
        .filter(|word| word.chars().count() > 6 || !word.is_ascii())
    {
        all.push(word.to_owned());
        let escaped: String = word
            .encode_utf16()
            .map(|unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => format!("\\u{unit:04x}"),
            })
            .collect();
        all.push(escaped);
    }
    all
}

/// What an engine wrote, in rows as they would be kept.
fn rows(path: &Path, redacts: bool) -> Vec<Row> {
    let files = vec![(path.to_owned(), Origin::default())];
    let sources = Wanted { files, ..Wanted::default() }.sources(Path::new("/nonexistent"), "a");
    let (mut tail, mut rows) = (Tail::new(Places::default(), redacts), Vec::new());
    let mut now = 0;
    while tail.turn(&sources, now, &mut rows) || now < 20 {
        now += 1;
    }
    tail.finish(&mut rows);
    rows
}

#[derive(Default)]
struct Figures {
    rows: usize,
    planted: usize,
    missed: usize,
    clean: usize,
    touched: usize,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.planted += other.planted;
        self.missed += other.missed;
        self.clean += other.clean;
        self.touched += other.touched;
    }

    fn print(&self, name: &str) {
        println!(
            "{name}: {} rows; {} places planted, {} found ({:.2} %); {} rows without any, {} of them touched ({:.2} %)",
            self.rows,
            self.planted,
            self.planted - self.missed,
            100.0 * (self.planted - self.missed) as f64 / self.planted.max(1) as f64,
            self.clean,
            self.touched,
            100.0 * self.touched as f64 / self.clean.max(1) as f64,
        );
    }
}

fn figures(path: &Path, planted: &Planted) -> Figures {
    let (raw, kept) = (rows(path, false), rows(path, true));
    assert_eq!(raw.len(), kept.len());
    let mut figures = Figures { rows: raw.len(), ..Figures::default() };
    for (raw, kept) in raw.iter().zip(&kept) {
        let (there, missed) = (planted.count(&raw.message), planted.count(&kept.message));
        figures.planted += there;
        figures.missed += missed;
        if there == 0 {
            figures.clean += 1;
            figures.touched += usize::from(kept.redacted > 0);
        }
        if std::env::var_os("OBSERVER_SHOW").is_some() && (missed > 0 || (there == 0 && kept.redacted > 0)) {
            let short: String = kept.message.chars().take(600).collect();
            println!("{} {missed} missed, {} taken: {short}", path.display(), kept.redacted);
        }
    }
    figures
}

fn corpus(is_written: bool) -> Vec<PathBuf> {
    let files =
        fs::read_dir(folder("redaction")).expect("the corpus").map(|entry| entry.expect("a file").path());
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut files: Vec<PathBuf> = files
        .filter(|path| {
            name(path).strip_suffix(".log").is_some_and(|name| name.ends_with(".written") == is_written)
        })
        .collect();
    files.sort();
    files
}

fn all(is_written: bool) -> Figures {
    let planted = Planted::read();
    let mut all = Figures::default();
    for path in corpus(is_written) {
        let figures = figures(&path, &planted);
        figures.print(&path.file_stem().unwrap_or_default().to_string_lossy());
        all.add(&figures);
    }
    all.print(if is_written { "written by hand" } else { "real engines" });
    all
}

/// A new rule may find more; a change that finds less, or takes more besides, shows here.
#[test]
fn what_real_engines_print_is_found() {
    let all = all(false);
    assert!(corpus(false).len() >= 3 && all.planted >= 100, "a corpus");
    assert_eq!(all.missed, 0, "OBSERVER_SHOW=1 shows what is missed");
    // Nearly all of them hold single tokens of an answer, which nobody planted.
    assert!(all.touched * 20 <= all.clean, "at most one row in twenty is touched without anything planted");
}

#[test]
fn what_engines_print_by_their_sources_is_found() {
    let all = all(true);
    assert!(corpus(true).len() >= 2 && all.planted >= 10, "a corpus");
    assert_eq!((all.missed, all.touched), (0, 0), "OBSERVER_SHOW=1 shows them");
}
