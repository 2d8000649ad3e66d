//! What an exchange tells, as observations.

use crate::exchange::{
    context::Context,
    observation::Observation,
    one::{Exchange, Progress},
    summary,
};

/// Tells, once, what the exchange asks for.
pub(super) fn requested(exchange: &mut Exchange, out: &mut dyn FnMut(Observation)) {
    if exchange.started && !std::mem::replace(&mut exchange.asked, true) {
        out(Observation::Requested {
            id: exchange.id,
            stream: exchange.request.stream.unwrap_or(false),
            model: exchange.request.model.clone(),
        });
    }
}

/// Lets the exchange take something in and passes on what it tells.
pub(super) fn deliver(
    exchange: &mut Exchange,
    out: &mut dyn FnMut(Observation),
    take: impl FnOnce(&mut Exchange, &mut dyn FnMut(Progress)),
) {
    let (id, started) = (exchange.id, exchange.started);
    take(exchange, &mut |progress| {
        if started {
            out(progress.observed(id));
        }
    });
}

/// Ends an exchange and reports it, if it is one with an LLM.
pub(super) fn finish(mut exchange: Exchange, context: &Context, time: u64, out: &mut dyn FnMut(Observation)) {
    deliver(&mut exchange, out, |exchange, sink| exchange.response_over(time, sink));
    if exchange.started {
        requested(&mut exchange, out);
        let id = exchange.id;
        out(Observation::Finished { id, record: Box::new(summary::record(exchange, context, time)) });
    }
}
