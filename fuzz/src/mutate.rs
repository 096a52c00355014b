//! Mutations without a fuzzer: a small generator of numbers, and what it does to a seed.

/// Pseudo-random numbers (SplitMix64): the same from the same seed, everywhere.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if `end` is.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }
}

/// Bytes that decoders trip over: ends of ranges, tags of Protobuf groups, quotes, brackets.
const INTERESTING: &[u8] = &[
    0, 1, 2, 7, 0x0a, 0x0b, 0x0c, 0x12, 0x1a, 0x22, 0x2a, 0x2b, 0x2c, 0x32, 0x3a, 0x42, 0x5b, 0x5c,
    0x7b, 0x7d, 0x7f, 0x80, 0xc3, 0xfe, 0xff,
];
/// Longest input made.
const BYTES_MAX: usize = 1 << 16;

/// A changed copy of one of the seeds: one to four small changes, among them pieces of, or all of,
/// another seed (which in Protobuf means a merge).
pub fn mutate(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut out = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(out.len() + 1);
        let length = numbers.below(17).min(out.len() - at);
        match numbers.below(10) {
            0 if at < out.len() => out[at] ^= 1 << numbers.below(8),
            1 if at < out.len() => out[at] = INTERESTING[numbers.below(INTERESTING.len())],
            2 if at < out.len() => out[at] = numbers.number() as u8,
            3 => drop(out.drain(at..at + length)),
            4 => out.truncate(at),
            5 => {
                let piece = out[at..at + length].to_vec();
                let to = numbers.below(out.len() + 1);
                out.splice(to..to, piece);
            }
            6 => {
                let new = (0..length + 1).map(|_| INTERESTING[numbers.below(INTERESTING.len())]);
                let new: Vec<u8> = new.collect();
                out.splice(at..at, new);
            }
            7 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len() + 1);
                let until = from + numbers.below(other.len() - from + 1);
                out.splice(at..at, other[from..until].iter().copied());
            }
            8 => out.extend_from_slice(&seeds[numbers.below(seeds.len())]),
            // A length or number field, far off.
            _ if at + 4 <= out.len() => {
                out[at..at + 4].copy_from_slice(&(numbers.number() as u32).to_be_bytes());
            }
            _ => {}
        }
        out.truncate(BYTES_MAX);
    }
    out
}
