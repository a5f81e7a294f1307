//! What is shown: the exchange as a page and as JSON.

use super::exchange::{Counts, Exchange, Unanswered};
use protocol::{Line, Meter, Number, Operation, Outcome, Reply, Request, Totals};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// Subscribers that are shown at most: the exchange is asked twice for each.
const SHOWN_MAX: usize = 32;

/// The subscribers that are shown: the exchange does not tell who is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Vec<Number>);

impl Known {
    /// Adds one; one that is there already is no mistake.
    ///
    /// # Errors
    ///
    /// Where there are too many.
    pub(super) fn add(&mut self, number: Number) -> Result<(), &'static str> {
        match self.0.binary_search(&number) {
            Ok(_) => Ok(()),
            Err(_) if self.0.len() == SHOWN_MAX => Err("No more subscribers can be shown."),
            Err(at) => {
                self.0.insert(at, number);
                Ok(())
            }
        }
    }

    pub(super) fn numbers(&self) -> &[Number] {
        &self.0
    }
}

/// What a subscriber's line does, who the other party is and since how many milliseconds, and what he has to pay for.
type Subscriber = (Line, Option<(Number, u64)>, Meter);

/// What the exchange says.
#[derive(Debug)]
pub(super) struct View {
    address: SocketAddr,
    pub(super) totals: Result<Totals, Unanswered>,
    /// None where the exchange does not know him, or does not answer.
    subscribers: Vec<(Number, Option<Subscriber>)>,
    counts: Counts,
}

impl View {
    /// Asks.
    pub(super) fn take(address: SocketAddr, exchange: &mut Exchange, numbers: &[Number]) -> Self {
        let totals = match exchange.ask(Operation::Totals) {
            Ok(Outcome::Totals(totals)) => Ok(totals),
            // It answers another question than it was asked, which is as good as silence.
            Ok(_) => Err(Unanswered::Silent),
            Err(error) => Err(error),
        };
        let subscribers = if totals.is_ok() {
            let ask = |number: &Number| (*number, subscriber(exchange, *number));
            numbers.iter().map(ask).collect()
        } else {
            Vec::new()
        };
        Self {
            address,
            totals,
            subscribers,
            counts: exchange.counts(),
        }
    }
}

fn subscriber(exchange: &mut Exchange, number: Number) -> Option<Subscriber> {
    let mut ask = |request| match exchange.ask(Operation::Exchange(request)) {
        Ok(Outcome::Done(reply)) => Some(reply),
        _ => None,
    };
    let status = ask(Request::Status(number))?;
    let charging = ask(Request::Charging(number))?;
    match (status, charging) {
        (Reply::Status(_, line, call), Reply::Charging(_, meter)) => Some((line, call, meter)),
        _ => None,
    }
}

