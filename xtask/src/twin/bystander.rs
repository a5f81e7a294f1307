//! The witness on the LAN of an emulated pair.

use crate::client::{Client, Station};
use crate::wire::Wire;
use crate::witness::Witness;
use anyhow::{Context, Result};
use config::{Arbiter, Mirror};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A witness on a wire. Dropping it takes it off.
#[derive(Debug)]
pub(crate) struct Bystander {
    end: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    on: AtomicBool,
    gone: AtomicBool,
}

impl Bystander {
    /// Puts the witness that a pair's boards ask on their LAN, with a ledger in `file` that it begins; none if they ask none.
    ///
    /// # Errors
    ///
    /// Where the ledger cannot be begun, or no thread started.
    pub(crate) fn attach(lan: &Wire, mirror: &Mirror, file: &Path) -> Result<Option<Self>> {
        let Arbiter::Witness { address, port } = mirror.arbiter else {
            return Ok(None);
        };
        let mut witness = Witness::open(&mirror.key, file, true)?;
        let station = Client::attach(lan, Station::new(address))?;
        let end = station.end();
        let shared = Arc::new(Shared {
            on: AtomicBool::new(true),
            gone: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name("witness".into());
        let heard = station.udp(Some(port))?;
        let work = move || {
            // It lives as long as its port.
            let _station = station;
            while !own.gone.load(Ordering::Relaxed) {
                let Some((bytes, from)) = heard.receive(LOOK) else {
                    continue;
                };
                if !own.on.load(Ordering::Relaxed) {
                    continue;
                }
                match witness.decide(&bytes) {
                    Ok(decision) => {
                        if let Some(news) = decision.news {
                            println!("witness| {news}");
                        }
                        // A datagram may be lost; the board asks again.
                        let _ = heard.send_to(&decision.answer, from);
                    }
                    Err(error) => println!("witness| {}: {error:#}", from.ip()),
                }
            }
        };
        let thread = thread.spawn(work).context("cannot start a thread")?;
        Ok(Some(Self {
            end,
            shared,
            thread: Some(thread),
        }))
    }

    /// Its end of the LAN.
    pub(crate) const fn end(&self) -> usize {
        self.end
    }

    /// Lets it answer, or be silent.
    pub(crate) fn set(&self, on: bool) {
        self.shared.on.store(on, Ordering::Relaxed);
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
