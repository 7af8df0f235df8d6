//! Finding a node's Progress Box: hook table header, hook table, Progress Box header.

use crate::FormatError;
use crate::hook_table::{HOOK_HEADER_WORDS, HookTable, Purpose, hook_count, hook_table_words};
use crate::progress_box::{HEADER_WORDS, Header};
use crate::transport::{BufferId, PostError, RegionKey, RemoteSlice, Transport};

/// Where a node keeps what the monitor reads.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) hooks: HookTable,
    pub(super) progress_box: RemoteSlice,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum AttachError {
    Format(FormatError),
    NoProgressBox,
}

impl From<FormatError> for AttachError {
    fn from(error: FormatError) -> Self {
        AttachError::Format(error)
    }
}

#[derive(Clone, Debug, Default)]
enum Step {
    #[default]
    TableHeader,
    Table {
        hooks: usize,
    },
    BoxHeader(Target),
}

#[derive(Debug, Default)]
pub(super) struct Attach {
    step: Step,
    buffer: Option<BufferId>,
    release: Vec<BufferId>,
}

impl Attach {
    /// Begins anew.
    pub(super) fn restart(&mut self) {
        self.step = Step::TableHeader;
        self.release.extend(self.buffer.take());
    }

    /// Keeps a buffer that is still in use until it can be given back.
    pub(super) fn release_later(&mut self, buffer: BufferId) {
        self.release.push(buffer);
    }

    pub(super) fn release_what_is_free<T: Transport>(&mut self, transport: &mut T) {
        if self.release.is_empty() {
            return;
        }
        self.release.retain(|buffer| transport.release(*buffer).is_err());
    }

    /// What to READ next, and where to.
    pub(super) fn next_read<T: Transport>(
        &mut self,
        hook_table: RegionKey,
        transport: &mut T,
    ) -> Result<(RemoteSlice, BufferId), PostError> {
        let table = |words: usize| RemoteSlice { key: hook_table, offset: 0, words: words as u64 };
        let from = match &self.step {
            Step::TableHeader => table(HOOK_HEADER_WORDS),
            Step::Table { hooks } => table(hook_table_words(*hooks)),
            Step::BoxHeader(target) => RemoteSlice { words: HEADER_WORDS as u64, ..target.progress_box },
        };
        self.release.extend(self.buffer.take());
        self.release_what_is_free(transport);
        let buffer = transport.allocate(from.words as usize)?;
        self.buffer = Some(buffer);
        Ok((from, buffer))
    }

    /// Takes in what the last READ brought; answers the target once it is known.
    pub(super) fn take_in<T: Transport>(&mut self, transport: &T) -> Result<Option<(Target, Header)>, AttachError> {
        let Some(words) = self.buffer.and_then(|buffer| transport.buffer(buffer).ok()) else { return Ok(None) };
        match &self.step {
            Step::TableHeader => {
                self.step = Step::Table { hooks: hook_count(words)? };
                Ok(None)
            }
            Step::Table { .. } => {
                let hooks = HookTable::read(words)?;
                let hook = hooks.find(Purpose::Monitoring).ok_or(AttachError::NoProgressBox)?;
                let progress_box = hook.memory;
                if progress_box.words < HEADER_WORDS as u64 {
                    return Err(AttachError::NoProgressBox);
                }
                self.step = Step::BoxHeader(Target { hooks, progress_box });
                Ok(None)
            }
            Step::BoxHeader(target) => {
                let header = Header::read(words)?;
                if target.progress_box.words < header.geometry.total_words() as u64 {
                    return Err(AttachError::NoProgressBox);
                }
                Ok(Some((target.clone(), header)))
            }
        }
    }
}
