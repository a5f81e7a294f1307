//! Turns the addresses of a panic's backtrace into functions, files and lines.

use crate::paths;
use addr2line::Loader;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::path::Path;

/// What stands before the address in a line of a backtrace.
const MARK: &str = "at 0xffffffff";

/// The addresses of a backtrace in a console log, in order.
pub(crate) fn addresses(log: &str) -> Vec<u64> {
    log.lines().filter_map(address).collect()
}

fn address(line: &str) -> Option<u64> {
    let (before, after) = line.split_once(MARK)?;
    if !before.trim().is_empty() {
        return None;
    }
    let digits: String = after.chars().take_while(char::is_ascii_hexdigit).collect();
    u64::from_str_radix(&format!("ffffffff{digits}"), 16).ok()
}

/// Tells what lies at each address of a console log's backtraces; empty without any.
///
/// # Errors
///
/// Where the hypervisor's file cannot be read.
pub(crate) fn backtrace(log: &str, hypervisor: &Path) -> Result<String> {
    let addresses = addresses(log);
    let mut text = String::new();
    if addresses.is_empty() {
        return Ok(text);
    }
    let loader = match Loader::new(hypervisor) {
        Ok(loader) => loader,
        Err(error) => bail!("cannot read symbols from {}: {error}", hypervisor.display()),
    };
    for address in addresses {
        // A return address belongs to the call before it.
        let call = address.wrapping_sub(1);
        let _ = writeln!(text, "  at {address:#x}");
        let mut known = false;
        if let Ok(mut frames) = loader.find_frames(call) {
            while let Ok(Some(frame)) = frames.next() {
                known = true;
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|function| Some(function.demangle().ok()?.into_owned()));
                let name = name.unwrap_or_else(|| symbol(&loader, call));
                let place = frame.location.map_or_else(String::new, |location| {
                    let line = location
                        .line
                        .map_or(String::new(), |line| format!(":{line}"));
                    format!("  ({}{line})", short(location.file.unwrap_or("?")))
                });
                let _ = writeln!(text, "       {name}{place}");
            }
        }
        if !known {
            let _ = writeln!(text, "       {}", symbol(&loader, call));
        }
    }
    Ok(text)
}

fn symbol(loader: &Loader, address: u64) -> String {
    match loader.find_symbol(address) {
        Some(name) => addr2line::demangle_auto(name.into(), None).into_owned(),
        None => "(unknown)".into(),
    }
}

/// A source path without the part that every file of the checkout shares.
fn short(file: &str) -> &str {
    let root = paths::root();
    file.strip_prefix(&*root.to_string_lossy())
        .map_or(file, |rest| rest.trim_start_matches('/'))
}

/// Reads a log and prints its backtraces with names.
///
/// # Errors
///
/// Where the log or the hypervisor's file cannot be read, or there is no backtrace.
pub(crate) fn print(log: &Path, hypervisor: &Path) -> Result<()> {
    let bytes = paths::read(log)?;
    let text = backtrace(&String::from_utf8_lossy(&bytes), hypervisor)
        .context("cannot name the addresses")?;
    if text.is_empty() {
        bail!(
            "{} holds no backtrace (lines like \"  {MARK}80012345\")",
            log.display()
        );
    }
    print!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_from_backtrace_lines_only() {
        let log = "[ 0.1] INFO x at 0xffffffff80000000\r\n\
                   PANIC\r\n  at 0xffffffff80012345\r\n  at 0xffffffff80000010 \nat 0x1234\n";
        assert_eq!(
            addresses(log),
            [0xffff_ffff_8001_2345, 0xffff_ffff_8000_0010]
        );
    }

    #[test]
    fn own_code_is_named() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(backtrace("nothing", &own).unwrap(), "");
        let text = backtrace("  at 0xffffffffff000000\n", &own).unwrap();
        assert!(text.contains("(unknown)"), "{text}");
    }
}
