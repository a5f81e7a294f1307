//! The gateway: shows the legacy system's exchange to people and programs, by HTTP. It asks the exchange over UDP.
//!
//! | path | what |
//! | --- | --- |
//! | `/` | a page for people; `/?number=101` adds a subscriber to it |
//! | `/exchange.json` | the same for programs |
//! | `/healthz` | `ok`, or status 503 where the exchange is silent |
//! | `/blob/SIZE` | so many bytes that are the same every time; K, M and G count 1024 |
//! | `/blob/SIZE.crc32` | their checksum, in eight hexadecimal digits |

mod blob;
mod exchange;
mod http;
mod pages;
mod server;

use crate::programs::{Outcome, number};
use exchange::{Exchange, RETRY};
use http::{Body, Request, Response};
use pages::{Known, View};
use protocol::{Number, PORT};
use server::{LIMITS, serve};
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

const HTTP_PORT: u64 = 80;

/// What all connections share.
struct Gateway {
    address: SocketAddr,
    exchange: Mutex<Exchange>,
    known: Mutex<Known>,
}

impl Gateway {
    fn new(address: SocketAddr, known: Known) -> io::Result<Self> {
        Ok(Self {
            address,
            exchange: Mutex::new(Exchange::new(address, RETRY)?),
            known: Mutex::new(known),
        })
    }

    /// Answers a request.
    fn answer(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/" => {
                let added = request
                    .query
                    .as_deref()
                    .and_then(|query| query.strip_prefix("number="));
                let complaint = added.and_then(|digits| self.add(digits).err());
                let view = self.look(&self.known());
                Response::html(pages::page(&view, complaint))
            }
            "/exchange.json" => Response::json(pages::json(&self.look(&self.known()))),
            "/healthz" => match self.look(&[]).totals {
                Ok(_) => Response::text("ok\n"),
                Err(error) => Response::text(&format!("{error}\n")).with_status(503),
            },
            path => match path.strip_prefix("/blob/") {
                Some(what) => blob(what),
                None => Response::text("There is no such page.\n").with_status(404),
            },
        }
    }

    /// Adds a subscriber to those that are shown.
    fn add(&self, digits: &str) -> Result<(), &'static str> {
        let number = Number::parse(digits).ok_or("That is no subscriber's number.")?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.add(number)
    }

    fn known(&self) -> Vec<Number> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.numbers().to_vec()
    }

    /// Asks the exchange for its totals and these subscribers.
    fn look(&self, numbers: &[Number]) -> View {
        let exchange = self.exchange.lock();
        let mut exchange = exchange.unwrap_or_else(PoisonError::into_inner);
        View::take(self.address, &mut exchange, numbers)
    }
}

fn blob(what: &str) -> Response {
    let (size, is_sum) = match what.strip_suffix(".crc32") {
        Some(size) => (size, true),
        None => (what, false),
    };
    match blob::size(size) {
        None => Response::text("The size is a number of bytes, K, M or G; 4G at most.\n")
            .with_status(404),
        Some(size) if is_sum => Response::text(&format!("{:08x}\n", blob::checksum(size))),
        Some(size) => Response::new("application/octet-stream", Body::Blob(size)),
    }
}

/// `gateway EXCHANGE [PORT] [SUBSCRIBER]...`: never returns once it serves.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let exchange = arguments.first().ok_or("where is the exchange?")?;
    let address = address(exchange)?;
    let port = u16::try_from(number(arguments, 1, HTTP_PORT)?)?;
    let mut known = Known::default();
    for digits in arguments.iter().skip(2) {
        let number = Number::parse(digits).ok_or(format!("{digits} is no subscriber's number"))?;
        known.add(number)?;
    }
    let gateway = Arc::new(Gateway::new(address, known)?);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    println!("gateway: serves on port {port}, exchange at {address}");
    serve(&listener, LIMITS, move |request| gateway.answer(request))
}

/// An address, with the exchange's port where none is given.
fn address(text: &str) -> Result<SocketAddr, Box<dyn Error>> {
    let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    let address = plain.or_else(|_| text.parse());
    Ok(address.map_err(|_| format!("\"{text}\" is no address"))?)
}

#[cfg(test)]
mod tests;