/// The totals with their names, for people and for programs.
const fn named(totals: &Totals) -> [(&'static str, &'static str, u64); 11] {
    [
        ("Running for ms", "uptime_ms", totals.uptime),
        ("Subscribers", "subscribers", totals.subscribers),
        ("Calls that ring", "ringing", totals.ringing),
        ("Calls that are connected", "connected", totals.connected),
        ("Calls that were answered", "calls", totals.calls),
        ("Pulses on all meters", "pulses", totals.pulses),
        ("Questions executed", "executed", totals.executed),
        ("Questions asked again", "duplicates", totals.duplicates),
        ("Questions out of date", "outdated", totals.outdated),
        ("Malformed datagrams", "malformed", totals.malformed),
        ("Clients without room", "crowded", totals.crowded),
    ]
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// The page for people.
pub(super) fn page(view: &View, complaint: Option<&str>) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Telephone exchange</title>\n\
         <style>body{font:16px sans-serif;max-width:44em;margin:2em auto;padding:0 1em}\
         table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em 1em .2em 0;text-align:left;\
         border-bottom:1px solid #ccc}td.n{text-align:right}.bad{color:#a00}</style></head><body>\n\
         <h1>Telephone exchange</h1>\n",
    );
    let Counts {
        answered,
        unanswered,
        repeated,
        last,
        least,
        most,
        ..
    } = view.counts;
    // Writing to a string cannot fail.
    let _ = match &view.totals {
        Ok(_) => writeln!(
            page,
            "<p>The exchange at {} is in service.</p>",
            view.address
        ),
        Err(error) => writeln!(
            page,
            "<p class=\"bad\">No word from {}: {error}.</p>",
            view.address
        ),
    };
    if let Some(complaint) = complaint {
        let _ = writeln!(page, "<p class=\"bad\">{complaint}</p>");
    }
    if let Ok(totals) = &view.totals {
        page += "<h2>Subscribers</h2>\n<table><tr><th>Number<th>Line<th>With<th>Pulses<th>Calls<th>Connected</tr>\n";
        for (number, subscriber) in &view.subscribers {
            let _ = match subscriber {
                Some((line, call, meter)) => writeln!(
                    page,
                    "<tr><td>{number}<td>{line}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{:.1} s</tr>",
                    call.map_or_else(String::new, |(other, _)| other.to_string()),
                    meter.pulses,
                    meter.calls,
                    meter.connected as f64 / 1e3
                ),
                None => writeln!(
                    page,
                    "<tr><td>{number}<td colspan=\"5\">not in service</tr>"
                ),
            };
        }
        page += "</table>\n<form action=\"/\"><label>Show a subscriber: <input name=\"number\" inputmode=\"numeric\" \
                 size=\"9\"></label> <button>Show</button></form>\n<h2>Totals</h2>\n<table>\n";
        for (name, _, value) in named(totals) {
            let _ = writeln!(page, "<tr><td>{name}<td class=\"n\">{value}</tr>");
        }
        page += "</table>\n";
    }
    let _ = writeln!(
        page,
        "<h2>Latency</h2>\n<p>Answers took {} at last, {} to {}, {} on average; {answered} questions were answered, \
         {unanswered} were not, {repeated} datagrams were sent again.</p>\n\
         <p><a href=\"/exchange.json\">The same as JSON</a></p></body></html>",
        milliseconds(last),
        milliseconds(least),
        milliseconds(most),
        milliseconds(view.counts.mean()),
    );
    page
}

/// The same for programs.
pub(super) fn json(view: &View) -> String {
    let micros = |time: Duration| time.as_micros();
    let counts = &view.counts;
    let mut text = format!(
        "{{\"exchange\":\"{}\",\"answers\":{},\"latency_us\":{{\"last\":{},\"least\":{},\"most\":{},\"mean\":{}}},\
         \"answered\":{},\"unanswered\":{},\"repeated\":{}",
        view.address,
        view.totals.is_ok(),
        micros(counts.last),
        micros(counts.least),
        micros(counts.most),
        micros(counts.mean()),
        counts.answered,
        counts.unanswered,
        counts.repeated,
    );
    if let Ok(totals) = &view.totals {
        let totals = named(totals).map(|(_, name, value)| format!("\"{name}\":{value}"));
        let _ = write!(text, ",\"totals\":{{{}}}", totals.join(","));
    }
    let subscribers = view.subscribers.iter().map(|(number, subscriber)| {
        let Some((line, call, meter)) = subscriber else {
            return format!("{{\"number\":{number},\"line\":null}}");
        };
        let call = call.map_or_else(String::new, |(other, since)| {
            format!("\"other\":{other},\"since_ms\":{since},")
        });
        format!(
            "{{\"number\":{number},\"line\":\"{line}\",{call}\"pulses\":{},\"calls\":{},\"connected_ms\":{}}}",
            meter.pulses, meter.calls, meter.connected
        )
    });
    let subscribers: Vec<_> = subscribers.collect();
    let _ = writeln!(text, ",\"subscribers\":[{}]}}", subscribers.join(","));
    text
}
