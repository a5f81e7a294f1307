//! Editing one line of console input.

/// Longest line.
pub const LONGEST: usize = 120;

/// What a byte of input does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// Nothing to show.
    Nothing,
    /// Show this byte.
    Echo(u8),
    /// Take the last so many characters off the screen.
    Erase(usize),
    /// The line was dropped: begin a new one.
    Dropped,
    /// The line is complete.
    Line,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Escape {
    No,
    /// After ESC.
    Begun,
    /// After ESC and a bracket, up to a letter.
    Within,
}

/// The line being typed.
#[derive(Clone, Debug)]
pub struct Editor {
    text: [u8; LONGEST],
    length: usize,
    complete: bool,
    after_return: bool,
    escape: Escape,
}

impl Editor {
    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: [0; LONGEST],
            length: 0,
            complete: false,
            after_return: false,
            escape: Escape::No,
        }
    }

    /// The line so far, or the complete one until the next key.
    #[must_use]
    pub fn text(&self) -> &str {
        // Only printable ASCII is taken.
        core::str::from_utf8(&self.text[..self.length]).unwrap_or("")
    }

    /// Takes a byte.
    pub fn key(&mut self, byte: u8) -> Key {
        if self.complete {
            self.complete = false;
            self.length = 0;
        }
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => {
                self.escape = Escape::Within;
                return Key::Nothing;
            }
            (Escape::Begun, _) => {
                self.escape = Escape::No;
                return Key::Nothing;
            }
            (Escape::Within, _) => {
                if byte.is_ascii_alphabetic() || byte == b'~' {
                    self.escape = Escape::No;
                }
                return Key::Nothing;
            }
            (Escape::No, _) => {}
        }
        match byte {
            b'\n' if after_return => Key::Nothing,
            b'\r' | b'\n' => {
                self.complete = true;
                Key::Line
            }
            0x1b => {
                self.escape = Escape::Begun;
                Key::Nothing
            }
            0x08 | 0x7f => self.erase(1),
            // Control-U, control-W, control-C.
            0x15 => self.erase(self.length),
            0x17 => self.erase(self.last_word()),
            0x03 => {
                self.length = 0;
                Key::Dropped
            }
            b' '..=b'~' if self.length < LONGEST => {
                self.text[self.length] = byte;
                self.length += 1;
                Key::Echo(byte)
            }
            b' '..=b'~' => Key::Echo(0x07),
            _ => Key::Nothing,
        }
    }

    fn erase(&mut self, count: usize) -> Key {
        let count = count.min(self.length);
        self.length -= count;
        if count == 0 {
            Key::Nothing
        } else {
            Key::Erase(count)
        }
    }

    fn last_word(&self) -> usize {
        let kept = self
            .text()
            .trim_end_matches(' ')
            .trim_end_matches(|letter| letter != ' ');
        self.length - kept.len()
    }
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Editor, Key, LONGEST};

    fn lines(input: &[u8]) -> Vec<String> {
        let mut editor = Editor::new();
        let mut lines = Vec::new();
        for &byte in input {
            if editor.key(byte) == Key::Line {
                lines.push(editor.text().to_owned());
            }
        }
        lines
    }

    #[test]
    fn editing() {
        assert_eq!(lines(b"help\r\nuptime\n\r"), ["help", "uptime", ""]);
        assert_eq!(lines(b"hex\x7flp\r"), ["help"]);
        assert_eq!(lines(b"\x08\x08call 1 22\x17333\r"), ["call 1 333"]);
        assert_eq!(lines(b"wrong\x15right\rlost\x03kept\r"), ["right", "kept"]);
        assert_eq!(lines(b"a\x1b[A\x1b[1;5Cb\x1bOP\x1b[3~c\r"), ["abc"]);
        assert_eq!(lines(b"\xff\x00\x01x\r"), ["x"]);
    }

    #[test]
    fn a_full_line_takes_no_more() {
        let mut input = [b'x'; LONGEST + 10].to_vec();
        input.push(b'\r');
        assert_eq!(lines(&input), ["x".repeat(LONGEST)]);
    }

    proptest! {
        /// The screen always shows the line.
        #[test]
        fn the_screen_shows_the_line(input in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut editor, mut screen) = (Editor::new(), String::new());
            for byte in input {
                match editor.key(byte) {
                    Key::Nothing | Key::Echo(0x07) => {}
                    Key::Echo(byte) => screen.push(char::from(byte)),
                    Key::Erase(count) => screen.truncate(screen.len() - count),
                    Key::Dropped => screen.clear(),
                    Key::Line => {
                        prop_assert_eq!(&screen, editor.text());
                        screen.clear();
                        continue;
                    }
                }
                if !editor.complete {
                    prop_assert_eq!(&screen, editor.text());
                }
            }
        }
    }
}
