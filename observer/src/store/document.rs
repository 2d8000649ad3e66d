//! A row as a document of the index, and a question as a query of it.
//!
//! The index only narrows: whether a row answers a question is decided by the row itself, so that a store, a memory and a
//! file on disk answer alike.

use std::ops::Bound;

use tantivy::query::{AllQuery, BooleanQuery, Occur, PhraseQuery, Query as Narrowing, RangeQuery, TermQuery};
use tantivy::schema::{
    FAST, Field, IndexRecordOption, NumericOptions, STORED, Schema, TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::{LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer, TokenizerManager};
use tantivy::{TantivyDocument, Term};

use crate::recent::Query;
use crate::timeline::Row;

/// Name of the tokenizer.
const WORDS: &str = "words";

/// Longest word in the index, in bytes: longer ones are found by reading.
const LONGEST_WORD: usize = 64;

/// Name of the column of times.
pub(super) const TIME: &str = "time";

/// Fields of the index.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) schema: Schema,
    time: Field,
    kind: Field,
    namespace: Field,
    pod: Field,
    container: Field,
    request_id: Field,
    trace_id: Field,
    message: Field,
    row: Field,
}

impl Fields {
    pub(super) fn new() -> Self {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(WORDS)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions)
            .set_fieldnorms(false);
        Self {
            time: schema.add_i64_field(TIME, NumericOptions::default() | FAST),
            kind: schema.add_text_field("kind", name()),
            namespace: schema.add_text_field("namespace", name()),
            pod: schema.add_text_field("pod", name()),
            container: schema.add_text_field("container", name()),
            request_id: schema.add_text_field("request_id", name()),
            trace_id: schema.add_text_field("trace_id", name()),
            message: schema.add_text_field("message", TextOptions::default().set_indexing_options(indexing)),
            row: schema.add_bytes_field("row", STORED),
            schema: schema.build(),
        }
    }

    /// A row as it is indexed and stored.
    pub(super) fn document(&self, row: &Row) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_i64(self.time, row.time);
        document.add_text(self.kind, row.kind.as_str());
        for (field, name) in
            [(self.namespace, &row.namespace), (self.pod, &row.pod), (self.container, &row.container)]
        {
            document.add_text(field, name);
        }
        for (field, id) in [(self.request_id, &row.request_id), (self.trace_id, &row.trace_id)] {
            if let Some(id) = id {
                document.add_text(field, id);
            }
        }
        document.add_text(self.message, &row.message);
        // Texts and finite numbers always have a form; what has none is told as an empty row, and left out of answers.
        document.add_bytes(self.row, &serde_json::to_vec(row).unwrap_or_default());
        document
    }

    /// The row of a document, unless it cannot be read.
    pub(super) fn row(&self, document: &TantivyDocument) -> Option<Row> {
        serde_json::from_slice(document.get_first(self.row)?.as_bytes()?).ok()
    }

    /// Documents among which all rows are that answer a question, if their time is in this window.
    pub(super) fn narrowed(&self, query: &Query, (since, until): (i64, i64)) -> Box<dyn Narrowing> {
        let mut all: Vec<Box<dyn Narrowing>> = Vec::new();
        let term = |field: Field, text: &str| {
            let term = Term::from_field_text(field, text);
            Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Narrowing>
        };
        let kinds: Vec<Box<dyn Narrowing>> =
            query.kinds().iter().map(|kind| term(self.kind, kind.as_str())).collect();
        all.push(Box::new(BooleanQuery::union(kinds)));
        let exact = query.exact();
        for (field, name) in [
            (self.namespace, exact.namespace),
            (self.pod, exact.pod),
            (self.container, exact.container),
            (self.request_id, exact.request_id),
            (self.trace_id, exact.trace_id),
        ] {
            all.extend(name.map(|name| term(field, name)));
        }
        let wanted = &query.wanted;
        let short = |word: &&String| word.len() <= LONGEST_WORD;
        all.extend(wanted.words.iter().filter(short).map(|word| term(self.message, word)));
        if wanted.phrase.len() > 1 && wanted.phrase.iter().all(|word| short(&word)) {
            let terms = wanted.phrase.iter().map(|word| Term::from_field_text(self.message, word));
            all.push(Box::new(PhraseQuery::new(terms.collect())));
        } else {
            all.extend(wanted.phrase.iter().filter(short).map(|word| term(self.message, word)));
        }
        if (since, until) != (i64::MIN, i64::MAX) {
            let bound = |time| Bound::Included(Term::from_field_i64(self.time, time));
            all.push(Box::new(RangeQuery::new(bound(since), bound(until))));
        }
        if all.is_empty() {
            return Box::new(AllQuery);
        }
        let all: Vec<_> = all.into_iter().map(|one| (Occur::Must, one)).collect();
        Box::new(BooleanQuery::new(all))
    }
}

fn name() -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_index_option(IndexRecordOption::Basic)
        .set_fieldnorms(false);
    TextOptions::default().set_indexing_options(indexing)
}

/// How messages become words: as [`crate::timeline::words`] does.
pub(super) fn tokenizers() -> TokenizerManager {
    let tokenizers = TokenizerManager::default();
    let words = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONGEST_WORD + 1))
        .filter(LowerCaser);
    tokenizers.register(WORDS, words.build());
    tokenizers
}
