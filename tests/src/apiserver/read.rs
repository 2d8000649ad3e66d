//! GET of one object, and LIST with its pages.

use serde_json::{Value, json};

use super::{
    State,
    resources::Resource,
    seen::Request,
    selector::Selection,
    shape::Shape,
    status::Failure,
    store::{Key, Object},
};

pub(super) fn key(resource: &Resource, request: &Request) -> Key {
    let namespace = if resource.namespaced { request.namespace.clone() } else { String::new() };
    Key { collection: resource.collection(), namespace, name: request.name.clone() }
}

pub(super) fn get(state: &State, shape: Shape, request: &Request) -> Result<Value, Failure> {
    let object = state.store.get(&key(&shape.resource, request));
    let object = object.ok_or_else(|| Failure::not_found(&shape.resource, &request.name))?;
    Ok(shape.show(&object.value))
}

/// Whether an object of a collection is in the namespace that is asked for; empty means all.
pub(super) fn within(key: &Key, namespace: &str) -> bool {
    namespace.is_empty() || key.namespace == namespace || key.namespace.is_empty()
}

pub(super) fn selection(resource: &Resource, request: &Request) -> Result<Selection, Failure> {
    Selection::new(resource, request.parameter("labelSelector"), request.parameter("fieldSelector"))
        .map_err(|why| Failure::bad_request(&why))
}

/// A parameter that is a number; none if it is not given.
pub(super) fn number(request: &Request, name: &str) -> Result<Option<u64>, Failure> {
    let text = request.parameter(name);
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        Failure::bad_request(&format!(
            "invalid {name}: strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    };
    text.parse().ok().map(Some).ok_or_else(wrong)
}

pub(super) fn list(state: &State, shape: Shape, request: &Request) -> Result<Value, Failure> {
    let selection = selection(&shape.resource, request)?;
    let asked = number(request, "resourceVersion")?;
    let now = state.store.version();
    let page = Page::read(request.parameter("continue"))?;
    let version = match (&page, asked) {
        (Some(page), _) => page.version,
        (None, Some(asked)) if asked > now => return Err(Failure::too_large(asked, now)),
        (None, Some(asked)) if request.parameter("resourceVersionMatch") == "Exact" => asked,
        _ => now,
    };
    let objects = state.store.at(shape.resource.collection(), version).map_err(|expired| {
        if page.is_some() { Failure::page_too_old() } else { Failure::too_old(version, expired.0) }
    })?;
    let mut wanted = objects
        .iter()
        .filter(|(key, object)| within(key, &request.namespace) && selection.matches(&object.value))
        .skip_while(|(key, _)| {
            let place = (key.namespace.as_str(), key.name.as_str());
            page.as_ref().is_some_and(|page| place <= (page.namespace.as_str(), page.name.as_str()))
        })
        .peekable();
    // A list from the watch cache, which version 0 asks for, has no pages.
    let limit = number(request, "limit")?.filter(|limit| *limit > 0 && asked != Some(0)).unwrap_or(u64::MAX);
    let mut items = Vec::new();
    let mut last = None;
    while (items.len() as u64) < limit
        && let Some((key, object)) = wanted.next()
    {
        let object: &Object = object;
        items.push(shape.item(&object.value));
        last = Some(key);
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if wanted.peek().is_some()
        && let Some(key) = last
    {
        metadata["continue"] = json!(Page::after(version, key).write());
        if selection.is_empty() {
            metadata["remainingItemCount"] = json!(wanted.count());
        }
    }
    Ok(shape.list(&metadata, items))
}

/// Where a list goes on: its version, and the last object that was sent.
struct Page {
    version: u64,
    namespace: String,
    name: String,
}

impl Page {
    fn after(version: u64, key: &Key) -> Self {
        Self { version, namespace: key.namespace.clone(), name: key.name.clone() }
    }

    fn write(&self) -> String {
        format!("{}/{}/{}", self.version, self.namespace, self.name)
    }

    fn read(token: &str) -> Result<Option<Self>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let wrong = || Failure::bad_request("continue key is not valid");
        let mut parts = token.splitn(3, '/');
        let (Some(version), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let version = version.parse().ok().ok_or_else(wrong)?;
        Ok(Some(Self { version, namespace: namespace.to_owned(), name: name.to_owned() }))
    }
}
