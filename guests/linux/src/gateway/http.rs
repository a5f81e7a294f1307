//! HTTP/1.1 (RFC 9110, RFC 9112), as far as a gateway that only shows needs it: GET and HEAD, a connection each.

use std::fmt;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The path as it was sent. No path of ours needs `%`.
    pub(super) path: String,
    /// What follows the question mark.
    pub(super) query: Option<String>,
    /// Only the response's head is wanted.
    pub(super) is_head: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no request.
    Malformed(&'static str),
    /// It wants more than to be shown something.
    Method,
    /// It brings a body, which nobody here wants.
    HasBody,
    /// It took too long to come.
    Slow,
    /// Its head is too long.
    TooLong,
    /// It is of another protocol's version.
    Version,
    /// There are too many connections.
    Crowded,
}

impl Refusal {
    /// The status code (RFC 9110, 15; RFC 6585, 5).
    const fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Method => 405,
            Self::Slow => 408,
            Self::HasBody => 413,
            Self::TooLong => 431,
            Self::Crowded => 503,
            Self::Version => 505,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(reason) => reason,
            Self::Method => "Only GET and HEAD are served.",
            Self::HasBody => "Requests here have no body.",
            Self::Slow => "The request did not come in time.",
            Self::TooLong => "The request's head is too long.",
            Self::Version => "HTTP/1.0 and 1.1 are spoken here.",
            Self::Crowded => "There are too many connections.",
        })
    }
}

/// Where a request's head ends, with the empty line; none where more must come. Lines end with or without a carriage
/// return (RFC 9112, 2.2).
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            let line = &bytes[start..at];
            // Empty lines before the request are let pass.
            let is_empty = matches!(line, [] | [b'\r']);
            if is_empty && !bytes[..start].iter().all(|byte| b"\r\n".contains(byte)) {
                return Some(at + 1);
            }
            start = at + 1;
        }
    }
    None
}

/// Reads a request's head.
///
/// # Errors
///
/// Where it is none that is served here.
pub(super) fn parse(head: &[u8]) -> Result<Request, Refusal> {
    const MALFORMED: Refusal = Refusal::Malformed("That is no HTTP request.");
    // Nothing that is read here may hold other bytes.
    let text = str::from_utf8(head).map_err(|_| MALFORMED)?;
    let mut lines = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .skip_while(|line| line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(MALFORMED);
    };
    match version {
        "HTTP/1.1" | "HTTP/1.0" => {}
        _ if version.starts_with("HTTP/") => return Err(Refusal::Version),
        _ => return Err(MALFORMED),
    }
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(MALFORMED);
    }
    let mut hosts = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line
            .split_once(':')
            .ok_or(Refusal::Malformed("A header has no colon."))?;
        if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return Err(Refusal::Malformed("A header has no right name."));
        }
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => return Err(Refusal::HasBody),
            "content-length" if value.trim() != "0" => return Err(Refusal::HasBody),
            "host" => hosts += 1,
            _ => {}
        }
    }
    // RFC 9112, 3.2.
    if hosts > 1 || (hosts == 0 && version == "HTTP/1.1") {
        return Err(Refusal::Malformed("One host must be named."));
    }
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refusal::Method),
    };
    // Of the forms of a target only that with a path is for servers (RFC 9112, 3.2.1).
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(MALFORMED);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    Ok(Request {
        path: path.to_owned(),
        query,
        is_head,
    })
}

/// What a response carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// This.
    Bytes(Vec<u8>),
    /// A blob of this size.
    Blob(u64),
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    status: u16,
    kind: &'static str,
    pub(super) body: Body,
}

impl Response {
    /// A good one.
    pub(super) const fn new(kind: &'static str, body: Body) -> Self {
        Self {
            status: 200,
            kind,
            body,
        }
    }

    pub(super) fn text(text: &str) -> Self {
        let body = Body::Bytes(text.as_bytes().to_vec());
        Self::new("text/plain; charset=utf-8", body)
    }

    pub(super) fn html(text: String) -> Self {
        Self::new("text/html; charset=utf-8", Body::Bytes(text.into_bytes()))
    }

    pub(super) fn json(text: String) -> Self {
        Self::new("application/json", Body::Bytes(text.into_bytes()))
    }

    pub(super) const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The status line and the headers, with the empty line.
    pub(super) fn head(&self) -> String {
        let Self { status, kind, body } = self;
        let length = match body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Blob(size) => *size,
        };
        let allow = if *status == 405 {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\n{allow}Connection: close\r\n\r\n",
            reason(*status)
        )
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        Self::text(&format!("{refusal}\n")).with_status(refusal.status())
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Request, Refusal> {
        parse(text.as_bytes())
    }

    #[test]
    fn requests_are_read() {
        let request = |path: &str, query: Option<&str>, is_head| {
            Ok(Request {
                path: path.to_owned(),
                query: query.map(str::to_owned),
                is_head,
            })
        };
        for (text, expected) in [
            ("GET / HTTP/1.0\n\n", request("/", None, false)),
            (
                "\r\nHEAD /?number=101 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                request("/", Some("number=101"), true),
            ),
            (
                "GET /a?b?c HTTP/1.0\r\n\r\n",
                request("/a", Some("b?c"), false),
            ),
        ] {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_with_the_right_status() {
        for (text, status) in [
            ("\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET  / HTTP/1.0\r\n\r\n", 400),
            ("get / HTTP/1.0\r\n\r\n", 400),
            ("GET x HTTP/1.0\r\n\r\n", 400),
            ("GET /\u{e9} HTTP/1.0\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nno colon\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost : a\r\n\r\n", 400),
            ("POST / HTTP/1.0\r\n\r\n", 405),
            ("POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\n", 413),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
            ("GET / HTTP/2\r\n\r\n", 505),
        ] {
            let refusal = parsed(text).unwrap_err();
            assert_eq!(refusal.status(), status, "{text:?}");
            let head = Response::from(refusal).head();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!(head.contains("Allow: "), status == 405);
        }
    }

    #[test]
    fn heads_end_with_an_empty_line() {
        for (text, end) in [
            ("GET / HTTP/1.0\r\n\r\nrest", Some(18)),
            ("GET / HTTP/1.0\n\nrest", Some(16)),
            ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", Some(22)),
            ("GET / HTTP/1.0\r\nHost: x\r\n", None),
            ("", None),
            ("\n\n\n", None),
        ] {
            assert_eq!(end_of_head(text.as_bytes()), end, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            if let Some(end) = end_of_head(&bytes) {
                prop_assert!(end <= bytes.len() && bytes[end - 1] == b'\n');
            }
        }

        /// Texts that look much like requests.
        #[test]
        fn what_is_accepted_is_a_path_without_blanks(
            text in "(GET|HEAD|PUT)[ /?%a-z\r\n]{0,20} HTTP/1.[01]\r\n(Host: x|[a-z: ]{0,9})\r\n\r\n"
        ) {
            if let Ok(Request { path, query, .. }) = parsed(&text) {
                prop_assert!(path.starts_with('/') && !path.contains([' ', '?', '\r', '\n']));
                prop_assert!(query.is_none_or(|query| !query.contains([' ', '\r', '\n'])));
            }
        }

        /// Where a head ends does not depend on how it comes.
        #[test]
        fn ends_are_found_once_they_are_there(bytes in "[a\r\n]{0,30}") {
            let bytes = bytes.as_bytes();
            let whole = end_of_head(bytes);
            for length in 0..bytes.len() {
                let expected = whole.filter(|end| *end <= length);
                prop_assert_eq!(end_of_head(&bytes[..length]), expected);
            }
        }
    }
}
