//! `cargo xtask witness`: the program that breaks the tie when the boards of a pair do not hear each other.
//!
//! It decides by [`mirror::witness::Ledger`], and writes what it has decided to its file, and that through to the disk,
//! before it answers. So it forgets nothing when it is killed or its machine loses power; a ledger that could not be written
//! is answered to nobody.

use crate::cli::WitnessOptions;
use crate::paths;
use anyhow::{Context, Result, bail};
use config::{Arbiter, Mirror};
use mirror::witness::{ANSWER_BYTES, Ask, Ledger, Pair};
use mirror::{Epoch, Kind, OVERHEAD, Opener, PairKey, Path as Way, Sealer, Sender, Side, Term};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tempfile::NamedTempFile;

/// The longest datagram that is looked at; an ask is far shorter.
const DATAGRAM: usize = 2048;

/// What the witness has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The datagram that says so to the board.
    pub(crate) answer: Vec<u8>,
    /// The same for people; none if the board was only told again what it knew.
    pub(crate) news: Option<String>,
}

/// The witness of a pair.
#[derive(Debug)]
pub(crate) struct Witness {
    opener: Opener,
    sealer: Sealer,
    ledger: Ledger,
    file: PathBuf,
    /// Held while it lives: two witnesses with one ledger could grant a term twice.
    _lock: File,
}

impl Witness {
    /// The witness of the pair with this key, whose ledger is in `file`. With `new` there is none yet, and it begins one.
    ///
    /// # Errors
    ///
    /// Where the file is missing, or there although it is to be new; where it is no ledger, another pair's, in use, or cannot
    /// be written.
    pub(crate) fn open(key: &[u8; 16], file: &Path, new: bool) -> Result<Self> {
        let key = PairKey::new(key);
        let pair = Pair(key.id());
        let lock = lock(file)?;
        let shown = file.display();
        let ledger = match (fs::read_to_string(file), new) {
            (Ok(_), true) => bail!("{shown} is there already; leave out --new"),
            (Ok(text), false) => {
                let ledger: Ledger = text
                    .parse()
                    .with_context(|| format!("{shown} is no witness's ledger"))?;
                if ledger.pair != pair {
                    bail!(
                        "{shown} is the ledger of the pair {}, not of {pair}",
                        ledger.pair
                    );
                }
                ledger
            }
            (Err(error), true) if error.kind() == std::io::ErrorKind::NotFound => {
                let ledger = Ledger::new(pair);
                write(file, &ledger)?;
                ledger
            }
            (Err(error), false) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "there is no {shown}. --new begins a ledger, once in a pair's life: a witness that has forgotten what it \
                 granted may let both boards serve"
            ),
            (Err(error), _) => {
                return Err(error).with_context(|| format!("cannot read {shown}"));
            }
        };
        Ok(Self {
            opener: Opener::outside_sessions(&key, Way::Lan),
            sealer: Sealer::outside_sessions(&key, Sender::Witness, Way::Lan),
            ledger,
            file: file.to_path_buf(),
            _lock: lock,
        })
    }

    /// What it remembers.
    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Decides what a datagram asks for. What has been decided is on the disk then.
    ///
    /// # Errors
    ///
    /// Where it is no question of a board of the pair, or the ledger cannot be written: then there is no answer.
    pub(crate) fn decide(&mut self, datagram: &[u8]) -> Result<Decision> {
        let frame = match self.opener.open(datagram) {
            Ok(frame) => frame,
            Err(dropped) => bail!("{dropped}"),
        };
        let ask = match (frame.kind, frame.body.try_into()) {
            (Kind::Ask, Ok(body)) => Ask::decode(body),
            _ => None,
        };
        let ask = ask.filter(|ask| frame.sender == Sender::Board(ask.side));
        let ask = ask.context("a frame of the pair is no question of a board")?;
        let decided = self.ledger.decide(&ask);
        let (answer, ledger) = decided.context("a question of another pair")?;
        let changed = ledger != self.ledger;
        if changed {
            write(&self.file, &ledger)?;
            self.ledger = ledger;
        }
        let news = match (answer.granted, changed) {
            (true, true) => Some(format!("board {} has term {}", ask.side, ask.term)),
            (true, false) => None,
            (false, _) => Some(format!("board {} is refused term {}", ask.side, ask.term)),
        };
        let mut bytes = vec![0; OVERHEAD + ANSWER_BYTES];
        let body = answer.encode();
        let length = self.sealer.seal(Term(0), Epoch(0), &mut bytes, |place| {
            place.get_mut(..body.len())?.copy_from_slice(&body);
            Some((Kind::Answer, body.len()))
        });
        bytes.truncate(length.context("the answer does not fit its frame")?);
        Ok(Decision {
            answer: bytes,
            news,
        })
    }
}

