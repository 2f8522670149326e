//! The bytes between a controller and us: lines in, lines out.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;

/// The longest request, without its end.
pub(super) const MAX_LINE: usize = 1 << 20;
/// The longest reply, without its end: the figures of all viewers are one.
pub(super) const MAX_REPLY: usize = (16 << 20) - 1;
/// What a controller may leave unread.
pub(super) const MAX_UNREAD: usize = 24 << 20;
/// Taken from the socket at once.
const PIECE: usize = 64 << 10;

/// What reading led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There may be more.
    More,
    /// Nothing more for now.
    Idle,
    /// The controller is gone.
    Ended,
}

/// A line is longer than [`MAX_LINE`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Splits what arrives into lines.
#[derive(Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Where the line that is not complete begins.
    start: usize,
    /// Up to where `bytes` was searched for a line's end.
    searched: usize,
}

impl Input {
    /// Take one piece from a non-blocking socket.
    pub(super) fn fill(&mut self, socket: &mut impl Read) -> Turn {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let length = self.bytes.len();
        self.bytes.resize(length + PIECE, 0);
        let result = socket.read(&mut self.bytes[length..]);
        self.bytes.truncate(length + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Turn::Ended,
            Ok(_) => Turn::More,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => Turn::Idle,
                ErrorKind::Interrupted => Turn::More,
                _ => Turn::Ended,
            },
        }
    }

    /// The next complete line, without its end, by its place for [`Input::line`].
    pub(super) fn next_line(&mut self) -> Result<Option<Range<usize>>, TooLong> {
        let end = self.bytes[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n');
        let line = self.start..self.searched + end.unwrap_or(self.bytes.len() - self.searched);
        if line.len() > MAX_LINE {
            return Err(TooLong);
        }
        self.searched = line.end + usize::from(end.is_some());
        if end.is_none() {
            return Ok(None);
        }
        self.start = self.searched;
        Ok(Some(line))
    }

    /// The bytes of a line that [`Input::next_line`] found since the last [`Input::fill`].
    pub(super) fn line(&self, at: Range<usize>) -> &[u8] {
        &self.bytes[at]
    }
}

/// Lines that wait to be written.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// Append a line, which is without its end; false if more than [`MAX_UNREAD`] bytes wait.
    pub(super) fn push(&mut self, line: &str) -> bool {
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.push(b'\n');
        self.bytes.len() - self.written <= MAX_UNREAD
    }

    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Write what a non-blocking socket takes.
    ///
    /// # Errors
    /// The controller is gone.
    pub(super) fn drain(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            match socket.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // Moving the rest costs less than what was written before it.
        if self.written * 2 >= self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(input: &mut Input) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut lines = Vec::new();
        while let Some(line) = input.next_line()? {
            lines.push(input.line(line).to_vec());
        }
        Ok(lines)
    }

    #[test]
    fn a_line_of_the_limit_passes_and_a_longer_one_does_not() {
        for (length, complete) in [
            (MAX_LINE, true),
            (MAX_LINE + 1, true),
            (MAX_LINE + 1, false),
        ] {
            let mut bytes = vec![b'x'; length];
            bytes.extend(complete.then_some(b'\n'));
            let mut source = bytes.as_slice();
            let mut input = Input::default();
            let result = loop {
                if input.fill(&mut source) == Turn::Ended {
                    break Ok(0);
                }
                match lines(&mut input) {
                    Ok(lines) if lines.is_empty() => {}
                    Ok(lines) => break Ok(lines[0].len()),
                    Err(error) => break Err(error),
                }
            };
            assert_eq!(
                result,
                if length > MAX_LINE {
                    Err(TooLong)
                } else {
                    Ok(length)
                }
            );
        }
    }

    #[test]
    fn what_is_not_read_is_limited() {
        let mut output = Output::default();
        let line = "x".repeat(MAX_LINE - 1);
        for _ in 0..MAX_UNREAD / MAX_LINE {
            assert!(output.push(&line));
        }
        assert!(!output.push(&line));
    }

    proptest! {
        #[test]
        fn lines_come_out_as_they_went_in_whatever_the_pieces(
            sent in prop::collection::vec("[^\n]{0,40}", 0..20),
            pieces in prop::collection::vec(1..50_usize, 1..20),
        ) {
            let mut output = Output::default();
            for line in &sent {
                output.push(line);
            }
            let mut bytes = Vec::new();
            output.drain(&mut bytes).unwrap();
            prop_assert!(output.is_empty());
            let mut input = Input::default();
            let mut received = Vec::new();
            let mut rest = bytes.as_slice();
            for size in pieces.iter().cycle() {
                let (mut piece, after) = rest.split_at((*size).min(rest.len()));
                if piece.is_empty() {
                    break;
                }
                prop_assert_eq!(input.fill(&mut piece), Turn::More);
                received.extend(lines(&mut input).unwrap());
                rest = after;
            }
            let sent: Vec<_> = sent.iter().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(received, sent);
        }
    }
}
