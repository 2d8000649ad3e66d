//! Masks what users wrote and models answered, and every credential, in records.
//!
//! In: records in order. Out: the same records, of the same length, in which text, secrets and whatever is
//! not understood are made of `x`, while framing, keys, names, counts and timings stay as they are, so that
//! everything that is measured can be replayed. It works record by record, without looking ahead, and fails
//! closed: what may stay is listed in `allow`, all else goes.

mod allow;
mod content;
mod direction;
mod head;
mod json;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use observer_ebpf::{Malformed, Record, State};

use direction::{Connection, Covered};

/// Connections that are followed at once; the payload of any beyond that is hidden whole.
const CONNECTIONS: usize = 65_536;

/// Masks records. One per recording, since it must see every record from the start.
#[derive(Debug, Default)]
pub struct Masker {
    connections: HashMap<u64, Connection>,
}

impl Masker {
    /// Before the first record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Masks one record in place. Only payloads change, and never in length.
    ///
    /// # Errors
    /// [`Malformed`] if it is not a record. It is left as it is and must not be kept.
    pub fn mask(&mut self, record: &mut [u8]) -> Result<(), Malformed> {
        match Record::parse(record)? {
            Record::Data(data, payload) => {
                let start = record.len() - payload.len();
                let payload = record.get_mut(start..).unwrap_or_default();
                let known =
                    self.connections.len() < CONNECTIONS || self.connections.contains_key(&data.connection);
                if known {
                    let connection = self.connections.entry(data.connection).or_default();
                    let covered = Covered { position: data.position, length: data.length.into() };
                    connection.mask(usize::from(data.direction), covered, payload);
                } else {
                    allow::hide(payload);
                }
            }
            // Should another descriptor still use the socket, it is joined anew.
            Record::Close(close) => drop(self.connections.remove(&close.connection)),
            Record::State(state) if state.new == State::CLOSE => {
                self.connections.remove(&state.connection);
            }
            Record::Ended(ended) => {
                if let Some(connection) = self.connections.get_mut(&ended.connection) {
                    connection.finish(usize::from(ended.direction));
                }
            }
            // They hold no payload.
            Record::Open(_)
            | Record::State(_)
            | Record::Listen(_)
            | Record::Exec(_)
            | Record::Exit(_)
            | Record::Oom(_)
            | Record::Clock(_) => {}
        }
        Ok(())
    }
}
