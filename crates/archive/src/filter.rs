//! Split-block Bloom filters: whether a frame may hold a subject or an id, whether a run of the
//! index may hold a key.
//!
//! Bits and hashing are those of Apache Parquet's Bloom filter specification (XXH64 with seed 0,
//! 32-byte blocks of eight 32-bit words, little endian), without its header: the bytes are the
//! blocks. Any Parquet library can probe them. No bytes at all, or bytes that are no whole number
//! of blocks, say nothing: every value may be there.

use xxhash_rust::xxh64::xxh64;

/// Bytes of one block: eight 32-bit words.
const BLOCK_BYTES: usize = 32;
/// Bits per value. A split block at 9.7 bits has 1 % false positives when every block is equally
/// full; half a bit more pays for those that are not.
const BITS_PER_VALUE_TENTHS: usize = 105;
/// From the specification: one odd multiplier per word of a block.
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// A filter being filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    blocks: Vec<[u32; 8]>,
}

impl Filter {
    /// An empty filter with room for `values` distinct values at about 1 % false positives.
    pub fn with_capacity(values: usize) -> Self {
        let bits = values.saturating_mul(BITS_PER_VALUE_TENTHS).div_ceil(10);
        let blocks = bits.div_ceil(8 * BLOCK_BYTES).max(1);
        Self {
            blocks: vec![[0; 8]; blocks],
        }
    }

    /// Adds a value.
    pub fn insert(&mut self, value: &[u8]) {
        self.insert_hash(hash(value));
    }

    /// Adds a value by its [`hash`].
    #[inline]
    pub fn insert_hash(&mut self, hash: u64) {
        let at = block_index(hash, self.blocks.len());
        for (word, bit) in self.blocks[at].iter_mut().zip(mask(hash)) {
            *word |= bit;
        }
    }

    /// The blocks as stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.blocks.iter().flatten();
        words.flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// A stored filter, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct FilterRef<'a> {
    blocks: &'a [[u8; BLOCK_BYTES]],
}

impl<'a> FilterRef<'a> {
    /// Takes the bytes of [`Filter::to_bytes`].
    pub fn new(bytes: &'a [u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks();
        Self {
            blocks: if rest.is_empty() { blocks } else { &[] },
        }
    }

    /// Whether the value may have been added; `false` is certain.
    pub fn contains(&self, value: &[u8]) -> bool {
        self.contains_hash(hash(value))
    }

    /// Whether the value with this [`hash`] may have been added.
    #[inline]
    pub fn contains_hash(&self, hash: u64) -> bool {
        if self.blocks.is_empty() {
            return true;
        }
        let (words, _) = self.blocks[block_index(hash, self.blocks.len())].as_chunks();
        words
            .iter()
            .zip(mask(hash))
            .all(|(&word, bit)| u32::from_le_bytes(word) & bit != 0)
    }
}

/// The hash a filter knows a value by.
#[inline]
pub fn hash(value: &[u8]) -> u64 {
    xxh64(value, 0)
}

/// The upper half of the hash picks the block, by multiplication instead of division.
#[inline]
fn block_index(hash: u64, blocks: usize) -> usize {
    (((hash >> 32) * blocks as u64) >> 32) as usize
}

/// The lower half picks one bit in each word.
#[inline]
fn mask(hash: u64) -> [u32; 8] {
    SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_and_little_else() {
        for values in [0usize, 1, 100, 20_000] {
            let mut filter = Filter::with_capacity(values);
            for i in 0..values {
                filter.insert(format!("in-{i}").as_bytes());
            }
            let bytes = filter.to_bytes();
            let stored = FilterRef::new(&bytes);
            for i in 0..values {
                assert!(stored.contains(format!("in-{i}").as_bytes()), "{i}");
            }
            let wrong = (0..20_000)
                .filter(|i| stored.contains(format!("out-{i}").as_bytes()))
                .count();
            assert!(wrong < 260, "{wrong} of 20,000 with {values} values");
        }
    }

    #[test]
    fn the_bits_are_those_of_the_parquet_specification() {
        // XXH64("") = ef46db3751d8e999: in one block, word i has bit (51d8e999 * salt[i]) >> 27.
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        let mut filter = Filter::with_capacity(1);
        filter.insert(b"");
        let bits: Vec<u32> = filter.blocks[0]
            .iter()
            .map(|w| w.trailing_zeros())
            .collect();
        let expected: Vec<u32> = SALT
            .iter()
            .map(|&salt| ((0x51d8_e999_u64 * u64::from(salt)) as u32) >> 27)
            .collect();
        assert_eq!(bits, expected);
        assert!(filter.blocks[0].iter().all(|w| w.count_ones() == 1));
    }

    #[test]
    fn no_filter_and_a_damaged_one_exclude_nothing() {
        assert!(FilterRef::new(&[]).contains(b"x"));
        assert!(FilterRef::new(&[0; 31]).contains(b"x"));
        assert!(!FilterRef::new(&[0; 32]).contains(b"x"));
    }
}
