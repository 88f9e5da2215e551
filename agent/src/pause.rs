//! The first process of the process namespace that containers of a pod share. It ends what they leave behind, and holds the namespace while they
//! come and go.
//!
//! ```text
//! agent ── pause (launcher, ends) ── pause --init, process 1 of the namespace, reparented to the machine's init
//! ```
//!
//! The launcher makes the namespace, waits until the process has given up its rights and its sight of the machine's files, notes it, pins the namespace
//! by a bind mount and ends; so the agent that started it may end, too.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::{set_dumpable, set_name, set_no_new_privs},
        signal::{SigSet, Signal},
        signalfd::{SignalFd, siginfo},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Uid, chdir, pivot_root, setgid, setgroups, setsid, setuid},
};

/// Nobody: the process needs no right at all.
const NOBODY: u32 = 65_534;

/// With which the process says that it is confined; anything else is the first byte of why it is not.
const CONFINED: [u8; 1] = *b".";

/// What a launcher is started with.
#[derive(Debug, Clone)]
pub struct Args {
    /// Where the namespace is pinned; the file exists.
    pub pin: PathBuf,
    /// Where the process id is noted.
    pub note: PathBuf,
    /// The pod's network namespace. The process shares it, so that whoever gets hold of the process has no other.
    pub netns: PathBuf,
    /// A folder. The process mounts an empty file system at it, in a mount namespace of its own that has nothing else.
    pub root: PathBuf,
}

/// Makes the namespace and its first process, and ends.
///
/// # Errors
/// What the kernel refuses. Then nothing is left.
pub fn launch(args: &Args) -> io::Result<()> {
    // Nobody's terminal takes the process down. Fails when it is so already.
    let _ = setsid();
    setns(fs::File::open(&args.netns)?, CloneFlags::CLONE_NEWNET)?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("barge-agent")
        .args(["pause", "--init", "--root"])
        .arg(&args.root)
        .env_clear()
        .current_dir("/")
        // It ends unless it is told to stay: nobody would find it.
        .stdin(Stdio::piped())
        // It says that it is confined, or why it is not.
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stay = child.stdin.take();
    if let Some(mut answer) = child.stdout.take() {
        let mut first = [0];
        answer.read_exact(&mut first)?;
        if first != CONFINED {
            let mut said = String::new();
            answer.read_to_string(&mut said)?;
            return Err(io::Error::other(said));
        }
    }
    let keep = || {
        fs::write(&args.note, child.id().to_string())?;
        let source = PathBuf::from(format!("/proc/{}/ns/pid", child.id()));
        let none = None::<&str>;
        mount(Some(&source), &args.pin, none, MsFlags::MS_BIND, none)?;
        match stay {
            Some(mut stay) => stay.write_all(b"."),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    keep()
}

/// Is the first process of a namespace, until somebody outside of it says TERM or kills it. The kernel lets nobody inside kill it, and from
/// there TERM does nothing.
///
/// # Errors
/// It is not to stay, or the kernel refuses something.
pub fn hold(root: &Path) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let told = SignalFd::new(&signals)?;
    let confined = confine(root);
    let mut answer = io::stdout();
    match &confined {
        Ok(()) => answer.write_all(&CONFINED)?,
        Err(why) => write!(answer, "!cannot confine the process: {why}")?,
    }
    answer.flush()?;
    confined?;
    io::stdin().read_exact(&mut [0])?;
    loop {
        reap()?;
        let signal = told.read_signal()?;
        // Senders outside of the namespace have no number in it.
        let ends = |it: siginfo| it.ssi_signo == Signal::SIGTERM as u32 && it.ssi_pid == 0;
        if signal.is_some_and(ends) {
            return Ok(());
        }
    }
}

/// Leaves the process an empty root, which nothing leads out of, and no rights. A root that was only changed by `chroot` would not do: `/proc/1/root/..` of whoever may
/// trace the process would be the machine's files.
fn confine(root: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("mode=0555,size=4k,nr_inodes=1");
    mount(Some("pause"), root, Some("tmpfs"), flags, options)?;
    chdir(root)?;
    // The old root comes to lie over the new one, and goes.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    setgroups(&[])?;
    setgid(Gid::from_raw(NOBODY))?;
    setuid(Uid::from_raw(NOBODY))?;
    set_no_new_privs()?;
    set_dumpable(false)?;
    set_name(c"barge-pause")?;
    Ok(())
}

/// Takes note of all that have ended; the kernel forgets them then.
fn reap() -> io::Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
