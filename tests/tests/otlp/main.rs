//! Spans and log records on their way to a receiver: what arrives, what is tried again, what is given up.

mod delivery;
