//! The terminal that a person sits at: raw mode, and its size.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use barge_client::v1::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// A terminal in raw mode: every key goes to the program, which echoes. Dropping it restores the mode from before.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// # Errors
    /// It is no terminal.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// The size of the person's terminal; nothing when none of the three standard streams is one.
pub fn size() -> Option<TerminalSize> {
    let (out, input, error) = (io::stdout(), io::stdin(), io::stderr());
    [out.as_fd(), input.as_fd(), error.as_fd()]
        .into_iter()
        .find_map(size_of)
}

fn size_of(terminal: BorrowedFd<'_>) -> Option<TerminalSize> {
    let size = tcgetwinsize(terminal).ok()?;
    // A terminal without a window says 0.
    (size.ws_col > 0 && size.ws_row > 0).then_some(TerminalSize {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

#[cfg(test)]
mod tests {
    use nix::pty::{Winsize, openpty};
    use rustix::termios::{LocalModes, OutputModes};

    use super::*;

    /// Whether lines are edited and echoed, and whether newlines are translated.
    fn modes(terminal: impl AsFd) -> (bool, bool, bool) {
        let modes = tcgetattr(terminal).unwrap();
        (
            modes.local_modes.contains(LocalModes::ICANON),
            modes.local_modes.contains(LocalModes::ECHO),
            modes.output_modes.contains(OutputModes::OPOST),
        )
    }

    #[test]
    fn the_mode_from_before_is_back_also_after_a_panic() {
        let pty = openpty(None, None).unwrap();
        let before = modes(&pty.slave);
        assert_eq!(before, (true, true, true));
        let raw = Raw::enter(&pty.slave).unwrap();
        assert_eq!(modes(&pty.slave), (false, false, false));
        drop(raw);
        assert_eq!(modes(&pty.slave), before);
        let slave = pty.slave.try_clone().unwrap();
        let panicked = std::thread::spawn(move || {
            let _raw = Raw::enter(&slave).unwrap();
            assert_eq!(modes(&slave), (true, true, true), "it is raw");
        });
        assert!(panicked.join().is_err());
        assert_eq!(modes(&pty.slave), before);
    }

    #[test]
    fn the_size_is_the_windows_and_a_file_has_none() {
        let window = Winsize {
            ws_row: 50,
            ws_col: 132,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&window, None).unwrap();
        let size = size_of(pty.slave.as_fd()).unwrap();
        assert_eq!((size.columns, size.rows), (132, 50));
        let none = openpty(None, None).unwrap();
        assert_eq!(size_of(none.slave.as_fd()), None);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(size_of(file.as_fd()), None);
        assert!(Raw::enter(&file).is_err());
    }
}
