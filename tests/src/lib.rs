//! What crosses rooms: replay of recordings, properties, live kernel tests, real engines, kernel matrix, fakes.

#![expect(clippy::missing_panics_doc, reason = "these are parts of tests: they panic where a test fails")]

pub mod agent;
pub mod apiserver;
pub mod client;
pub mod container;
pub mod deploy;
pub mod engine;
pub mod fake_engine;
pub mod gpu;
pub mod hammer;
pub mod image;
pub mod kubelet;
pub mod live;
pub mod memory;
pub mod node;
pub mod pod;
pub mod pod_logs;
pub mod prometheus;
pub mod receiver;
pub mod script;
pub mod scripted;
pub mod small_server;
pub mod vm;
pub mod workload;
