//! The command line: words, and options of the form `name=value`.

/// A boot command line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CommandLine<'a>(&'a str);

impl<'a> CommandLine<'a> {
    /// Takes the text as the loader gave it.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(text.trim())
    }

    /// The words. A first word that is a path (GRUB passes the image's own) is left out.
    pub fn words(self) -> impl Iterator<Item = &'a str> {
        let mut words = self.0.split_whitespace().peekable();
        if words
            .peek()
            .is_some_and(|word| word.starts_with(['/', '(']))
        {
            words.next();
        }
        words
    }

    /// The value of the first `name=value`.
    #[must_use]
    pub fn option(self, name: &str) -> Option<&'a str> {
        self.words()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::CommandLine;

    #[test]
    fn words_without_the_image() {
        let words = |text| CommandLine::new(text).words().collect::<Vec<_>>();
        assert_eq!(words("  ports  now "), ["ports", "now"]);
        assert_eq!(words("/boot/probes.elf ports"), ["ports"]);
        assert_eq!(words("(cd)/probes.elf ports /x"), ["ports", "/x"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn options_by_whole_name() {
        let line = CommandLine::new("run=selftest;halt rerun=no run=later");
        assert_eq!(line.option("run"), Some("selftest;halt"));
        assert_eq!(line.option("rerun"), Some("no"));
        assert_eq!(line.option("un"), None);
        assert_eq!(line.option("ru"), None);
    }
}
