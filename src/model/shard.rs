//! Which partition an account belongs to. Daemons lease partitions, so this must be the same everywhere and for ever.
//!
//! Next: `store/leases.rs`.

use sha2::{Digest, Sha256};

use super::name::Account;

/// Partitions of a provider. A constant of the database: more would send the accounts elsewhere.
pub const SHARDS: u16 = 64;

/// Partition of an account, `0..SHARDS`.
pub fn shard_of(account: &Account) -> u16 {
    let hash: [u8; 32] = Sha256::digest(account.as_str().as_bytes()).into();
    let head = u64::from_be_bytes(hash[..8].try_into().expect("8 of 32 bytes"));
    (head % u64::from(SHARDS)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_keeps_its_partition_and_accounts_spread_evenly() {
        let shard = |s: &str| shard_of(&Account::new(s).unwrap());
        assert_eq!([shard(""), shard("acct-7"), shard("Z\u{fc}rich")], ON_RECORD);
        let mut filled = [0u32; SHARDS as usize];
        for n in 0..64_000 {
            filled[usize::from(shard(&format!("acct-{n}")))] += 1;
        }
        assert!(filled.iter().all(|n| (800..1_200).contains(n)), "{filled:?}");
    }

    const ON_RECORD: [u16; 3] = [20, 5, 53];
}
