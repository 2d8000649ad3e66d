//! What the kernel room requires, and whether its probes work: they are loaded, attached and detached again.

use super::{Finding, State};
use crate::config::Config;
use crate::kernel::{self, Kernel, Options, ProbeMode};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let requirements = kernel::requirements();
    let mut findings: Vec<Finding> = requirements
        .into_iter()
        .map(|(check, result)| match result {
            Ok(found) => Finding::ok(check, found),
            Err(missing) => Finding::said(check, State::Missing, &missing),
        })
        .collect();
    let stands = findings.iter().all(|finding| finding.state == State::Ok);
    findings.extend(kernel::capabilities().into_iter().map(|capability| match capability.without {
        None => Finding::ok("capability", capability.name),
        Some(without) => Finding::with(
            "capability",
            State::Missing,
            format!("no {}: {without}", capability.name),
            "grant it as deploy/ does (agent.capabilities in the chart), or run as root",
        ),
    }));
    if stands {
        findings.extend(probes(config));
    } else {
        findings.push(Finding::said(
            "probes",
            State::Missing,
            &"not tried, for want of what is missing above",
        ));
    }
    findings
}

fn probes(config: &Config) -> Vec<Finding> {
    // As small as can be: an agent may be running beside.
    let options = Options { ring_bytes: 64 << 10, arrival: config.capture.arrival, ask_first: true };
    let mut kernel = match Kernel::load(&options) {
        Ok(kernel) => kernel,
        Err(error) => {
            let remedy = "see that seccomp, AppArmor and kernel.perf_event_paranoid let it (deploy/README.md, Least privilege)";
            return vec![Finding::with("probes", State::Missing, error.to_string(), remedy)];
        }
    };
    let findings = kernel.report().iter().map(|probe| match &probe.mode {
        ProbeMode::Attached => Finding::ok("probe", probe.name),
        ProbeMode::Missing { without, reason } => {
            Finding::said("probe", State::Less, &format!("no {}: {without} ({reason})", probe.name))
        }
    });
    let findings = findings.collect();
    kernel.detach();
    findings
}
