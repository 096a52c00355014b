//! The `annals` binary: parse, run the verb, end with its exit code.

use annals_core::system;
use annals_server::{cli, tls};
use std::process::ExitCode;

fn main() -> ExitCode {
    system::share_allocator_arenas();
    tls::install();
    cli::main(std::env::args_os())
}
