//! What has happened to a pod between two times that it was told: restarts, readiness, delays, failures.
//!
//! A kubelet tells a state, not what led to it. Of what came and went between two tellings only what is left of it is
//! known: counts, and how the last life of a container ended.

use super::{Container, ContainerKind, Phase, Pod, State, Termination};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// As expected.
    Usual,
    /// Not as expected.
    Unusual,
    /// Something failed.
    Failure,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, as far as the kubelet tells, in nanoseconds of the wall clock and whole seconds.
    pub time: Option<u64>,
    /// The container, if it happened to one.
    pub container: Option<String>,
    /// How often that had been started again.
    pub restart: Option<u64>,
    /// In one word, where Kubernetes has one in its own: `OOMKilled`, `CrashLoopBackOff`.
    pub reason: String,
    /// How bad it is.
    pub gravity: Gravity,
    /// Text for people.
    pub message: String,
}

/// Reasons to wait that every container has at its beginning (`pkg/kubelet/kubelet_pods.go`).
const BEGINNING: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

/// What has happened to a pod since it was last told, in the order of containers; all that is known of it if it never was.
pub fn changes(before: Option<&Pod>, now: &Pod) -> Vec<Change> {
    let mut changes = Vec::new();
    of_pod(before, now, &mut changes);
    for container in &now.containers {
        let known = before.and_then(|pod| pod.containers.iter().find(|known| known.name == container.name));
        // Of lives before the first telling it is not known when they were news.
        let (last, restarts) = (container.last.clone(), container.restarts);
        let none = Container { last, restarts, ..Container::default() };
        of_container(now, known.unwrap_or(&none), container, &mut changes);
    }
    changes
}

fn change(reason: &str, gravity: Gravity, time: Option<u64>, message: String) -> Change {
    Change { time, container: None, restart: None, reason: reason.to_owned(), gravity, message }
}

fn seconds(from: Option<u64>, to: Option<u64>) -> Option<f64> {
    Some(to?.checked_sub(from?)? as f64 / 1e9)
}

fn of_pod(before: Option<&Pod>, now: &Pod, changes: &mut Vec<Change>) {
    let none = Pod::default();
    let known = before.unwrap_or(&none);
    if known.scheduled.is_none()
        && let Some(waited) = seconds(now.created, now.scheduled)
    {
        let message = format!("a node was found {waited:.0} s after the pod was created");
        changes.push(change("Scheduled", Gravity::Usual, now.scheduled, message));
    }
    if !known.ready && now.ready {
        let message = match seconds(now.created, now.became_ready) {
            Some(after) => format!("the pod is ready, {after:.0} s after it was created"),
            None => "the pod is ready".to_owned(),
        };
        changes.push(change("Ready", Gravity::Usual, now.became_ready, message));
    }
    if known.ready && !now.ready {
        let (gravity, why) = match now.deleted {
            Some(_) => (Gravity::Usual, "it was asked to go".to_owned()),
            None => (Gravity::Unusual, why_not_ready(now)),
        };
        changes.push(change("NotReady", gravity, None, format!("the pod is not ready any more: {why}")));
    }
    if known.phase != Phase::Failed && now.phase == Phase::Failed {
        let reason = now.reason.as_deref().unwrap_or("Failed");
        changes.push(change(reason, Gravity::Failure, None, "the pod has failed".to_owned()));
    }
}

/// Which containers are why, and what can be said of them.
fn why_not_ready(pod: &Pod) -> String {
    let not_ready = pod.containers.iter().filter(|container| {
        let serves = container.kind == ContainerKind::Main;
        serves && !container.ready
    });
    let why: Vec<String> = not_ready
        .map(|container| match &container.state {
            State::Running { .. } => format!("{} runs and its probe fails", container.name),
            State::Terminated(_) => format!("{} has ended", container.name),
            State::Waiting { reason } => format!("{} waits ({reason})", container.name),
            State::Unknown => format!("of {} nothing is known", container.name),
        })
        .collect();
    if why.is_empty() { "a gate of its own says so".to_owned() } else { why.join(", ") }
}

