//! The hash that spreads keys over partitions. It is part of the data: it may never change.

/// FNV-1a of 64 bits with a finalizer, so that all bits depend on all bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The finalizer of MurmurHash3.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The one of `count` partitions that `bytes` belong to.
pub(crate) fn partition(bytes: &[u8], count: u32) -> i32 {
    i32::try_from(hash(bytes) % u64::from(count.max(1))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_where_they_are() {
        // What is stored under these numbers is found by them: a change here loses the order of keys in flight.
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        let places: Vec<i32> = ["a", "b", "order-7", "ключ"].iter().map(|key| partition(key.as_bytes(), 16)).collect();
        assert_eq!(places, [11, 0, 10, 5]);
    }

    #[test]
    fn keys_spread_evenly() {
        let mut counts = [0_u32; 16];
        for key in 0..16_000 {
            counts[usize::try_from(partition(format!("order-{key}").as_bytes(), 16)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
