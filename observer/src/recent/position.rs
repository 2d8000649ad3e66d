//! One order for the requests of all nodes.

use std::fmt;
use std::str::FromStr;

use crate::exchange::RequestRecord;
use crate::timeline::{Row, nanos};

/// The place of a row: by its time, which is a request's end, and where that does not decide by node and id, which together name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When it ended, nanoseconds since 1970.
    pub time: i64,
    /// Its node.
    pub node: String,
    /// Its id on that node.
    pub id: String,
}

impl Position {
    /// Of a record that says when it ended.
    pub fn of(record: &RequestRecord) -> Option<Self> {
        Self::named(record.ended_at.as_deref()?, record.node.clone(), record.id.clone())
    }

    /// Of a row.
    pub fn of_row(row: &Row) -> Self {
        Self { time: row.time, node: row.node.clone(), id: row.id.clone() }
    }

    /// Of a request of this node that has this id, if the time is one.
    pub fn named(ended_at: &str, node: String, id: String) -> Option<Self> {
        Some(Self { time: nanos(ended_at.parse().ok()?), node, id })
    }
}

/// As a cursor: time, node and id.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.time, self.node, self.id)
    }
}

/// The text is no cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct NoCursor;

impl FromStr for Position {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (time, rest) = text.split_once(',').ok_or(NoCursor)?;
        // The id is hexadecimal; whatever a node calls itself is left of the last comma.
        let (node, id) = rest.rsplit_once(',').ok_or(NoCursor)?;
        let time = time.parse().map_err(|_no_number| NoCursor)?;
        Ok(Self { time, node: node.to_owned(), id: id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back() {
        let record = RequestRecord {
            node: "node-a,b".to_owned(),
            id: "1f-0".to_owned(),
            ended_at: Some("2026-03-01T12:00:00.000000001Z".to_owned()),
            ..RequestRecord::default()
        };
        let position = Position::of(&record).unwrap();
        assert_eq!(position.time % 1_000_000_000, 1);
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "1", "1,a", "x,a,b"] {
            assert_eq!(text.parse::<Position>(), Err(NoCursor), "{text}");
        }
        assert_eq!(Position::of(&RequestRecord::default()), None);
    }
}
