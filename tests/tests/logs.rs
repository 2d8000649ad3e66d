//! Logs in files that change under a reader that is killed.

use std::process::Command;

#[test]
fn every_line_is_in_the_store_once_whatever_becomes_of_files_and_reader() {
    let torture =
        Command::new(env!("CARGO_BIN_EXE_log-torture")).args(["2", "3", "2"]).output().expect("the program");
    let said = String::from_utf8_lossy(&torture.stdout);
    println!("{said}");
    assert!(torture.status.success(), "{said}{}", String::from_utf8_lossy(&torture.stderr));
}