/// Locks a ledger for this process, by a file beside it that stays.
fn lock(file: &Path) -> Result<File> {
    let mut name = file
        .file_name()
        .context("the ledger needs a name")?
        .to_owned();
    name.push(".lock");
    let beside = file.with_file_name(name);
    let lock = File::create(&beside);
    let lock = lock.with_context(|| format!("cannot write {}", beside.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!("another witness uses {}", file.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", beside.display()))
        }
    }
}

/// Puts a ledger on the disk. Whenever the power fails, the file holds the old one or this one.
fn write(file: &Path, ledger: &Ledger) -> Result<()> {
    let context = || format!("cannot write {}", file.display());
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut new = NamedTempFile::new_in(folder).with_context(context)?;
    writeln!(new, "{ledger}").with_context(context)?;
    new.as_file().sync_all().with_context(context)?;
    new.persist(file).with_context(context)?;
    // The name is the folder's content.
    let folder = File::open(folder).with_context(context)?;
    folder.sync_all().with_context(context)
}

/// Reads the mirror's part of a board file.
fn mirror_of(file: &Path) -> Result<Mirror> {
    let text = String::from_utf8(paths::read(file)?);
    let text = text.with_context(|| format!("{} is no text", file.display()))?;
    // The key and the witness are the same for both.
    let (board, _) = config::toml::parse(&text, &paths::shown(file), Some(Side::A))?;
    let mirror = board.mirror;
    mirror.with_context(|| format!("{} has no [mirror]", file.display()))
}

/// Answers until it is ended.
///
/// # Errors
///
/// Where the board file or the ledger is wrong, or nobody can be heard at the address.
pub(crate) fn run(options: &WitnessOptions) -> Result<ExitCode> {
    let mirror = mirror_of(&options.board)?;
    let Arbiter::Witness { port, .. } = mirror.arbiter else {
        bail!(
            "{} has on_silence: its boards ask no witness",
            options.board.display()
        );
    };
    let listen = options.listen;
    let mut witness = Witness::open(&mirror.key, &options.state, options.new)?;
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen at {listen}"))?;
    if listen.port() != port {
        println!("the boards ask at port {port}, not {}", listen.port());
    }
    println!("listening at {listen}; {}", witness.ledger());
    serve(&mut witness, &socket)
}

fn serve(witness: &mut Witness, socket: &UdpSocket) -> Result<ExitCode> {
    let mut buffer = [0; DATAGRAM];
    let mut complaint = String::new();
    loop {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            // An earlier answer came to nobody.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error).context("cannot listen any more"),
        };
        if let Err(error) = answer(witness, socket, &buffer[..length], from) {
            // Once, however often it comes: anybody can send anything.
            let text = format!("{error:#}");
            if text != complaint {
                println!("{from}: {text}");
                complaint = text;
            }
        }
    }
}

