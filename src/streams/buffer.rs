//! Bytes that were received and not read.
//!
//! Pure: it holds and searches; who waits for more is the reader's business.

use std::cmp::Reverse;

/// The buffer of one reader. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    data: Vec<u8>,
    /// Bytes at the front of `data` that were read already.
    start: usize,
}

impl ReadBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Puts `more` behind what is there, and leaves `more` empty.
    pub(crate) fn append(&mut self, more: &mut Vec<u8>) {
        if self.len() == 0 {
            self.data = std::mem::take(more);
            self.start = 0;
            return;
        }
        // Only if it is half of it, so that each byte is moved once on average.
        if self.start >= self.len() {
            self.data.drain(..self.start);
            self.start = 0;
        }
        self.data.append(more);
    }

    /// The first `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        if self.start == 0 && count == self.data.len() {
            return std::mem::take(&mut self.data);
        }
        let taken = self.bytes()[..count].to_vec();
        self.discard(count);
        taken
    }

    pub(crate) fn discard(&mut self, count: usize) {
        assert!(count <= self.len(), "no more is read than there is");
        self.start += count;
        if self.len() == 0 {
            *self = ReadBuffer::default();
        }
    }

    /// Begin and end of the separator that ends first, behind the first `searched` bytes; of two that
    /// end together, of the shorter one.
    pub(crate) fn find(&self, searched: usize, separators: &[&[u8]]) -> Option<(usize, usize)> {
        let data = &self.bytes()[searched..];
        let find = |separator: &&[u8]| {
            let begin = match *separator {
                [byte] => data.iter().position(|have| have == byte),
                longer => data.windows(longer.len()).position(|have| have == longer),
            };
            begin.map(|begin| (searched + begin, searched + begin + separator.len()))
        };
        let found = separators.iter().filter_map(find);
        found.min_by_key(|(begin, end)| (*end, Reverse(*begin)))
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::streams::buffer::ReadBuffer;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in_and_memory_is_given_back() {
        let mut buffer = ReadBuffer::default();
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for round in 0..100_u8 {
            let mut piece = vec![round; 1000];
            expected.extend_from_slice(&piece);
            buffer.append(&mut piece);
            assert!(piece.is_empty());
            got.append(&mut buffer.take(900));
        }
        assert!(
            buffer.data.len() <= 2 * buffer.len(),
            "what was read is given back"
        );
        got.append(&mut buffer.take(buffer.len()));
        assert_eq!(got, expected);
        assert_eq!(buffer.data.capacity(), 0);
    }

    #[test]
    fn strm_05_the_separator_that_ends_first_is_found() {
        let mut buffer = ReadBuffer::default();
        buffer.append(&mut b"..ab.abc\r\n".to_vec());
        assert_eq!(buffer.find(0, &[b"abc", b"b."]), Some((3, 5)));
        assert_eq!(buffer.find(4, &[b"abc", b"b."]), Some((5, 8)));
        assert_eq!(buffer.find(0, &[b"\r\n", b"\n"]), Some((9, 10)));
        assert_eq!(buffer.find(0, &[b"\r\n"]), Some((8, 10)));
        assert_eq!(buffer.find(0, &[b"?"]), None);
        assert_eq!(buffer.find(10, &[b"\n"]), None);
    }
}
