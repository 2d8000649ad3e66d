//! A fake Kubernetes API server. It speaks the protocol (HTTP/1.1, LIST with pages, chunked WATCH with
//! bookmarks and 410, PATCH, server-side apply, RBAC) as far as clients of this project use it, so that the
//! unmodified `kube` client works against it; it runs no controller, validates no object, and does what goes
//! wrong when a test orders it.
//!
//! ```no_run
//! use observer_tests::apiserver::ApiServer;
//! use serde_json::json;
//!
//! let api = ApiServer::start();
//! api.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ml"}}));
//! api.kubeconfig("/tmp/kubeconfig".as_ref());
//! ```

mod access;
mod answer;
mod apply;
mod discovery;
mod faults;
mod forward;
pub mod objects;
mod read;
mod resources;
mod reviews;
mod seen;
mod selector;
mod shape;
mod status;
mod store;
mod watch;
mod write;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::Router;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch as channel};

use self::{
    access::Access,
    apply::Owners,
    faults::Faults,
    resources::BUILT_IN,
    shape::Shape,
    store::{Key, Store},
};
pub use self::{
    access::{Grant, granted},
    faults::Fault,
    resources::{LEADER_WORKER_SETS, Resource},
    reviews::Reviewer,
    seen::{Request, Seen},
};

/// The token that a new server accepts.
pub const TOKEN: &str = "token-of-the-tests";

/// Whose token [`TOKEN`] is.
pub const USER: &str = "system:serviceaccount:observer:observer";

/// A server on a port of the loopback interface and a thread of its own; it ends with the value.
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Holds the port while the server is stopped, so that no client of anything is given it.
    _port: std::os::fd::OwnedFd,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What outlives a stop.
struct Shared {
    state: Mutex<State>,
    /// Counts what watches may have to look at.
    news: channel::Sender<u64>,
}

struct State {
    resources: Vec<Resource>,
    store: Store,
    access: Access,
    faults: Faults,
    forwards: forward::Forwards,
    reviewer: Option<Reviewer>,
    seen: Vec<Arc<Seen>>,
    bookmark_every: Duration,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.tell();
        result
    }

    fn tell(&self) {
        self.news.send_modify(|number| *number += 1);
    }

    async fn hear(&self, news: &mut channel::Receiver<u64>) {
        news.changed().await.expect("the sender is here");
    }
}

impl State {
    /// The resource that a request is for.
    fn shape(&self, request: &Request) -> Option<Shape> {
        let resource = self.resources.iter().find(|resource| {
            (resource.group, resource.version, resource.plural)
                == (request.group.as_str(), request.version.as_str(), request.resource.as_str())
        })?;
        Some(Shape { resource: *resource, metadata_only: request.metadata_only })
    }

    fn named(&self, resource: &str) -> Resource {
        *self
            .resources
            .iter()
            .find(|known| known.is_named(resource))
            .unwrap_or_else(|| panic!("no resource {resource} is installed"))
    }

