//! What goes wrong, if a test orders it.

use std::time::Duration;

use super::seen::Request;

/// Something that goes wrong with every request that it is for, until it was often enough or is healed.
#[derive(Clone, Debug)]
pub struct Fault {
    resource: Option<String>,
    verb: Option<String>,
    user: Option<String>,
    left: Option<u32>,
    effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Delay(Duration),
    Code { code: u16, retry_after: Option<u32> },
    GoneInHead,
    Silence,
}

/// What is to be done to one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orders {
    pub(super) delay: Duration,
    /// Status code and `Retry-After` in seconds.
    pub(super) code: Option<(u16, Option<u32>)>,
    pub(super) gone_in_head: bool,
}

impl Fault {
    fn new(effect: Effect) -> Self {
        Self { resource: None, verb: None, user: None, left: None, effect }
    }

    /// Every answer begins so much later.
    pub fn delay(by: Duration) -> Self {
        Self::new(Effect::Delay(by))
    }

    /// The answer is this status code, with a `Status` as a server writes it (403, 429, 500, 503).
    pub fn code(code: u16) -> Self {
        Self::new(Effect::Code { code, retry_after: None })
    }

    /// 429, with `Retry-After` in seconds.
    pub fn too_many_requests(retry_after: u32) -> Self {
        Self::new(Effect::Code { code: 429, retry_after: Some(retry_after) })
    }

    /// A version that is too old is answered by the status code 410, not by a frame of a watch that begins
    /// with 200: servers without a watch cache do so.
    pub fn gone_in_head() -> Self {
        Self::new(Effect::GoneInHead)
    }

    /// Watches go on, open and new ones, and nothing comes: no change, no bookmark, no end.
    pub fn silence() -> Self {
        Self::new(Effect::Silence)
    }

    /// Only for this resource, by a name that [`Request::is_for`] knows.
    #[must_use]
    pub fn on(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Only for this verb, as RBAC names it.
    #[must_use]
    pub fn verb(mut self, verb: &str) -> Self {
        self.verb = Some(verb.to_owned());
        self
    }

    /// Only for this user, by its name, so that one of two replicas is cut off.
    #[must_use]
    pub fn from(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Only for so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.left = Some(times);
        self
    }

    fn is_for(&self, request: &Request) -> bool {
        self.left != Some(0)
            && self.resource.as_ref().is_none_or(|resource| request.is_for(resource))
            && self.user.as_ref().is_none_or(|user| *user == request.user)
            && self.verb.as_ref().is_none_or(|verb| *verb == request.verb)
    }
}

/// The faults that are there.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn heal(&mut self) {
        self.0.clear();
    }

    /// What is to be done to a request; what is counted is counted.
    pub(super) fn orders(&mut self, request: &Request) -> Orders {
        let mut orders = Orders::default();
        for fault in self.0.iter_mut().filter(|fault| fault.is_for(request)) {
            match fault.effect {
                Effect::Delay(by) => orders.delay += by,
                Effect::Code { code, retry_after } => orders.code = Some((code, retry_after)),
                Effect::GoneInHead => orders.gone_in_head = true,
                Effect::Silence => continue,
            }
            fault.left = fault.left.map(|left| left - 1);
        }
        orders
    }

    /// Whether a watch is to be silent.
    pub(super) fn silences(&self, request: &Request) -> bool {
        self.0.iter().any(|fault| fault.effect == Effect::Silence && fault.is_for(request))
    }
}
