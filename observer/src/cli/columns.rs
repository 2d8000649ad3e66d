//! Aligned cells, each within its width; and numbers that fit.

/// Not known.
pub(super) const ABSENT: &str = "-";

/// How a cell stands in its column.
#[derive(Clone, Copy)]
pub(super) enum Align {
    /// Its beginning is shown.
    Left,
    /// Its end is shown: names of pods and models begin alike.
    Tail,
    /// A number.
    Right,
}

/// Title, width and alignment.
#[derive(Clone, Copy)]
pub(super) struct Column(pub(super) &'static str, pub(super) usize, pub(super) Align);

/// The line with the titles.
pub(super) fn titles(columns: &[Column]) -> String {
    let titles: Vec<String> = columns.iter().map(|Column(title, ..)| (*title).to_owned()).collect();
    line(columns, &titles, None)
}

/// One line. `coloured` is a cell by its place, and what stands before and after it.
pub(super) fn line(columns: &[Column], cells: &[String], coloured: Option<(usize, &str, &str)>) -> String {
    let mut line = String::new();
    for (at, (cell, Column(_, width, align))) in cells.iter().zip(columns).enumerate() {
        let cell = fit(cell, *width, *align);
        let padding = width - cell.chars().count();
        if at > 0 {
            line.push(' ');
        }
        if matches!(align, Align::Right) {
            line.extend(std::iter::repeat_n(' ', padding));
        }
        match coloured {
            Some((place, before, after)) if at == place => line.extend([before, &cell, after]),
            _ => line.push_str(&cell),
        }
        if !matches!(align, Align::Right) && at + 1 < columns.len() {
            line.extend(std::iter::repeat_n(' ', padding));
        }
    }
    line
}

/// A cell cut to its width, harmless to a terminal.
fn fit(cell: &str, width: usize, align: Align) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let length = cell.chars().take(width + 1).count();
    if length <= width {
        return cell.chars().map(shown).collect();
    }
    match align {
        Align::Tail => {
            let mut end: Vec<char> = cell.chars().rev().take(width - 1).map(shown).collect();
            end.push('…');
            end.into_iter().rev().collect()
        }
        Align::Left | Align::Right => cell.chars().take(width - 1).map(shown).chain(['…']).collect(),
    }
}

/// At most seven characters, with three or four digits that matter.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => ABSENT.to_owned(),
        s if s < 0.000_999_5 => format!("{:.0}µs", s * 1e6),
        s if s < 0.999_95 => format!("{:.1}ms", s * 1e3),
        s if s < 99.9995 => format!("{s:.3}s"),
        s if s < 9999.95 => format!("{s:.1}s"),
        s => format!("{:.0}h", s / 3600.0),
    }
}

/// At most six characters.
pub(super) fn count(count: u64) -> String {
    match count {
        0..=999_999 => count.to_string(),
        1_000_000..=999_999_999 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fit_and_do_not_jump_at_their_bounds() {
        for (seconds, text) in [
            (0.0, "0µs"),
            (0.000_999_4, "999µs"),
            (0.000_999_6, "1.0ms"),
            (0.999_94, "999.9ms"),
            (0.999_96, "1.000s"),
            (99.9994, "99.999s"),
            (99.9996, "100.0s"),
            (9999.94, "9999.9s"),
            (36_000.0, "10h"),
            (-1.0, "-"),
        ] {
            assert_eq!(duration(seconds), text);
            assert!(duration(seconds).chars().count() <= 7);
        }
    }
}
