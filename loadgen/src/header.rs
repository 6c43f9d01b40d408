//! The first bytes of every datagram: which of all datagrams it is.
//!
//! Little endian: 8 bytes run epoch, 8 bytes sequence, 4 bytes sender, 4 bytes check over the
//! others. The check tells a datagram whose number was damaged from another number: without it a
//! flipped bit would be charged to the wrong datagram.

/// Bytes of a header, and so the smallest datagram.
pub(crate) const HEADER_BYTES: usize = 24;

/// Names one datagram of all that were ever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The run: datagrams of an earlier one on the same ports are told apart by it.
    pub(crate) epoch: u64,
    /// Counts the datagrams of one sender from 0.
    pub(crate) sequence: u64,
    pub(crate) sender: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.sender.to_le_bytes());
        bytes[20..].copy_from_slice(&self.check().to_le_bytes());
        bytes
    }

    /// Reads the header of a datagram; none when it is too short or damaged.
    pub(crate) fn decode(datagram: &[u8]) -> Option<Header> {
        let (epoch, rest) = datagram.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (check, _) = rest.split_first_chunk()?;
        let header = Header {
            epoch: u64::from_le_bytes(*epoch),
            sequence: u64::from_le_bytes(*sequence),
            sender: u32::from_le_bytes(*sender),
        };
        (header.check() == u32::from_le_bytes(*check)).then_some(header)
    }

    /// Any single flipped bit changes it: each factor is odd, so each step is one to one.
    fn check(&self) -> u32 {
        let words = [self.epoch, self.sequence, u64::from(self.sender)];
        let mixed = words.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |sum, word| {
            let mixed = (sum ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 29)
        });
        (mixed ^ (mixed >> 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADER_BYTES, Header};

    const HEADER: Header = Header {
        epoch: 0x1122_3344_5566_7788,
        sequence: 1 << 40,
        sender: 77,
    };

    #[test]
    fn header_is_read_back_whatever_follows_it() {
        let mut datagram = HEADER.encode().to_vec();
        assert_eq!(Header::decode(&datagram), Some(HEADER));
        datagram.extend([1, 2, 3]);
        assert_eq!(Header::decode(&datagram), Some(HEADER));
    }

    #[test]
    fn damaged_or_short_header_is_none() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), None, "bit {bit}");
        }
        for len in 0..HEADER_BYTES {
            assert_eq!(Header::decode(&HEADER.encode()[..len]), None, "{len} bytes");
        }
    }
}
