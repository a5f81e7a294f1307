//! Explores.
use simulator::*;
use std::time::Duration;
#[test]
fn explore() {
    let seeds: u64 = std::env::var("SEEDS").map_or(4, |s| s.parse().unwrap());
    let from: u64 = std::env::var("FROM").map_or(0, |s| s.parse().unwrap());
    let secs: u64 = std::env::var("SECS").map_or(10, |s| s.parse().unwrap());
    let calm = std::env::var("CALM").is_ok();
    let long = std::env::var("LOG").is_ok();
    let mut kinds = std::collections::BTreeMap::new();
    let begin = std::time::Instant::now();
    let mut steps = 0;
    for (n, arbiter) in ARBITERS.iter().enumerate() {
        if std::env::var("ARB").is_ok_and(|a| a != n.to_string()) {
            continue;
        }
        let mut sum = Vec::new();
        for seed in from..from + seeds {
            let scenario = if calm {
                Scenario::calm(seed, *arbiter, Duration::from_secs(secs))
            } else {
                Scenario::wild(seed, *arbiter, Duration::from_secs(secs))
            };
            match run(&scenario) {
                Ok(f) => {
                    steps += f.steps;
                    sum.push(f);
                    if calm {
                        println!("{arbiter:?} {f:?}");
                    }
                }
                Err(e) => {
                    steps += e.step;
                    if long {
                        println!("{arbiter:?} {e}");
                    }
                    let k: String = e.what.chars().filter(|c| !c.is_ascii_digit()).collect();
                    kinds
                        .entry(format!("{n} {k}"))
                        .or_insert_with(Vec::new)
                        .push((e.step, seed, e.what.clone()));
                }
            }
        }
        let t = |g: fn(&Figures) -> u64| sum.iter().map(g).sum::<u64>();
        println!(
            "{arbiter:?}: {} ok; replies {} takeovers {} protections {} proofs {} decisions {} starts {}",
            sum.len(),
            t(|f| f.replies),
            t(|f| f.takeovers),
            t(|f| f.protections),
            t(|f| f.proofs),
            t(|f| f.decisions),
            t(|f| f.starts)
        );
    }
    for (k, mut v) in kinds {
        v.sort();
        println!(
            "{:4} {} e.g. seed {} step {}: {}",
            v.len(),
            k,
            v[0].1,
            v[0].0,
            v[0].2
        );
    }
    println!(
        "{steps} steps, {:.0} a second",
        steps as f64 / begin.elapsed().as_secs_f64()
    );
}
