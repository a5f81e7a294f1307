//! The operator's console on COM1.

use core::fmt::{self, Write};

use rtos::{
    command::{self, Command, Crash, HELP},
    kernel::MutexId,
    line::{Editor, Key, LONGEST},
};

use crate::{
    BOOT, diagnosis, jitter,
    machine::{shared::Late, uart},
    network, phone, selftest, system,
};

const PROMPT: &str = "rtos> ";

static OUTPUT: Late<MutexId> = Late::new();

/// Collects a little text, so that the port is not asked for each letter.
struct Output {
    bytes: [u8; 64],
    length: usize,
}

impl Output {
    fn put(&mut self, byte: u8) {
        if self.length == self.bytes.len() {
            self.flush();
        }
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn flush(&mut self) {
        uart::write(&self.bytes[..self.length]);
        self.length = 0;
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

/// Writes text as one piece: no other task's text comes between.
pub(crate) fn write(arguments: fmt::Arguments<'_>) {
    let Some(output) = OUTPUT.get() else { return };
    system::locked(output, || {
        let mut output = Output {
            bytes: [0; 64],
            length: 0,
        };
        // `Output` never fails.
        let _ = output.write_fmt(arguments);
        output.flush();
    });
}

/// Prints a line on the console.
macro_rules! say {
    ($($argument:tt)*) => { $crate::console::write(format_args!("{}\n", format_args!($($argument)*))) };
}
pub(crate) use say;

/// Makes the console ready for output.
pub(crate) fn init() {
    OUTPUT.set(system::mutex());
    uart::start();
}

/// The console task.
pub(crate) fn run(_: u32) {
    run_from_boot();
    let mut editor = Editor::new();
    write(format_args!("{PROMPT}"));
    loop {
        match editor.key(uart::read()) {
            Key::Nothing => {}
            Key::Echo(byte) => uart::write(&[byte]),
            Key::Erase(count) => (0..count).for_each(|_| uart::write(b"\x08 \x08")),
            Key::Dropped => write(format_args!("^C\n{PROMPT}")),
            Key::Line => {
                write(format_args!("\n"));
                execute(editor.text());
                write(format_args!("{PROMPT}"));
            }
        }
    }
}

/// Runs the commands that the boot command line asks for.
fn run_from_boot() {
    let Some(boot) = BOOT.get() else { return };
    for bytes in command::run_list(boot.command_line().option("run").unwrap_or("")) {
        let mut text = [0; LONGEST];
        let mut length = 0;
        for (place, byte) in text.iter_mut().zip(bytes) {
            *place = byte;
            length += 1;
        }
        if let Ok(line) = core::str::from_utf8(&text[..length]) {
            say!("{PROMPT}{line}");
            execute(line);
        }
    }
}

fn execute(line: &str) {
    match command::parse(line) {
        Ok(None) => {}
        Ok(Some(command)) => obey(command),
        Err(error) => say!("{error}"),
    }
}

fn obey(command: Command) {
    match command {
        Command::Help => HELP
            .iter()
            .for_each(|(form, what)| say!("{form:22} {what}")),
        Command::Tasks => diagnosis::tasks(),
        Command::Uptime => diagnosis::uptime(),
        Command::Date => diagnosis::date(),
        Command::Memory => diagnosis::memory(),
        Command::Selftest => selftest::run(),
        Command::Jitter(releases) => jitter::measure(releases as usize),
        Command::Clock(seconds) => diagnosis::clock(seconds),
        Command::Exchange(request) => phone::ask(request),
        Command::Traffic => phone::traffic(),
        Command::Network => network::show(),
        Command::Load(calls) => phone::load(calls),
        Command::Reboot => {
            say!("reboot: resetting");
            uart::flush();
            pc::power::reset_by_keyboard_controller();
        }
        Command::Halt => {
            say!("halt: switching off");
            uart::flush();
            pc::power::off();
        }
        Command::Crash(crash) => {
            say!("crash: taking the system down");
            uart::flush();
            match crash {
                Crash::Triple => pc::power::triple_fault(),
                Crash::Undefined => pc::cpu::undefined_instruction(),
                Crash::Wild => diagnosis::wild_access(),
            }
        }
    }
}
