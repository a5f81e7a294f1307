//! Requests and answers of HTTP/1.1 (RFC 9112), as far as a station needs them that only shows something.

use alloc::format;
use alloc::vec::Vec;

use crate::{Body, Content, Page};

/// The longest request, with its fields.
pub(crate) const REQUEST_MAX: usize = 2048;

/// What people see who come without knowing where to.
const INDEX: &str = "Understudy\n\n/metrics       for Prometheus\n/status        as JSON\n/capture.pcap  captured frames, for \
                     Wireshark\n";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The body is not wanted.
    head_only: bool,
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Index,
    Page(Page),
    Unknown,
    /// Something is to be done that cannot be done here.
    Method,
    Malformed,
    TooLong,
}

impl Request {
    /// Reads what has come of a request; `None` if that is not all.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let plain = |target| {
            Some(Self {
                head_only: false,
                target,
            })
        };
        let end = |mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
        // Lines may end with the line feed alone (RFC 9112, 2.2).
        if !end(b"\r\n\r\n") && !end(b"\n\n") {
            return if bytes.len() >= REQUEST_MAX {
                plain(Target::TooLong)
            } else {
                None
            };
        }
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Ok(line) = core::str::from_utf8(line) else {
            return plain(Target::Malformed);
        };
        let words: Vec<&str> = line.split(' ').collect();
        let [method, path, version] = words[..] else {
            return plain(Target::Malformed);
        };
        if !version.starts_with("HTTP/1.") {
            return plain(Target::Malformed);
        }
        let head_only = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return plain(Target::Method),
        };
        let path = path.split('?').next().unwrap_or(path);
        let target = match path {
            "/" => Target::Index,
            "/metrics" => Target::Page(Page::Metrics),
            "/status" => Target::Page(Page::Status),
            "/capture.pcap" => Target::Page(Page::Capture),
            _ => Target::Unknown,
        };
        Some(Self { head_only, target })
    }

    /// The whole answer, whose body may take `room` bytes.
    pub(crate) fn answer(&self, room: usize, content: &impl Content) -> Body {
        const TEXT: &str = "text/plain; charset=utf-8";
        let mut body = Body::new(room);
        let (mut status, mut kind) = match self.target {
            Target::Index => ("200 OK", TEXT),
            Target::Page(page) => {
                let kind = match page {
                    Page::Metrics => "text/plain; version=0.0.4; charset=utf-8",
                    Page::Status => "application/json",
                    Page::Capture => "application/vnd.tcpdump.pcap",
                };
                ("200 OK", kind)
            }
            Target::Unknown => ("404 Not Found", TEXT),
            Target::Method => ("405 Method Not Allowed", TEXT),
            Target::Malformed => ("400 Bad Request", TEXT),
            Target::TooLong => ("431 Request Header Fields Too Large", TEXT),
        };
        let mut field = "";
        match self.target {
            Target::Index => body.push(INDEX.as_bytes()),
            Target::Page(page) => content.write(page, &mut body),
            Target::Method => field = "Allow: GET, HEAD\r\n",
            Target::Unknown | Target::Malformed | Target::TooLong => {}
        }
        if !body.is_whole() {
            (status, kind) = ("503 Service Unavailable", TEXT);
            field = "Retry-After: 5\r\n";
        }
        let explanation = if status == "200 OK" { "" } else { status };
        let end = if explanation.is_empty() { "" } else { "\n" };
        let length = body.len() + explanation.len() + end.len();
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{field}Cache-Control: no-store\r\n\
             Connection: close\r\n\r\n"
        );
        if self.head_only {
            body = Body::new(0);
        } else {
            head += explanation;
            head += end;
        }
        body.begin_with(head.into_bytes());
        body
    }
}
