//! The `nft` program.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// A transaction of many thousand elements takes less than a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Characters of what it says that are handed on.
const SENTENCE: usize = 500;

/// Runs `nft` in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
}

/// Why rules could not be written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program, or it cannot be run.
    #[error("cannot run {program}: {source}; install nftables")]
    Run {
        /// What was run.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It refused the script; nothing of it was applied.
    #[error("nft refused the rules: {0}")]
    Refused(String),
    /// It did not end.
    #[error("nft did not end within {} seconds", LIMIT.as_secs())]
    Hangs,
}

impl Default for Nft {
    fn default() -> Self {
        Self::new("nft".into())
    }
}

impl Nft {
    /// Runs this program.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// The program.
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// Applies a script as one transaction.
    ///
    /// # Errors
    /// See [`NftError`]; then nothing has changed, unless it hung.
    pub async fn apply(&self, script: &str) -> Result<(), NftError> {
        let failed = |source| NftError::Run {
            program: self.program.clone(),
            source,
        };
        let mut child = Command::new(&self.program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let talk = async {
            if let Some(mut stdin) = stdin {
                // That it stopped reading shows in its exit status.
                let _ = stdin.write_all(script.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = timeout(LIMIT, talk)
            .await
            .map_err(|_| NftError::Hangs)?
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        // It quotes the line that it does not take, which may have an element for each Service.
        let first: String = text.chars().take(SENTENCE).collect();
        let lines: Vec<_> = first.lines().take(3).map(str::trim).collect();
        Err(NftError::Refused(lines.join(" ")))
    }
}
