//! Which partition a job's account belongs to, and which part of the account a key belongs to. Daemons lease partitions,
//! so this must be the same everywhere and for ever.
//!
//! An account is one part as a rule; a provider that says `spread = n` has accounts of n parts, each in a partition of its
//! own. The parts of an account lie as far from each other as they can: daemons hold neighbours, and each shall have some.
//! Next: `store/leases.rs`.

use sha2::{Digest, Sha256};

use super::name::{Account, Key};

/// Partitions of a provider. A constant of the database: more would send the accounts elsewhere.
pub const SHARDS: u16 = 64;
/// Parts of an account: with more, two of them would share a partition.
pub const SPREAD_MAX: u16 = SHARDS;

/// A partition and the fence under which it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    pub shard: u16,
    pub fence: i64,
}

impl Hold {
    /// Of a store that one process owns: one partition, never fenced.
    pub const ALONE: Hold = Hold { shard: 0, fence: 0 };
    /// No partition has this fence: begins nothing, in any store.
    pub const NONE: Hold = Hold { shard: 0, fence: -1 };
}

/// Partition of a part of an account, `0..SHARDS`.
pub fn shard_of(account: &Account, part: u16) -> u16 {
    // The bits of the part in reverse (van der Corput): the first n of them cut the ring of partitions into n pieces, as
    // even as can be, for every n.
    let step = (part % SHARDS).reverse_bits() >> (u16::BITS - SHARDS.trailing_zeros());
    ((head(account.as_str()) % u64::from(SHARDS)) as u16 + step) % SHARDS
}

/// Part of a key in an account that is spread over `spread` parts, `0..spread`.
pub fn part_of(key: &Key, spread: u16) -> u16 {
    if spread <= 1 { 0 } else { (head(key.as_str()) % u64::from(spread)) as u16 }
}

fn head(text: &str) -> u64 {
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    u64::from_be_bytes(hash[..8].try_into().expect("8 of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(s: &str) -> Account {
        Account::new(s).unwrap()
    }

    #[test]
    fn an_account_keeps_its_partition_and_accounts_spread_evenly() {
        let shard = |s: &str| shard_of(&account(s), 0);
        assert_eq!([shard(""), shard("acct-7"), shard("Z\u{fc}rich")], ON_RECORD);
        let mut filled = [0u32; SHARDS as usize];
        for n in 0..64_000 {
            filled[usize::from(shard(&format!("acct-{n}")))] += 1;
        }
        assert!(filled.iter().all(|n| (800..1_200).contains(n)), "{filled:?}");
    }

    #[test]
    fn parts_of_an_account_have_partitions_of_their_own_evenly_apart() {
        let all = |spread: u16| {
            let mut shards: Vec<u16> = (0..spread).map(|part| shard_of(&account("acct-7"), part)).collect();
            shards.sort_unstable();
            shards.dedup();
            shards
        };
        assert_eq!([0, 1, 2, 3, 63].map(|part| shard_of(&account("acct-7"), part)), [5, 37, 21, 53, 4]);
        for spread in 1..=SPREAD_MAX {
            let shards = all(spread);
            assert_eq!(shards.len(), usize::from(spread), "two parts of {spread} share a partition");
            // Whoever holds a third of the ring in one piece has some of four parts and more.
            let next = shards.iter().cycle().skip(1);
            let gaps = shards.iter().zip(next).map(|(a, b)| (b + SHARDS - a - 1) % SHARDS + 1);
            let widest = gaps.max().unwrap_or_default();
            assert!(widest <= SHARDS >> spread.ilog2(), "{spread}: {widest}");
        }
    }

    #[test]
    fn a_key_keeps_its_part_and_keys_spread_evenly() {
        let part = |n: u32, spread| part_of(&Key::new(format!("k{n}")).unwrap(), spread);
        assert_eq!([part(1, 16), part(2, 16), part(3, 16)], PARTS_ON_RECORD);
        assert!((0..100).all(|n| part(n, 1) == 0 && part(n, 3) < 3));
        let mut filled = [0u32; 16];
        (0..16_000).for_each(|n| filled[usize::from(part(n, 16))] += 1);
        assert!(filled.iter().all(|n| (800..1_200).contains(n)), "{filled:?}");
    }

    const ON_RECORD: [u16; 3] = [20, 5, 53];
    const PARTS_ON_RECORD: [u16; 3] = [8, 8, 10];
}