fn answer(
    witness: &mut Witness,
    socket: &UdpSocket,
    datagram: &[u8],
    from: SocketAddr,
) -> Result<()> {
    let decision = witness.decide(datagram)?;
    if let Some(news) = &decision.news {
        println!("{from}: {news}");
    }
    socket
        .send_to(&decision.answer, from)
        .context("cannot answer")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror::witness::{ASK_BYTES, Answer, Boot, Want};
    use tempfile::TempDir;

    const KEY: [u8; 16] = [7; 16];

    fn asked(key: &[u8; 16], sender: Side, ask: Ask) -> Vec<u8> {
        let key = PairKey::new(key);
        let mut sealer = Sealer::outside_sessions(&key, Sender::Board(sender), Way::Lan);
        let mut bytes = vec![0; OVERHEAD + ASK_BYTES];
        let length = sealer.seal(ask.term, Epoch(0), &mut bytes, |place| {
            place[..ASK_BYTES].copy_from_slice(&ask.encode());
            Some((Kind::Ask, ASK_BYTES))
        });
        assert_eq!(length, Some(bytes.len()));
        bytes
    }

    fn claim(side: Side, boot: u128, term: u64, basis: u64) -> Ask {
        Ask {
            pair: Pair(PairKey::new(&KEY).id()),
            side,
            boot: Boot(boot),
            want: Want::Claim,
            term: Term(term),
            basis: Term(basis),
            of: None,
        }
    }

    fn answered(decision: &Decision) -> Answer {
        let mut opener = Opener::outside_sessions(&PairKey::new(&KEY), Way::Lan);
        let frame = opener.open(&decision.answer).unwrap();
        assert_eq!((frame.kind, frame.sender), (Kind::Answer, Sender::Witness));
        Answer::decode(frame.body.try_into().unwrap()).unwrap()
    }

    fn ask(witness: &mut Witness, ask: Ask) -> Answer {
        answered(&witness.decide(&asked(&KEY, ask.side, ask)).unwrap())
    }

    fn place() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger");
        (folder, file)
    }

    fn refused(file: &Path, key: &[u8; 16], new: bool) -> String {
        format!("{:#}", Witness::open(key, file, new).unwrap_err())
    }

    #[test]
    fn what_was_granted_outlives_the_witness() {
        let (_folder, file) = place();
        let mut witness = Witness::open(&KEY, &file, true).unwrap();
        assert!(ask(&mut witness, claim(Side::A, 1, 1, 0)).granted);
        // It was on the disk before the answer was there to be sent.
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(
            text.trim_end().parse::<Ledger>().unwrap(),
            *witness.ledger()
        );
        drop(witness);
        let mut witness = Witness::open(&KEY, &file, false).unwrap();
        let refused = ask(&mut witness, claim(Side::B, 2, 1, 0));
        assert!(!refused.granted);
        assert_eq!(refused.last.unwrap().holder.side, Side::A);
        // An answer that was lost is given again.
        assert!(ask(&mut witness, claim(Side::A, 1, 1, 0)).granted);
    }

    #[test]
    fn what_cannot_be_written_is_answered_to_nobody() {
        let (folder, file) = place();
        let mut witness = Witness::open(&KEY, &file, true).unwrap();
        let question = claim(Side::A, 1, 1, 0);
        folder.close().unwrap();
        let error = witness.decide(&asked(&KEY, Side::A, question)).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("cannot write"),
            "{error:#}"
        );
        assert_eq!(witness.ledger().last, None);
    }

    #[test]
    fn what_is_no_question_of_the_pair_is_not_answered() {
        let (_folder, file) = place();
        let mut witness = Witness::open(&KEY, &file, true).unwrap();
        let question = claim(Side::A, 1, 1, 0);
        let good = asked(&KEY, Side::A, question);
        for bad in [
            &good[..20],
            b"",
            &asked(&[8; 16], Side::A, question),
            // It says that it is the other board.
            &asked(&KEY, Side::B, question),
        ] {
            assert!(witness.decide(bad).is_err());
        }
        // What the witness says itself is no question either.
        let answer = witness.decide(&good).unwrap().answer;
        assert!(witness.decide(&answer).is_err());
    }

    #[test]
    fn a_ledger_is_neither_forgotten_nor_shared_nor_guessed_at() {
        let (_folder, file) = place();
        assert!(refused(&file, &KEY, false).contains("--new begins a ledger"));
        let witness = Witness::open(&KEY, &file, true).unwrap();
        assert!(refused(&file, &KEY, false).contains("another witness uses"));
        drop(witness);
        assert!(refused(&file, &KEY, true).contains("leave out --new"));
        assert!(refused(&file, &[8; 16], false).contains("is the ledger of the pair"));
        fs::write(&file, "hello\n").unwrap();
        assert!(refused(&file, &KEY, false).contains("is no witness's ledger: it does not begin"));
    }

    #[test]
    fn a_repeated_grant_is_no_news_and_a_refusal_is() {
        let (_folder, file) = place();
        let mut witness = Witness::open(&KEY, &file, true).unwrap();
        let mut news = |ask: Ask| witness.decide(&asked(&KEY, ask.side, ask)).unwrap().news;
        let first = claim(Side::A, 1, 1, 0);
        assert_eq!(news(first).as_deref(), Some("board a has term 1"));
        assert_eq!(news(first), None);
        let other = claim(Side::B, 2, 1, 0);
        assert_eq!(news(other).as_deref(), Some("board b is refused term 1"));
    }

    #[test]
    fn the_projects_pair_has_a_witness() {
        let mirror = mirror_of(&paths::default_pair()).unwrap();
        assert!(matches!(mirror.arbiter, Arbiter::Witness { .. }));
        let error = mirror_of(&paths::default_board()).unwrap_err();
        assert!(format!("{error:#}").contains("no [mirror]"), "{error:#}");
    }
}
