//! Why a request took as long as it did, or why it failed. Pure: no IO, no clock.
//!
//! In: a finished request, the others that its node remembers ([`Peers`]), and what happened around it ([`Happening`],
//! out of rows of events and logs by [`happenings`]).
//! Out: where its time went, part by part beside what is usual for its kind ([`Part`]), and a [`Verdict`] that names the
//! layer with its evidence. A layer is named only if it explains most of what was unusual; where several share it, or
//! nothing that was seen explains it, the verdict is `unknown`, and the parts are told all the same.
//!
//! Parts are the kernel's clocks and what the engine itself reports; none is invented. What is usual is the median of
//! the same part over trusted requests of the same model that were served by the same container, or else anywhere on the node.

mod diff;
mod happening;
mod judge;
mod parts;
mod peers;
mod words;

use serde::{Deserialize, Serialize};

pub use diff::{Beside, Difference, Measure, diff};
pub use happening::{Around, Happening, What, happenings};
pub use parts::{Part, Span};
pub use peers::Peers;

use crate::exchange::RequestRecord;

/// Who or what made a request slow, or made it fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Nothing was unusual.
    Usual,
    /// The client sent its request slowly, or asked for what cannot be served, or left.
    Client,
    /// It waited for a replica: in the backlog of a listener, in a socket that nobody read, at a gateway; or was refused.
    Replica,
    /// It waited in its engine's queue.
    EngineQueue,
    /// Its prompt was processed slowly, or was long.
    Prefill,
    /// Its tokens were generated slowly, or were many.
    Decode,
    /// The client did not read what was there.
    ClientReading,
    /// The GPU was throttled, failed, or served others.
    Gpu,
    /// The process began shortly before, or ended meanwhile.
    Restart,
    /// What was seen does not tell.
    Unknown,
}

impl Layer {
    /// All layers.
    pub const ALL: [Self; 10] = [
        Self::Usual,
        Self::Client,
        Self::Replica,
        Self::EngineQueue,
        Self::Prefill,
        Self::Decode,
        Self::ClientReading,
        Self::Gpu,
        Self::Restart,
        Self::Unknown,
    ];

    /// The word used in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Client => "client",
            Self::Replica => "replica",
            Self::EngineQueue => "engine_queue",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::ClientReading => "client_reading",
            Self::Gpu => "gpu",
            Self::Restart => "restart",
            Self::Unknown => "unknown",
        }
    }
}

/// How much a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// On few others to compare with, or on an estimate.
    Low,
    /// On a comparison with others of its kind.
    Medium,
    /// On clocks or reports that are about this request.
    High,
}

/// What is to be explained.
#[derive(Debug)]
pub struct Case<'a> {
    /// The request.
    pub record: &'a RequestRecord,
    /// Others.
    pub peers: &'a Peers<'a>,
    /// What happened, in the order of time.
    pub happenings: &'a [Happening],
}

/// The layer that explains most, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which.
    pub layer: Layer,
    /// How much it rests on; absent where nothing is claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// One sentence.
    pub summary: String,
    /// What it rests on, the strongest first.
    pub evidence: Vec<String>,
}

/// An explained request. It has the place of its record among all requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// See [`RequestRecord::id`].
    pub id: String,
    /// See [`RequestRecord::node`].
    pub node: String,
    /// See [`RequestRecord::namespace`].
    pub namespace: String,
    /// See [`RequestRecord::ended_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// Where the time went, in order.
    pub parts: Vec<Part>,
    /// Requests that were compared with.
    pub compared: usize,
    /// Others of the same container that were in flight, most at a time, as far as they are remembered.
    pub beside: usize,
    /// Others of other containers that were in flight on one of its GPUs, most at a time.
    #[serde(default)]
    pub beside_on_gpu: usize,
    /// What happened around it.
    pub happenings: Vec<Happening>,
    /// The request itself.
    pub record: RequestRecord,
}

/// Explains a request.
pub fn explain(case: &Case<'_>) -> Explanation {
    let record = case.record;
    let compared = case.peers.of(record);
    let parts = parts::compared(record, &compared);
    let verdict = judge::verdict(case, &parts, &compared);
    Explanation {
        id: record.id.clone(),
        node: record.node.clone(),
        namespace: record.namespace.clone(),
        ended_at: record.ended_at.clone(),
        verdict,
        parts,
        compared: compared.records.len(),
        beside: compared.beside,
        beside_on_gpu: compared.neighbours,
        happenings: case.happenings.to_vec(),
        record: record.clone(),
    }
}

#[cfg(test)]
mod tests;