    fn key(&self, resource: &str, namespace: &str, name: &str) -> Key {
        Key {
            collection: self.named(resource).collection(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl ApiServer {
    /// Starts a server with the built-in resources, no object, and [`TOKEN`].
    pub fn start() -> Self {
        let mut access = Access::default();
        access.accept(TOKEN, USER);
        let state = State {
            resources: BUILT_IN.to_vec(),
            store: Store::new(),
            access,
            faults: Faults::default(),
            forwards: forward::Forwards::default(),
            reviewer: None,
            seen: Vec::new(),
            bookmark_every: Duration::from_mins(1),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), news: channel::Sender::new(0) });
        // Bound with SO_REUSEADDR, as every listener of it will be, and never listening: connections are
        // refused while no listener is there.
        let port = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("a socket");
        sockopt::set_socket_reuseaddr(&port, true).expect("SO_REUSEADDR");
        bind(&port, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = rustix::net::getsockname(&port).expect("an address").try_into().expect("IPv4");
        let mut server = Self { shared, address, _port: port, running: None };
        server.restart();
        server
    }

    /// Listens again after [`Self::stop`], at the same port and with the same state.
    pub fn restart(&mut self) {
        self.stop();
        let listener = std::net::TcpListener::bind(self.address).expect("the port is held");
        listener.set_nonblocking(true).expect("a socket");
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().fallback(answer::handle).with_state(Arc::clone(&self.shared));
        let thread = thread::Builder::new().name("apiserver".to_owned()).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    served = axum::serve(listener, router) => served.expect("served"),
                    _ = stopped => {}
                }
            });
            // With the runtime go the tasks, and with them every connection.
        });
        self.running = Some(Running { stop, thread: thread.expect("a thread") });
    }

    /// Breaks every connection off and refuses new ones.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            let _ = stop.send(());
            thread.join().expect("the server's thread");
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig for it, with [`TOKEN`].
    pub fn kubeconfig(&self, file: &Path) {
        self.kubeconfig_with(file, &json!({"token": TOKEN}));
    }

    /// Writes a kubeconfig for it, with what stands at `user` there: `{"token": …}`, `{"tokenFile": …}`.
    pub fn kubeconfig_with(&self, file: &Path, user: &Value) {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "default"}}],
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "fake", "user": user}]});
        fs::write(file, config.to_string()).expect("a kubeconfig");
    }

    /// Creates or replaces an object by its `apiVersion`, `kind`, namespace (`default` if it has none) and
    /// name; returns it as stored. An object with another uid is another object: the one that was there is
    /// deleted first.
    pub fn put(&self, object: impl Into<Value>) -> Value {
        let object = object.into();
        self.shared.change(|state| {
            let find = |resource: &&Resource| {
                object["apiVersion"] == resource.api_version() && object["kind"] == resource.kind
            };
            let resource = *state.resources.iter().find(find).unwrap_or_else(|| {
                panic!("no resource for {} {} is installed", object["apiVersion"], object["kind"])
            });
            let meta = &object["metadata"];
            let namespace =
                if resource.namespaced { meta["namespace"].as_str().unwrap_or("default") } else { "" };
            let name = meta["name"].as_str().expect("metadata.name").to_owned();
            let key = Key { collection: resource.collection(), namespace: namespace.to_owned(), name };
            let uid = |object: &Value| object["metadata"]["uid"].as_str().map(str::to_owned);
            let there = state.store.get(&key).map(|there| (uid(&there.value), there.owners.clone()));
            let (mut owners, mut value) =
                (Owners::new(), Shape { resource, metadata_only: false }.stored(object));
            if let Some((was, owned)) = there {
                if uid(&value).is_some_and(|uid| was != Some(uid)) {
                    state.store.remove(&key);
                } else {
                    owners = owned;
                }
            }
            if let Some(meta) = value["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            state.store.write(key, value, owners, &now()).value.clone()
        })
    }

    /// Deletes an object; whether it was there. The namespace of what is cluster-wide is empty.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.shared.change(|state| {
            let key = state.key(resource, namespace, name);
            state.store.remove(&key).is_some()
        })
    }

    /// An object as stored: events of both groups in the core group's shape.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.shared.state();
        state.store.get(&state.key(resource, namespace, name)).map(|object| object.value.clone())
    }

    /// All objects of a resource, as stored.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        let state = self.shared.state();
        state.store.all(state.named(resource).collection()).map(|(_, object)| object.value.clone()).collect()
    }

    /// The resource version of the last write.
    pub fn version(&self) -> u64 {
        self.shared.state().store.version()
    }

    /// Forgets what changed until now: a watch that asks for it, or a page of a list from before, is answered
    /// 410.
    pub fn compact(&self) {
        self.shared.change(|state| state.store.compact());
    }

    /// Remembers no more than so many changes from now on.
    pub fn remember(&self, changes: usize) {
        self.shared.change(|state| state.store.bound(changes));
    }

    /// Serves one more resource, as a cluster does whose administrator installed its CRD.
    pub fn install(&self, resource: Resource) {
        self.shared.change(|state| state.resources.push(resource));
    }

    /// Serves a resource no more; its objects go, its watches end.
    pub fn uninstall(&self, resource: &str) {
        self.shared.change(|state| {
            let gone = state.named(resource);
            state.resources.retain(|resource| *resource != gone);
            let keys: Vec<_> = state.store.all(gone.collection()).map(|(key, _)| key.clone()).collect();
            for key in keys {
                state.store.remove(&key);
            }
        });
    }

    /// Accepts a token, and whose it is (`system:serviceaccount:<namespace>:<name>`).
    pub fn accept(&self, token: &str, user: &str) {
        self.shared.change(|state| state.access.accept(token, user));
    }

    /// Accepts a token no more.
    pub fn reject(&self, token: &str) {
        self.shared.change(|state| state.access.reject(token));
    }

    /// Enforces the roles and bindings among these objects; without it everybody may do everything.
    pub fn enforce(&self, objects: &[Value]) {
        self.shared.change(|state| state.access.enforce(Some(objects.to_vec())));
    }

    /// Answers reviews by this, and by its own tables only where it gives nothing.
    pub fn review_by(&self, reviewer: impl Fn(&str, &Value) -> Option<Value> + Send + 'static) {
        self.shared.change(|state| state.reviewer = Some(Box::new(reviewer)));
    }

    /// Lets something go wrong from now on.
    pub fn inject(&self, fault: Fault) {
        self.shared.change(|state| state.faults.inject(fault));
    }

    /// Takes every fault back.
    pub fn heal(&self) {
        self.shared.change(|state| state.faults.heal());
    }

    /// Breaks the open watches of a resource off, each in the middle of a frame; how many.
    pub fn cut_watches(&self, resource: &str) -> usize {
        self.each_watch(resource, Seen::order_cut)
    }

    /// Sends a bookmark now to the open watches of a resource that take them; how many are open.
    pub fn bookmark(&self, resource: &str) -> usize {
        self.each_watch(resource, Seen::order_bookmark)
    }

    /// Sends bookmarks so often to new watches; a server does every minute.
    pub fn bookmark_every(&self, interval: Duration) {
        self.shared.change(|state| state.bookmark_every = interval);
    }

    /// How many watches of a resource are open.
    pub fn watches(&self, resource: &str) -> usize {
        self.each_watch(resource, |_| ())
    }

    /// Every request that came, in order, faults and refusals too.
    pub fn requests(&self) -> Vec<Arc<Seen>> {
        self.shared.state().seen.clone()
    }

    /// Forgets the requests that came, but for watches that are open.
    pub fn forget_requests(&self) {
        self.shared.state().seen.retain(|seen| seen.is_open());
    }

    fn each_watch(&self, resource: &str, order: impl Fn(&Seen)) -> usize {
        self.shared.change(|state| {
            let open = state.seen.iter().filter(|seen| seen.is_open() && seen.request.is_for(resource));
            open.map(|seen| order(seen)).count()
        })
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The time as objects bear it.
fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
