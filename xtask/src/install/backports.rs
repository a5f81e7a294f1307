//! Packages that the distribution's release has only in too old a version, from its backports.

use super::{Need, as_root};
use crate::{paths, progress};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// The one release whose own packages are too old and whose backports have what is needed.
const RELEASE: &str = "bookworm";
/// The file of ours that names the suite to apt, where no other does.
const FILE: &str = "/etc/apt/sources.list.d/understudy-backports.list";

/// The backports of this machine's release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backports {
    /// The name that `apt-get -t` takes.
    pub(super) suite: String,
    /// The line that names the suite to apt; none where apt knows it already.
    source: Option<String>,
}

impl Backports {
    /// Finds where this machine gets its packages from, and so where their backports are.
    ///
    /// # Errors
    ///
    /// Where the release is another, or the machine does not get it from a known place.
    pub(super) fn find(package: &str) -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        if codename.map(|name| name.trim_matches('"')) != Some(RELEASE) {
            bail!(
                "this system's {package} is too old, and only for Debian's {RELEASE} is known where a newer one is"
            );
        }
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"])
            .args(["Created-By: Packages", "Component: main", "Origin: Debian"])
            .output()
            .context("cannot start apt-get")?;
        Self::among(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
            format!("apt's sources do not say where this machine gets {RELEASE} from")
        })
    }

    /// Reads the lines `CODENAME URI` of what apt knows.
    fn among(targets: &str) -> Option<Self> {
        let suite = format!("{RELEASE}-backports");
        let of = |codename: &str| {
            let mut pairs = targets.lines().filter_map(|line| line.split_once(' '));
            pairs.find_map(|(name, uri)| (name == codename).then_some(uri.trim()))
        };
        if of(&suite).is_some() {
            return Some(Self {
                suite,
                source: None,
            });
        }
        let source = format!("deb {} {suite} main", of(RELEASE)?);
        Some(Self {
            suite,
            source: Some(source),
        })
    }

    /// What a person would type to name the suite to apt.
    pub(super) fn lines(&self) -> Vec<String> {
        self.source.as_ref().map_or(Vec::new(), |source| {
            vec![
                format!("echo '{source}' | sudo tee {FILE}"),
                "sudo apt-get update".to_owned(),
            ]
        })
    }

    /// Names the suite to apt, and says so; whether the package lists must be fetched anew for it.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub(super) fn add_source(&self) -> Result<bool> {
        let Some(source) = &self.source else {
            return Ok(false);
        };
        progress::note(&format!("adding to apt's sources, as {FILE}: {source}"));
        let mut command = as_root("tee")?;
        command
            .arg(FILE)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = command.spawn().context("cannot start tee")?;
        if let Some(mut input) = child.stdin.take() {
            writeln!(input, "{source}").with_context(|| format!("cannot write {FILE}"))?;
        }
        if !child.wait()?.success() {
            bail!("cannot write {FILE}");
        }
        Ok(true)
    }
}

impl Need {
    /// Whether the package that apt would install is too old. Where apt knows none, that is not so.
    pub(super) fn candidate_is_too_old(&self) -> bool {
        let Some(least) = self.sign.least_version() else {
            return false;
        };
        if paths::program("apt-cache").is_none() {
            return false;
        }
        let output = Command::new("apt-cache")
            .args(["policy", self.package])
            .env("LC_ALL", "C")
            .output();
        let Ok(output) = output else {
            return false;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        candidate_major(&text).is_some_and(|major| major < least)
    }
}

/// The major number of the candidate in what `apt-cache policy` tells: `Candidate: 1:7.2+dfsg-7`.
fn candidate_major(policy: &str) -> Option<u32> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    leading_number(upstream)
}

/// The number that a text starts with.
pub(super) fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_without_their_epoch() {
        let policy = |version: &str| {
            format!(
                "qemu-system-x86:\n  Installed: (none)\n  Candidate: {version}\n  Version table:\n"
            )
        };
        assert_eq!(candidate_major(&policy("1:7.2+dfsg-7+deb12u18")), Some(7));
        assert_eq!(candidate_major(&policy("10.0.2")), Some(10));
        assert_eq!(candidate_major(&policy("(none)")), None);
        assert_eq!(candidate_major(""), None);
    }

    #[test]
    fn the_suite_is_named_beside_the_release_unless_apt_knows_it() {
        let known = "bookworm http://mirror/debian/\nbookworm-backports http://mirror/debian/\n";
        let backports = Backports::among(known).unwrap();
        assert_eq!(backports.suite, "bookworm-backports");
        assert!(backports.lines().is_empty());
        let backports = Backports::among("bookworm http://mirror/debian/\n").unwrap();
        assert_eq!(
            backports.lines()[0],
            format!("echo 'deb http://mirror/debian/ bookworm-backports main' | sudo tee {FILE}")
        );
        assert_eq!(Backports::among("trixie http://mirror/debian/\n"), None);
    }
}
