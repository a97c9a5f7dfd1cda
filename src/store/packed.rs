//! Job numbers of a call in few bytes: differences as zigzag LEB128, about a byte a job in a batch. And its spends.

use crate::model::call::LimitKey;

/// Must stay readable for ever: it is in the journal.
pub(super) fn pack(seqs: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(seqs.len() + 8);
    let mut last = 0i64;
    for &seq in seqs {
        let step = seq.wrapping_sub(last);
        last = seq;
        let mut rest = ((step << 1) ^ (step >> 63)) as u64;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    bytes
}

/// `None` when the bytes end within a number.
pub(super) fn unpack(bytes: &[u8]) -> Option<Vec<i64>> {
    let (mut seqs, mut last, mut value, mut shift) = (Vec::new(), 0i64, 0u64, 0u32);
    for &byte in bytes {
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte < 0x80 {
            last = last.wrapping_add(((value >> 1) as i64) ^ -((value & 1) as i64));
            seqs.push(last);
            (value, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(seqs)
}

/// Spends as they stand in the journal; `None` where there are none.
pub(super) fn spends(spends: &[(LimitKey, u32)]) -> Option<String> {
    let pairs: Vec<(&str, u32)> = spends.iter().map(|(key, cost)| (&*key.0, *cost)).collect();
    (!pairs.is_empty()).then(|| serde_json::to_string(&pairs).expect("texts and numbers are JSON"))
}

/// For `unhex()` in SQL, which has no lists of bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_survive_packing(seqs in proptest::collection::vec(any::<i64>(), 0..50)) {
            prop_assert_eq!(unpack(&pack(&seqs)), Some(seqs));
        }

        #[test]
        fn any_bytes_are_numbers_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            unpack(&bytes);
        }
    }

    #[test]
    fn a_batch_of_a_thousand_takes_about_a_kilobyte() {
        let seqs: Vec<i64> = (5_000_000..5_001_000).collect();
        assert!(pack(&seqs).len() < 1_010);
    }
}
