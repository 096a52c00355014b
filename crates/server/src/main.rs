//! The `annals` binary: parse, run the verb, end with its exit code.

use annals_server::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
