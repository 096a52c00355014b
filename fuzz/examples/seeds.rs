//! Lays the seeds of every target below a folder, for a fuzzer to start from:
//! `cargo run -p annals-fuzz --example seeds -- fuzz/libfuzzer/corpus`.

use annals_fuzz::TARGETS;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = std::env::args_os().nth(1).expect("a folder is named");
    for target in TARGETS {
        let folder = Path::new(&root).join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}
