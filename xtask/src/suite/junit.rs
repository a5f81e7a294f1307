//! The results as a JUnit XML document, which build servers read.

use super::report::{Row, Verdict};
use std::fmt::Write as _;

/// Writes the document.
pub(super) fn document(rows: &[Row]) -> String {
    let failures = rows
        .iter()
        .filter(|row| matches!(row.verdict, Verdict::Failed(_)))
        .count();
    let time: f64 = rows.iter().map(|row| row.time.as_secs_f64()).sum();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuite name=\"understudy\" tests=\"{}\" failures=\"{failures}\" \
         skipped=\"0\" time=\"{time:.3}\">\n",
        rows.len()
    );
    for row in rows {
        let _ = write!(
            text,
            "  <testcase classname=\"understudy\" name=\"{}\" time=\"{:.3}\"",
            escape(&row.name),
            row.time.as_secs_f64()
        );
        let _ = match &row.verdict {
            Verdict::Passed => writeln!(text, "/>"),
            Verdict::Failed(reason) => writeln!(
                text,
                ">\n    <failure message=\"{}\">{}</failure>\n  </testcase>",
                escape(reason.lines().next().unwrap_or_default()),
                escape(reason)
            ),
        };
    }
    text + "</testsuite>\n"
}

/// Replaces what XML reserves, and drops control characters, which it forbids.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_document_is_complete_and_escaped() {
        let row = |name: &str, verdict| Row::new(name, Duration::from_millis(1500), verdict);
        let text = document(&[
            row("good", Verdict::Passed),
            row("bad", Verdict::Failed("a < \"b\" & \x0fc\nmore".into())),
        ]);
        assert!(text.contains("tests=\"2\" failures=\"1\" skipped=\"0\" time=\"3.000\""));
        assert!(text.contains("name=\"good\" time=\"1.500\"/>"));
        assert!(text.contains("message=\"a &lt; &quot;b&quot; &amp; \u{fffd}c\""));
        assert!(text.ends_with("</testsuite>\n"));
    }
}
