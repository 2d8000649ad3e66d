//! POST, PUT, PATCH and DELETE.

use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

use super::{
    State,
    apply::{self, Manager, Owners},
    read::key,
    resources::Resource,
    seen::Request,
    shape::Shape,
    status::Failure,
    store::{Key, Object},
};

/// A write as it came.
pub(super) struct Write<'a> {
    pub(super) request: &'a Request,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl Write<'_> {
    /// Does it; the status code and what is answered.
    pub(super) fn perform(&self, state: &mut State, shape: Shape) -> Result<(u16, Value), Failure> {
        if !matches!(self.request.subresource.as_str(), "" | "status") {
            return Err(Failure::method_not_allowed());
        }
        match self.request.verb.as_str() {
            "create" => self.create(state, shape),
            "update" => self.update(state, shape),
            "patch" => self.patch(state, shape),
            "delete" => self.delete(state, shape.resource),
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn object(&self) -> Result<Value, Failure> {
        let object: Value = serde_json::from_slice(self.body)
            .map_err(|why| Failure::bad_request(&format!("the object provided is unrecognized: {why}")))?;
        if !object.is_object() {
            return Err(Failure::bad_request("the object provided is unrecognized: not an object"));
        }
        Ok(object)
    }

    /// The object in the body in the stored shape, its metadata there.
    fn written(&self, shape: Shape) -> Result<Value, Failure> {
        let mut object = shape.stored(self.object()?);
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        object["apiVersion"] = json!(if shape.resource.group == "events.k8s.io" {
            "v1".to_owned()
        } else {
            shape.resource.api_version()
        });
        object["kind"] = json!(shape.resource.kind);
        let given = &object["metadata"]["namespace"];
        if shape.resource.namespaced && given.as_str().is_some_and(|given| given != self.request.namespace) {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(object)
    }

    /// Who owns what this request writes: `fieldManager`, or what the client calls itself.
    fn manager(&self, applies: bool) -> Manager {
        let name = match self.request.parameter("fieldManager") {
            "" => self.request.user_agent.split('/').next().unwrap_or_default(),
            name => name,
        };
        Manager { name: name.to_owned(), applies }
    }

    fn create(&self, state: &mut State, shape: Shape) -> Result<(u16, Value), Failure> {
        let mut object = self.written(shape)?;
        let meta = &mut object["metadata"];
        if meta["name"].as_str().is_none_or(str::is_empty) {
            let Some(start) = meta["generateName"].as_str().filter(|start| !start.is_empty()) else {
                return Err(Failure::invalid(
                    &shape.resource,
                    "",
                    "metadata.name: Required value: name or generateName is required",
                ));
            };
            meta["name"] = json!(format!("{start}{:05x}", state.store.version() & 0xf_ffff));
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let key = Key { name, ..key(&shape.resource, self.request) };
        if state.store.get(&key).is_some() {
            return Err(Failure::already_exists(&shape.resource, &key.name));
        }
        let owners = apply::updated(&Value::Null, &object, Owners::new(), &self.manager(false));
        Ok((201, self.store(state, shape, key, object, owners)))
    }

    fn update(&self, state: &mut State, shape: Shape) -> Result<(u16, Value), Failure> {
        let object = self.written(shape)?;
        let (key, current) = self.current(state, &shape.resource)?;
        // Leases cannot be replaced blindly (kubernetes: pkg/registry/coordination/lease/strategy.go).
        if shape.resource.plural == "leases" && object["metadata"]["resourceVersion"].is_null() {
            let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
            return Err(Failure::invalid(&shape.resource, &key.name, why));
        }
        fresh(&shape.resource, &object, &current)?;
        let owners = apply::updated(&current.value, &object, current.owners.clone(), &self.manager(false));
        Ok((200, self.store(state, shape, key, object, owners)))
    }

    fn patch(&self, state: &mut State, shape: Shape) -> Result<(u16, Value), Failure> {
        let kind =
            self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        match kind {
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                self.merge(state, shape)
            }
            "application/apply-patch+yaml" => self.apply(state, shape),
            _ => Err(Failure::unsupported_media_type(kind)),
        }
    }

    fn merge(&self, state: &mut State, shape: Shape) -> Result<(u16, Value), Failure> {
        let patch = shape.stored(self.object()?);
        let (key, current) = self.current(state, &shape.resource)?;
        fresh(&shape.resource, &patch, &current)?;
        let mut object = current.value.clone();
        apply::merge(&mut object, &patch);
        object["apiVersion"] = current.value["apiVersion"].clone();
        let owners = apply::updated(&current.value, &object, current.owners.clone(), &self.manager(false));
        Ok((200, self.store(state, shape, key, object, owners)))
    }

    fn apply(&self, state: &mut State, shape: Shape) -> Result<(u16, Value), Failure> {
        // What is applied is YAML, of which JSON is a part: the part that clients send.
        let configuration = self.written(shape)?;
        if self.request.parameter("fieldManager").is_empty() {
            return Err(Failure::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let key = key(&shape.resource, self.request);
        let current = state.store.get(&key).cloned();
        if let Some(current) = &current {
            fresh(&shape.resource, &configuration, current)?;
        }
        let (value, owners) =
            current.as_ref().map_or((json!({}), Owners::new()), |c| (c.value.clone(), c.owners.clone()));
        let force = self.request.parameter("force") == "true";
        let (object, owners) = apply::apply(&value, &configuration, owners, &self.manager(true), force)
            .map_err(|conflicts| Failure::owned(&conflicts))?;
        let code = if current.is_some() { 200 } else { 201 };
        Ok((code, self.store(state, shape, key, object, owners)))
    }

    fn delete(&self, state: &mut State, resource: Resource) -> Result<(u16, Value), Failure> {
        let (key, current) = self.current(state, &resource)?;
        let options = if self.body.is_empty() { Value::Null } else { self.object()? };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != current.value["metadata"]["uid"] {
            return Err(Failure::stale(&resource, &key.name));
        }
        state.store.remove(&key);
        let details = json!({"name": key.name, "group": resource.group, "kind": resource.plural,
            "uid": current.value["metadata"]["uid"]});
        Ok((
            200,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
        ))
    }

    fn current(&self, state: &State, resource: &Resource) -> Result<(Key, std::sync::Arc<Object>), Failure> {
        let key = key(resource, self.request);
        match state.store.get(&key) {
            Some(object) => Ok((key, std::sync::Arc::clone(object))),
            None => Err(Failure::not_found(resource, &key.name)),
        }
    }

    fn store(&self, state: &mut State, shape: Shape, key: Key, object: Value, owners: Owners) -> Value {
        if self.request.parameter("dryRun") == "All" {
            return shape.show(&object);
        }
        shape.show(&state.store.write(key, object, owners, &super::now()).value)
    }
}

/// Whether what is written builds on the current version, or does not say on which.
fn fresh(resource: &Resource, written: &Value, current: &Object) -> Result<(), Failure> {
    let meta = &current.value["metadata"];
    match &written["metadata"]["resourceVersion"] {
        Value::String(version) if !version.is_empty() && *version != meta["resourceVersion"] => {
            Err(Failure::stale(resource, meta["name"].as_str().unwrap_or_default()))
        }
        _ => Ok(()),
    }
}
