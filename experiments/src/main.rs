//! The `backdoor` command.
fn main() {}
