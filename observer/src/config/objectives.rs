//! `[[slo]]`: the objectives that an operator writes down.

use serde::Deserialize;
use toml::Value;

use crate::slo::{Measure, Objective};

/// Objectives; each adds series to every model that it is about.
const OBJECTIVES: usize = 16;

/// What to write.
pub(super) const REMEDY: &str = "write each as [[slo]] with a name of 1 to 64 letters, digits and _-., with models \
                                 (a pattern of model names, unless it is about all), and with at least one of \
                                 ttft, tpot, gap and duration in seconds, such as name = \"chat\", ttft = 0.5";

/// One objective as it is typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    name: String,
    #[serde(default = "every_model")]
    models: String,
    ttft: Option<f64>,
    tpot: Option<f64>,
    gap: Option<f64>,
    duration: Option<f64>,
}

fn every_model() -> String {
    "*".to_owned()
}

/// The objectives of an array of tables, or of text that spells one.
pub(super) fn objectives(value: &Value) -> Result<Vec<Objective>, String> {
    let spelt;
    let tables = match value {
        Value::Array(tables) => tables,
        Value::String(text) => {
            let parsed: toml::Table =
                toml::from_str(&format!("slo = {}", text.trim())).map_err(|_error| "is no array in TOML")?;
            spelt = parsed;
            spelt.get("slo").and_then(Value::as_array).ok_or("is not an array")?
        }
        other => return Err(format!("is {}, not an array of tables", other.type_str())),
    };
    if tables.len() > OBJECTIVES {
        return Err(format!("has {} objectives, more than {OBJECTIVES}", tables.len()));
    }
    let mut objectives: Vec<Objective> = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let objective = objective(table).map_err(|reason| format!("objective {}: {reason}", at + 1))?;
        if objectives.iter().any(|earlier| earlier.name == objective.name) {
            return Err(format!("objective {}: the name {:?} is taken", at + 1, objective.name));
        }
        objectives.push(objective);
    }
    Ok(objectives)
}

fn objective(table: &Value) -> Result<Objective, String> {
    let typed: Typed =
        table.clone().try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let Typed { name, models, ttft, tpot, gap, duration } = typed;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(format!("`name` = {name:?} is not a usable name"));
    }
    if models.is_empty() || models.len() > 256 {
        return Err("`models` has no characters, or more than 256".to_owned());
    }
    let bounds = [
        ("ttft", Measure::Ttft, ttft),
        ("tpot", Measure::Tpot, tpot),
        ("gap", Measure::Gap, gap),
        ("duration", Measure::Duration, duration),
    ];
    let mut kept = Vec::new();
    for (field, measure, seconds) in bounds {
        match seconds {
            Some(seconds) if !seconds.is_finite() || seconds <= 0.0 => {
                return Err(format!("`{field}` = {seconds} is not a number of seconds above 0"));
            }
            Some(seconds) => kept.push((measure, seconds)),
            None => {}
        }
    }
    if kept.is_empty() {
        return Err(format!("{name:?} bounds nothing"));
    }
    Ok(Objective { name, models, bounds: kept })
}
