//! The broker's log on a directory whose bytes were changed.

use annals_broker::log::fuzz::open_edited;

/// Edits looked at.
const BYTES_MAX: usize = 5 * 64;

/// Opens or is refused; no record comes back other than it was written; then the log goes on. The
/// input is a sequence of edits of five bytes each.
pub fn run(bytes: &[u8]) {
    open_edited(&bytes[..bytes.len().min(BYTES_MAX)]);
}

/// One edit of each kind, in different files.
pub fn seeds() -> Vec<Vec<u8>> {
    let edit = |file: u8, kind: u8, at: u16, value: u8| {
        let [low, high] = at.to_le_bytes();
        [file, kind, low, high, value]
    };
    let edits = [
        edit(0, 0, 100, 1),
        edit(1, 1, 2000, 0xff),
        edit(2, 2, 64, 200),
        edit(3, 3, 3000, 255),
        edit(1, 4, 0, 2),
        edit(2, 5, 0, 0),
    ];
    let mut seeds: Vec<Vec<u8>> = edits.iter().map(|edit| edit.to_vec()).collect();
    seeds.push(edits.concat());
    seeds
}
