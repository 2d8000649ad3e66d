//! What crosses rooms: replay of recordings, properties, live kernel tests, real engines, kernel matrix, fakes.

pub mod hammer;
pub mod live;
pub mod small_server;
pub mod vm;
pub mod workload;
