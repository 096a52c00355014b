//! The `annals` binary: parse, run the verb, end with its exit code.

use annals_server::{cli, tls};
use std::process::ExitCode;

fn main() -> ExitCode {
    tls::install();
    cli::main(std::env::args_os())
}
