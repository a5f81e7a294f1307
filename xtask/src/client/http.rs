//! Fetching by HTTP/1.1 (RFC 9112), as far as test clients need it.

use super::Client;
use anyhow::{Context, Result, bail, ensure};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The longest start of a response, up to its body.
const HEAD_MAX: usize = 16 << 10;
/// How much is read at once.
const PIECE: usize = 64 << 10;

/// The start of a response, and how long its body was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Names in small letters, and values.
    pub(crate) headers: Vec<(String, String)>,
    /// Bytes of the body.
    pub(crate) length: u64,
}

impl Response {
    /// The value of a header whose name is given in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known == name)?;
        Some(value)
    }
}

impl Client {
    /// Fetches a page; its body is handed over in pieces, of which none is kept. Each wait takes this long at most.
    ///
    /// # Errors
    ///
    /// Where the connection fails, or what comes is no response with a whole body.
    pub(crate) fn http_get(
        &self,
        from: Ipv4Addr,
        port: u16,
        path: &str,
        timeout: Duration,
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<Response> {
        let what = || format!("http://{from}:{port}{path}");
        let mut stream = self.connect(from, port, timeout).with_context(what)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {from}:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).with_context(what)?;
        read_response(&mut stream, body).with_context(what)
    }

    /// Fetches a page that is text, and its status.
    ///
    /// # Errors
    ///
    /// As [`Client::http_get`], or where it is no text.
    pub(crate) fn http_text(
        &self,
        from: Ipv4Addr,
        port: u16,
        path: &str,
        timeout: Duration,
    ) -> Result<(u16, String)> {
        let mut bytes = Vec::new();
        let mut keep = |piece: &[u8]| bytes.extend(piece);
        let response = self.http_get(from, port, path, timeout, &mut keep)?;
        let text = String::from_utf8(bytes).context("the page is no text")?;
        Ok((response.status, text))
    }
}

fn read_response(stream: &mut impl Read, body: &mut dyn FnMut(&[u8])) -> Result<Response> {
    let mut buffer = vec![0; PIECE];
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|part| part == b"\r\n\r\n") {
            break at + 4;
        }
        ensure!(head.len() <= HEAD_MAX, "the response's head has no end");
        match read(stream, &mut buffer)? {
            0 => bail!("the connection ended within the response's head"),
            length => head.extend(&buffer[..length]),
        }
    };
    let start = head.split_off(end);
    let mut response = parse_head(&head)?;
    ensure!(
        response.header("transfer-encoding").is_none(),
        "bodies in chunks are not read"
    );
    let whole: Option<u64> = match response.header("content-length") {
        Some(length) => Some(length.parse().context("the body's length is no number")?),
        None => None,
    };
    let mut take = |piece: &[u8], response: &mut Response| {
        response.length += piece.len() as u64;
        ensure!(
            whole.is_none_or(|whole| response.length <= whole),
            "more came than the body's length"
        );
        body(piece);
        Ok(())
    };
    take(&start, &mut response)?;
    while whole != Some(response.length) {
        match (read(stream, &mut buffer)?, whole) {
            (0, None) => break,
            (0, Some(whole)) => bail!(
                "the connection ended after {} of {whole} bytes",
                response.length
            ),
            (length, _) => take(&buffer[..length], &mut response)?,
        }
    }
    Ok(response)
}

fn read(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads the status line and the headers (RFC 9112, 4 and 5).
fn parse_head(head: &[u8]) -> Result<Response> {
    let text = str::from_utf8(head).context("the response's head is no text")?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .with_context(|| format!("\"{first}\" is no status line"))?;
    let headers = lines.take_while(|line| !line.is_empty()).map(|line| {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("\"{line}\" is no header"))?;
        Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Ok(Response {
        status,
        headers: headers.collect::<Result<_>>()?,
        length: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A stream that gives few bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn fetch(text: &[u8], piece: usize) -> Result<(Response, Vec<u8>)> {
        let mut body = Vec::new();
        let response = read_response(&mut Pieces(text, piece), &mut |part| body.extend(part))?;
        Ok((response, body))
    }

    #[test]
    fn a_response_is_read_however_it_comes() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Crc: 1f \r\n\r\nhello";
        for piece in [1, 2, 7, 1000] {
            let (response, body) = fetch(text, piece).unwrap();
            assert_eq!((response.status, response.length), (200, 5));
            assert_eq!(response.header("x-crc"), Some("1f"));
            assert_eq!(body, b"hello");
        }
        let (response, body) = fetch(b"HTTP/1.0 404 No\r\n\r\nto the end", 3).unwrap();
        assert_eq!((response.status, &body[..]), (404, &b"to the end"[..]));
    }

    #[test]
    fn what_is_no_whole_response_is_refused() {
        for (text, reason) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"[..],
                "after 4 of 5 bytes",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello",
                "more came",
            ),
            (b"HTTP/1.1 200 OK\r\n", "within the response's head"),
            (b"SSH-2.0\r\n\r\n", "is no status line"),
            (b"HTTP/1.1 200 OK\r\nx\r\n\r\n", "\"x\" is no header"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "chunks",
            ),
        ] {
            let error = format!("{:#}", fetch(text, 1000).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, piece in 1_usize..9) {
            let start = b"HTTP/1.1 200 OK\r\n".to_vec();
            let _ = fetch(&[start, bytes.clone()].concat(), piece);
            let _ = fetch(&bytes, piece);
        }
    }
}
