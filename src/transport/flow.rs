//! Bytes that wait to be sent, and the marks at which the protocol is paused and resumed.
//!
//! Pure: it holds and decides, the transport sends and calls. Rows FLOW-01 to FLOW-08: pause when the
//! size goes *above* the high mark, once; resume when a flush brings it *to* the low mark or below,
//! once; strict pairs.

use std::fmt;

/// The marks of a transport's write buffer, in bytes. Default: 64 KiB and a quarter of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// Above this many bytes the protocol is asked to pause.
    pub high: usize,
    /// At this many bytes or fewer it is told to resume.
    pub low: usize,
}

impl WriteLimits {
    /// The default high mark.
    pub const DEFAULT_HIGH: usize = 64 * 1024;

    /// A high mark, with the low mark at a quarter of it.
    pub const fn high(high: usize) -> Self {
        WriteLimits {
            high,
            low: high / 4,
        }
    }

    /// A low mark, with the high mark at four times of it.
    pub const fn low(low: usize) -> Self {
        WriteLimits {
            high: low.saturating_mul(4),
            low,
        }
    }
}

impl Default for WriteLimits {
    fn default() -> Self {
        WriteLimits::high(Self::DEFAULT_HIGH)
    }
}

/// The low mark was above the high mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLimits(pub WriteLimits);

impl fmt::Display for InvalidLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WriteLimits { high, low } = self.0;
        write!(
            f,
            "write limits: low ({low}) must not be above high ({high})"
        )
    }
}

impl std::error::Error for InvalidLimits {}

/// What the protocol has to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) enum FlowCall {
    #[default]
    None,
    Pause,
    Resume,
}

impl FlowCall {
    /// Both, where at most one of them says anything.
    pub(crate) fn or(self, other: FlowCall) -> FlowCall {
        if self == FlowCall::None { other } else { self }
    }
}

/// The marks of one transport, and on which side of them its protocol believes to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    limits: WriteLimits,
    is_paused: bool,
}

impl Flow {
    pub(crate) fn limits(&self) -> WriteLimits {
        self.limits
    }

    /// More was buffered: `size` bytes now.
    pub(crate) fn grown_to(&mut self, size: usize) -> FlowCall {
        if !self.is_paused && size > self.limits.high {
            self.is_paused = true;
            return FlowCall::Pause;
        }
        FlowCall::None
    }

    /// Some was sent: `size` bytes are left.
    pub(crate) fn shrunk_to(&mut self, size: usize) -> FlowCall {
        if self.is_paused && size <= self.limits.low {
            self.is_paused = false;
            return FlowCall::Resume;
        }
        FlowCall::None
    }

    /// Changing the marks may pause at once; it never resumes.
    pub(crate) fn set_limits(
        &mut self,
        limits: WriteLimits,
        size: usize,
    ) -> Result<FlowCall, InvalidLimits> {
        if limits.low > limits.high {
            return Err(InvalidLimits(limits));
        }
        self.limits = limits;
        Ok(self.grown_to(size))
    }
}

/// The write buffer of one transport. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    data: Vec<u8>,
    /// Bytes at the front of `data` that are sent already.
    sent: usize,
    flow: Flow,
}

impl WriteBuffer {
    pub(crate) fn pending(&self) -> &[u8] {
        &self.data[self.sent..]
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn limits(&self) -> WriteLimits {
        self.flow.limits()
    }

    pub(crate) fn push(&mut self, data: &[u8]) -> FlowCall {
        // Room that was sent is used again before the buffer grows; only if it is half of it, so that
        // each byte is moved once on average.
        let is_full = self.data.len() + data.len() > self.data.capacity();
        if is_full && self.sent >= self.len() {
            self.data.drain(..self.sent);
            self.sent = 0;
        }
        self.data.extend_from_slice(data);
        self.flow.grown_to(self.len())
    }

    /// The first `count` pending bytes have been sent.
    pub(crate) fn consume(&mut self, count: usize) -> FlowCall {
        debug_assert!(count <= self.len(), "no more was sent than there was");
        self.sent += count;
        if self.is_empty() {
            self.data = Vec::new();
            self.sent = 0;
        }
        self.flow.shrunk_to(self.len())
    }

    /// Throws everything away; the protocol hears nothing of it.
    pub(crate) fn clear(&mut self) {
        self.data = Vec::new();
        self.sent = 0;
    }

    /// See [`Flow::set_limits`].
    pub(crate) fn set_limits(&mut self, limits: WriteLimits) -> Result<FlowCall, InvalidLimits> {
        self.flow.set_limits(limits, self.len())
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::transport::flow::{FlowCall, InvalidLimits, WriteBuffer, WriteLimits};

    fn buffer(high: usize, low: usize) -> WriteBuffer {
        let mut buffer = WriteBuffer::default();
        let set = buffer.set_limits(WriteLimits { high, low });
        assert_eq!(set, Ok(FlowCall::None));
        buffer
    }

    #[test]
    fn flow_02_pauses_above_the_high_mark_and_not_at_it() {
        let mut buffer = buffer(10, 2);
        assert_eq!(buffer.push(&[0; 10]), FlowCall::None);
        assert_eq!(buffer.push(&[0; 1]), FlowCall::Pause);
        assert_eq!(buffer.push(&[0; 1]), FlowCall::None);
    }

    #[test]
    fn flow_03_resumes_at_the_low_mark_once() {
        let mut buffer = buffer(10, 2);
        assert_eq!(buffer.push(&[0; 12]), FlowCall::Pause);
        assert_eq!(buffer.consume(9), FlowCall::None);
        assert_eq!(buffer.consume(1), FlowCall::Resume);
        assert_eq!(buffer.consume(1), FlowCall::None);
    }

    #[test]
    fn flow_05_raising_the_mark_does_not_resume() {
        let mut buffer = buffer(4, 1);
        assert_eq!(buffer.push(&[0; 5]), FlowCall::Pause);
        assert_eq!(
            buffer.set_limits(WriteLimits::high(100)),
            Ok(FlowCall::None)
        );
        assert_eq!(buffer.consume(4), FlowCall::Resume);
    }

    #[test]
    fn flow_05_lowering_the_mark_pauses_at_once() {
        let mut buffer = buffer(10, 2);
        assert_eq!(buffer.push(&[0; 5]), FlowCall::None);
        assert_eq!(buffer.set_limits(WriteLimits::high(4)), Ok(FlowCall::Pause));
    }

    #[test]
    fn flow_01_low_above_high_is_refused() {
        let limits = WriteLimits { high: 1, low: 2 };
        let refused = WriteBuffer::default().set_limits(limits);
        assert_eq!(refused, Err(InvalidLimits(limits)));
        assert_eq!(WriteLimits::low(5).high, 20);
        assert_eq!(WriteLimits::high(0).low, 0);
    }

    #[test]
    fn bytes_come_out_in_the_order_they_went_in_and_memory_is_given_back() {
        let mut buffer = WriteBuffer::default();
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for round in 0..100_u8 {
            let piece = vec![round; 1000];
            expected.extend_from_slice(&piece);
            assert_eq!(buffer.push(&piece), FlowCall::None);
            got.extend_from_slice(&buffer.pending()[..900]);
            assert_eq!(buffer.consume(900), FlowCall::None);
        }
        got.extend_from_slice(buffer.pending());
        assert_eq!(buffer.consume(buffer.len()), FlowCall::None);
        assert_eq!(got, expected);
        assert_eq!(buffer.data.capacity(), 0);
    }
}