fn of_container(pod: &Pod, known: &Container, now: &Container, changes: &mut Vec<Change>) {
    let mut add = |change: Change| {
        let container = Some(now.name.clone());
        changes.push(Change { container, restart: Some(now.restarts), ..change });
    };
    if let Some(end) = ended(now)
        && ended(known) != Some(end)
    {
        // An init container is there to end.
        let is_meant = end.exit_code == 0 && now.kind == ContainerKind::Init;
        if !is_meant {
            let gravity = if end.exit_code == 0 { Gravity::Usual } else { Gravity::Failure };
            let reason = if end.reason.is_empty() { "Terminated" } else { &end.reason };
            add(change(reason, gravity, end.finished, format!("{} ended: {}", now.name, how(end))));
        }
    }
    if now.restarts > known.restarts {
        let how = now.last.as_ref().map_or_else(|| "in a way that is not told".to_owned(), how);
        let times = now.restarts;
        let message = format!("{} was started again ({times} times by now); it had ended: {how}", now.name);
        add(change("restart", Gravity::Unusual, now.started(), message));
    }
    if let State::Waiting { reason } = &now.state
        && !BEGINNING.contains(&reason.as_str())
        && !matches!(&known.state, State::Waiting { reason: before } if before == reason)
    {
        add(change(reason, Gravity::Unusual, None, format!("{} waits", now.name)));
    }
    let started = now.started().filter(|_| known.started().is_none() && now.restarts == 0);
    if let Some(delay) = seconds(pod.scheduled, started).filter(|_| now.kind == ContainerKind::Main) {
        let message = format!("{} runs, {delay:.0} s after a node was found for its pod", now.name);
        add(change("Started", Gravity::Usual, started, message));
    }
    let same_life = known.id.is_some() && known.id == now.id;
    let runs = matches!(now.state, State::Running { .. });
    if same_life && runs && known.ready && !now.ready && pod.deleted.is_none() {
        let message = format!("{} runs and is not ready any more: its readiness probe fails", now.name);
        add(change("Unhealthy", Gravity::Unusual, None, message));
    }
}

/// How a container's last life ended, be it over for good or not.
fn ended(container: &Container) -> Option<&Termination> {
    match &container.state {
        State::Terminated(end) => Some(end),
        State::Unknown | State::Waiting { .. } | State::Running { .. } => container.last.as_ref(),
    }
}

