//! Attributes: names and values, as OTLP has them.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};

/// Attributes that grow; what is not known is left out.
#[derive(Debug, Default)]
pub struct Attributes(pub(super) Vec<KeyValue>);

pub(super) fn text(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

impl Attributes {
    /// A text, unless it is empty.
    pub fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.push(name, Value::StringValue(value.to_owned()));
        }
    }

    /// A text, if it is known.
    pub fn known(&mut self, name: &str, value: Option<&String>) {
        self.text(name, value.map_or("", String::as_str));
    }

    /// A count, if it is known.
    pub fn count(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.push(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
        }
    }

    /// Seconds, if they are known.
    pub fn seconds(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.push(name, Value::DoubleValue(value));
        }
    }

    /// Whether something is so.
    pub fn flag(&mut self, name: &str, value: bool) {
        self.push(name, Value::BoolValue(value));
    }

    /// Several texts, unless there are none.
    pub fn texts<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a String>) {
        let values: Vec<_> = values.into_iter().map(text).collect();
        if !values.is_empty() {
            self.push(name, Value::ArrayValue(ArrayValue { values }));
        }
    }

    fn push(&mut self, name: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: name.to_owned(), value, ..KeyValue::default() });
    }
}
