//! The moments at which a process may die with something half done.
//!
//! Storage calls a hook with the name of each point that it passes. Only tests set the hook, usually to end the
//! process there. The next start must find whole data.

use std::{fmt, sync::Arc};

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A moment between two steps of storage.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        impl Point {
            /// All of them, in the order of their appearance.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// Entries were handed over, and nothing of them is in the write-ahead log.
    AppendBeforeSync = "append.before_sync",
    /// Entries are on disk, and not reported yet.
    AppendAfterSync = "append.after_sync",
    /// A vote was given, and nothing of it is in the write-ahead log.
    VoteBeforeSync = "vote.before_sync",
    /// A vote is on disk, and not reported yet.
    VoteAfterSync = "vote.after_sync",
    /// Entries were applied in memory, and not handed to the database.
    ApplyBeforeWrite = "apply.before_write",
    /// The database has the applied entry in memory, and no caller was answered yet.
    ApplyBeforeFlush = "apply.before_flush",
    /// The state is durable, and there is no checkpoint of it.
    SnapshotBuildFlushed = "snapshot.build.flushed",
    /// The checkpoint is durable under its temporary name.
    SnapshotBuildWritten = "snapshot.build.written",
    /// The checkpoint has its name, and the one before it is still there.
    SnapshotBuildRenamed = "snapshot.build.renamed",
    /// What was received is durable under its temporary name.
    SnapshotInstallWritten = "snapshot.install.written",
    /// What was received has its name, and the state is the old one.
    SnapshotInstallRenamed = "snapshot.install.renamed",
    /// The new state is durable under its temporary name.
    SnapshotInstallCopied = "snapshot.install.copied",
    /// The new state has its name, and the old one is still there.
    SnapshotInstallBeforeSweep = "snapshot.install.before_sweep",
    /// Entries are to be purged, and nothing of that is in the write-ahead log.
    PurgeBeforeSync = "purge.before_sync",
    /// That entries are gone is on disk, and their files are still there.
    PurgeBeforeReclaim = "purge.before_reclaim",
}

/// Where the moments are told; nowhere by default.
#[derive(Clone, Default)]
pub struct Points(Option<Arc<dyn Fn(Point) + Send + Sync>>);

impl Points {
    /// Calls this at each.
    pub fn listen(listener: impl Fn(Point) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// This moment is now.
    pub fn pass(&self, point: Point) {
        if let Some(listener) = &self.0 {
            listener(point);
        }
    }
}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Points({})", self.0.is_some())
    }
}
