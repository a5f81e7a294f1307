//! What a pair's boards tell of themselves over the network.

use super::{PATIENCE, pair_text, running};
use crate::client::Client;
use crate::suite::lab::Lab;
use crate::suite::management::Metrics;
use crate::twin::{Role, Until};
use anyhow::{Context, Result, ensure};
use mirror::Side;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

/// The boards' stations.
pub(crate) const fn station(side: Side) -> Ipv4Addr {
    match side {
        Side::A => Ipv4Addr::new(10, 0, 0, 11),
        Side::B => Ipv4Addr::new(10, 0, 0, 12),
    }
}

fn status(client: &Client, side: Side) -> Result<Value> {
    let (_, text) = client.http_text(station(side), 80, "/status", PATIENCE)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// Both boards say what they are, and what the epochs of their guests cost.
pub(super) fn told(lab: &Lab) -> Result<()> {
    let text = pair_text(None)?;
    let (mut pair, client) = running(lab, &text)?;
    // Some epochs.
    thread::sleep(Duration::from_secs(2));
    let page = |side| Metrics::read_from(&client, station(side));
    let (a, b) = (page(Side::A)?, page(Side::B)?);
    for (page, role) in [(&a, "primary"), (&b, "backup")] {
        let role = format!("understudy_mirror_role{{role=\"{role}\"}}");
        ensure!(page.of(&role)? == 1.0, "{page:?}");
        let name = "understudy_mirror_protected{reason=\"\"}";
        ensure!(page.of(name)? == 1.0, "{page:?}");
    }
    let guest =
        |page: &Metrics, name: &str| page.of(&format!("understudy_{name}{{guest=\"rtos\"}}"));
    let ended = guest(&a, "mirror_epoch_ended")?;
    ensure!(ended > 10.0, "{ended} epochs");
    ensure!(
        guest(&a, "mirror_epoch_acknowledged")? + 2.0 >= ended,
        "{a:?}"
    );
    ensure!(guest(&b, "mirror_epoch_kept")? + 2.0 >= ended, "{b:?}");
    ensure!(guest(&a, "mirror_pause_seconds_count")? >= ended, "{a:?}");
    for name in ["pause", "epoch", "delay"] {
        let [count, sum] =
            ["count", "sum"].map(|it| guest(&a, &format!("mirror_{name}_seconds_{it}")));
        let mean = sum? / count?;
        ensure!(mean > 0.0 && mean < 1.0, "the mean {name} is {mean} s");
    }
    ensure!(a.of("understudy_mirror_sent_bytes_total")? > 1e5, "{a:?}");
    let shown = status(&client, Side::A)?;
    ensure!(
        shown["mirror"]["role"] == "primary"
            && shown["mirror"]["protection"] == "protected"
            && shown["mirror"]["guests"][0]["name"] == "rtos",
        "{shown}"
    );
    pair.kill(Side::A)?;
    pair.until(Side::B, &Until::Is(Role::Solo, Some(false)), PATIENCE)?;
    let shown = status(&client, Side::B)?;
    let protection = &shown["mirror"]["protection"];
    ensure!(protection == "unprotected: the peer is silent", "{shown}");
    let reason = "understudy_mirror_protected{reason=\"the peer is silent\"}";
    let page = page(Side::B)?;
    ensure!(page.of(reason)? == 0.0, "{page:?}");
    Ok(())
}