fn how(end: &Termination) -> String {
    let reason = if end.reason.is_empty() { "no reason told" } else { &end.reason };
    let code = end.exit_code;
    // A container runtime tells a signal as 128 and its number.
    let signal = if (129..=192).contains(&code) { format!(", signal {}", code - 128) } else { String::new() };
    format!("{reason}, exit code {code}{signal}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn server(state: State, restarts: u64, ready: bool) -> Container {
        let id = Some(format!("c{restarts}"));
        Container { name: "server".into(), id, state, restarts, ready, ..Container::default() }
    }

    fn pod(server: Container) -> Pod {
        Pod {
            created: Some(100 * S),
            scheduled: Some(107 * S),
            ready: server.ready,
            became_ready: server.ready.then_some(160 * S),
            containers: vec![server],
            ..Pod::default()
        }
    }

    fn runs(restarts: u64, ready: bool) -> Container {
        server(State::Running { since: Some(110 * S) }, restarts, ready)
    }

    fn killed(finished: u64) -> Termination {
        Termination { reason: "OOMKilled".into(), exit_code: 137, finished: Some(finished * S) }
    }

    fn told(before: Option<&Pod>, now: &Pod) -> Vec<String> {
        changes(before, now).into_iter().map(|change| change.reason).collect()
    }

    #[test]
    fn a_pod_from_its_node_to_its_first_request() {
        let waits = pod(server(State::Waiting { reason: "ContainerCreating".into() }, 0, false));
        assert_eq!(told(None, &waits), ["Scheduled"]);
        assert_eq!(changes(None, &waits)[0].message, "a node was found 7 s after the pod was created");
        let starts = pod(runs(0, false));
        let change = changes(Some(&waits), &starts).remove(0);
        assert_eq!((change.reason.as_str(), change.time), ("Started", Some(110 * S)));
        assert_eq!(change.message, "server runs, 3 s after a node was found for its pod");
        let ready = pod(runs(0, true));
        let change = changes(Some(&starts), &ready).remove(0);
        assert_eq!(change.message, "the pod is ready, 60 s after it was created");
        assert!(told(Some(&ready), &ready).is_empty());
    }

    #[test]
    fn a_container_that_is_killed_and_comes_back_is_told_of_once() {
        let served = pod(runs(0, true));
        let ended = pod(server(State::Terminated(killed(200)), 0, false));
        assert_eq!(told(Some(&served), &ended), ["NotReady", "OOMKilled"]);
        let backs_off = Container {
            last: Some(killed(200)),
            ..server(State::Waiting { reason: "CrashLoopBackOff".into() }, 1, false)
        };
        let backs_off = pod(backs_off);
        assert_eq!(told(Some(&ended), &backs_off), ["restart", "CrashLoopBackOff"]);
        let again = pod(Container { last: Some(killed(200)), ..runs(1, false) });
        assert!(told(Some(&backs_off), &again).is_empty());
        let at_once = changes(Some(&served), &again);
        let reasons: Vec<_> = at_once.iter().map(|change| change.reason.as_str()).collect();
        assert_eq!(reasons, ["NotReady", "OOMKilled", "restart"], "nothing was told between");
        let restart = at_once.last().unwrap();
        assert_eq!((restart.restart, restart.container.as_deref()), (Some(1), Some("server")));
        assert_eq!(
            restart.message,
            "server was started again (1 times by now); it had ended: OOMKilled, exit code 137, signal 9"
        );
        assert_eq!(at_once[1].time, Some(200 * S));
    }

    #[test]
    fn of_lives_before_the_first_telling_nothing_is_told() {
        let looked_at_late = pod(Container { last: Some(killed(200)), ..runs(3, true) });
        assert_eq!(told(None, &looked_at_late), ["Scheduled", "Ready"]);
    }

    #[test]
    fn readiness_is_lost_to_a_probe_and_comes_back() {
        let (ready, fails) = (pod(runs(0, true)), pod(runs(0, false)));
        let lost = changes(Some(&ready), &fails);
        assert_eq!(
            lost.iter().map(|change| change.reason.as_str()).collect::<Vec<_>>(),
            ["NotReady", "Unhealthy"]
        );
        assert_eq!(lost[0].message, "the pod is not ready any more: server runs and its probe fails");
        assert_eq!(changes(Some(&fails), &ready)[0].reason, "Ready");
        let goes = Pod { deleted: Some(300 * S), ..fails };
        let gone = changes(Some(&ready), &goes);
        assert_eq!((gone.len(), gone[0].gravity), (1, Gravity::Usual), "it was asked to go");
    }

    #[test]
    fn an_init_container_may_end_and_a_pod_may_fail() {
        let init = |exit_code| {
            let end = Termination { reason: "Completed".into(), exit_code, finished: Some(S) };
            pod(Container { kind: ContainerKind::Init, ..server(State::Terminated(end), 0, false) })
        };
        let before = pod(Container { kind: ContainerKind::Init, ..runs(0, false) });
        assert!(told(Some(&before), &init(0)).is_empty());
        assert_eq!(told(Some(&before), &init(1)), ["Completed"]);
        let evicted = Pod { phase: Phase::Failed, reason: Some("Evicted".into()), ..before.clone() };
        assert_eq!(told(Some(&before), &evicted), ["Evicted"]);
    }
}
