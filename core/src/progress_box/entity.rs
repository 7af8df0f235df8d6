//! What the directory says of an entity.

use std::fmt;

use super::layout::{self, ENTRY_WORDS, IDENTITY, MAX_ENTITIES, MAX_GAUGES, entry};
use crate::Nanos;
use crate::checksum::checksum_of;
use crate::format::FormatError;
use crate::words::{as_bytes, pack, unpack};

/// Longest name of an entity.
pub const MAX_NAME_BYTES: usize = 40;
/// Most entities that one entity can say it depends on.
pub const MAX_DEPENDENCIES: usize = 4;

const NONE: u32 = u32::MAX;

/// An entity's place in the Progress Box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The level at which an entity's silence is a failure (paper, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureLevel {
    /// All clients of the node lose service.
    Os,
    /// All clients of one application lose service.
    Application,
    /// One client loses service.
    Session,
}

impl FailureLevel {
    /// All levels, widest first.
    pub const ALL: [FailureLevel; 3] = [FailureLevel::Os, FailureLevel::Application, FailureLevel::Session];

    /// The name used in files: `os`, `application`, `session`.
    pub const fn name(self) -> &'static str {
        match self {
            FailureLevel::Os => "os",
            FailureLevel::Application => "application",
            FailureLevel::Session => "session",
        }
    }
}

impl fmt::Display for FailureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A short UTF-8 name without control characters, held in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    bytes: [u8; MAX_NAME_BYTES],
    len: u8,
}

impl Name {
    /// Takes as much of `text` as fits, cut at a character; control characters become `?`.
    pub fn new(text: &str) -> Self {
        let mut name = Name { bytes: [0; MAX_NAME_BYTES], len: 0 };
        for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
            let start = name.len as usize;
            if start + c.len_utf8() > MAX_NAME_BYTES {
                break;
            }
            c.encode_utf8(&mut name.bytes[start..]);
            name.len += c.len_utf8() as u8;
        }
        name
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Every constructor stores whole characters, so the fallback is never taken.
        str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or("")
    }

    fn checked(bytes: &[u8], len: u8) -> Result<Self, FormatError> {
        let error = || IDENTITY.impossible("name length", u64::from(len));
        let text = bytes.get(..len as usize).ok_or_else(error)?;
        let text = str::from_utf8(text).map_err(|_| error())?;
        Ok(Name::new(text))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a session's State Box lies in the node's recovery region, and which claim word decides who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBoxLocation {
    /// First word in the recovery region.
    pub offset: u64,
    /// Length in words.
    pub words: u64,
    /// Index of the session's claim word in the claim region.
    pub claim: u32,
}

/// One entry of the directory: who is behind a liveness word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityRecord {
    /// Which use of the slot this is; a slot's next user has the next generation.
    pub generation: u32,
    /// Level of the failure that its silence means.
    pub level: FailureLevel,
    /// Silence longer than this while active is a failure.
    pub deadline: Nanos,
    /// How often it advances if it advances by a clock, such as an operating system's ticks; zero if it doesn't.
    pub period: Nanos,
    /// The gauge that says how much work waits for it (a [`Pending`](super::Pending)), kept by somebody else; `None` if
    /// nobody counts that.
    pub pending: Option<u16>,
    /// The entity that it runs in: a session's application, an application's operating system.
    pub parent: Option<Slot>,
    /// Entities that it waits for (an IPC chain), parent excluded.
    dependencies: [u32; MAX_DEPENDENCIES],
    /// Name for people.
    pub name: Name,
    /// Session number, unique on the node; 0 for what is no session.
    pub session: u64,
    /// Operating system's number of the process behind it; 0 if unknown.
    pub process: u64,
    /// Its State Box, if it keeps one.
    pub state_box: Option<StateBoxLocation>,
}

impl EntityRecord {
    /// A record with neither period, pending gauge, parent, dependencies nor State Box, of the slot's first generation.
    pub fn new(name: &str, level: FailureLevel, deadline: Nanos) -> Self {
        EntityRecord {
            generation: 0,
            level,
            deadline,
            period: Nanos::ZERO,
            pending: None,
            parent: None,
            dependencies: [NONE; MAX_DEPENDENCIES],
            name: Name::new(name),
            session: 0,
            process: 0,
            state_box: None,
        }
    }

    /// The same, running inside `parent`.
    pub fn within(mut self, parent: Slot) -> Self {
        self.parent = Some(parent);
        self
    }

    /// The same, advancing every `period`.
    pub fn every(mut self, period: Nanos) -> Self {
        self.period = period;
        self
    }

    /// The same, with the work that waits for it counted in `gauge`.
    pub fn owing(mut self, gauge: u16) -> Self {
        self.pending = Some(gauge);
        self
    }

    /// The same, waiting for `slot` too. Dependencies beyond [`MAX_DEPENDENCIES`] are not recorded.
    pub fn depending_on(mut self, slot: Slot) -> Self {
        if let Some(free) = self.dependencies.iter_mut().find(|d| **d == NONE) {
            *free = slot.0;
        }
        self
    }

    /// The same, waiting for nobody.
    pub fn without_dependencies(mut self) -> Self {
        self.dependencies = [NONE; MAX_DEPENDENCIES];
        self
    }

    /// Which claim word is its own; without a State Box, one that there isn't.
    pub fn claim_word(&self) -> u32 {
        self.state_box.map_or(NONE, |state_box| state_box.claim)
    }

    /// Entities that it waits for, parent excluded.
    pub fn dependencies(&self) -> impl Iterator<Item = Slot> + '_ {
        self.dependencies.iter().filter(|d| **d != NONE).map(|d| Slot(*d))
    }

    pub(super) fn encode(&self, slot: Slot) -> [u64; ENTRY_WORDS] {
        let mut words = [0; ENTRY_WORDS];
        // A gauge that no box can have is none.
        let pending = self.pending.filter(|gauge| usize::from(*gauge) < MAX_GAUGES).map_or(0, |gauge| gauge + 1);
        let [pending_low, pending_high] = pending.to_le_bytes();
        let kind = u32::from_le_bytes([self.level as u8 + 1, self.name.len, pending_low, pending_high]);
        words[entry::KIND] = pack(self.generation, kind);
        words[entry::DEADLINE_NS] = self.deadline.0;
        words[entry::PARENT_AND_CLAIM] = pack(self.parent.map_or(NONE, |p| p.0), self.claim_word());
        if let Some(state_box) = self.state_box {
            words[entry::STATE_BOX_OFFSET] = state_box.offset;
            words[entry::STATE_BOX_WORDS] = state_box.words;
        }
        words[entry::SESSION] = self.session;
        words[entry::PROCESS] = self.process;
        words[entry::PERIOD_NS] = self.period.0;
        let [a, b, c, d] = self.dependencies;
        words[entry::DEPENDENCIES].copy_from_slice(&[pack(a, b), pack(c, d)]);
        let (chunks, _) = self.name.bytes.as_chunks::<8>();
        for (word, chunk) in words[entry::NAME].iter_mut().zip(chunks) {
            *word = u64::from_le_bytes(*chunk);
        }
        words[entry::CHECK] = Self::check_of(words, slot.0);
        words
    }

    /// The check of an entry for `slot`.
    fn check_of(mut words: [u64; ENTRY_WORDS], slot: u32) -> u64 {
        words[entry::CHECK] = u64::from(slot);
        checksum_of(&words)
    }

    /// Reads the entry of `slot`; `None` if the entry was never written. Checks everything.
    pub(super) fn decode(words: &[u64; ENTRY_WORDS], slot: Slot) -> Result<Option<Self>, FormatError> {
        if words.iter().all(|word| *word == 0) {
            return Ok(None);
        }
        if words[entry::CHECK] != Self::check_of(*words, slot.0) {
            return Err(FormatError::Checksum { what: "Progress Box directory entry" });
        }
        let (generation, kind) = unpack(words[entry::KIND]);
        let [level, name_len, pending_low, pending_high] = kind.to_le_bytes();
        let level = match level {
            1 => FailureLevel::Os,
            2 => FailureLevel::Application,
            3 => FailureLevel::Session,
            other => return Err(IDENTITY.impossible("failure level", u64::from(other))),
        };
        let pending = match u16::from_le_bytes([pending_low, pending_high]) {
            0 => None,
            gauge if usize::from(gauge) <= MAX_GAUGES => Some(gauge - 1),
            gauge => return Err(IDENTITY.impossible("pending gauge", u64::from(gauge))),
        };
        let slot_or_none = |field, raw: u32| match raw {
            NONE => Ok(None),
            raw if (raw as usize) < MAX_ENTITIES => Ok(Some(Slot(raw))),
            raw => Err(IDENTITY.impossible(field, u64::from(raw))),
        };
        let (parent, claim) = unpack(words[entry::PARENT_AND_CLAIM]);
        let mut dependencies = [NONE; MAX_DEPENDENCIES];
        for (pair, word) in dependencies.chunks_exact_mut(2).zip(&words[layout::entry::DEPENDENCIES]) {
            let (low, high) = unpack(*word);
            pair.copy_from_slice(&[low, high]);
        }
        for raw in dependencies {
            slot_or_none("dependency", raw)?;
        }
        let state_box = (words[entry::STATE_BOX_WORDS] > 0).then(|| StateBoxLocation {
            offset: words[entry::STATE_BOX_OFFSET],
            words: words[entry::STATE_BOX_WORDS],
            claim,
        });
        Ok(Some(EntityRecord {
            generation,
            level,
            deadline: Nanos(words[entry::DEADLINE_NS]),
            period: Nanos(words[entry::PERIOD_NS]),
            pending,
            parent: slot_or_none("parent", parent)?,
            dependencies,
            name: Name::checked(as_bytes(&words[entry::NAME]), name_len)?,
            session: words[entry::SESSION],
            process: words[entry::PROCESS],
            state_box,
        }))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_record_comes_back() {
        let mut record = EntityRecord::new("kv/client 7 ü", FailureLevel::Session, Nanos::from_millis(20))
            .within(Slot(3))
            .depending_on(Slot(4))
            .depending_on(Slot(5));
        record.generation = 9;
        record.period = Nanos::from_millis(1);
        record.pending = Some(MAX_GAUGES as u16 - 1);
        record.session = 77;
        record.process = 4242;
        record.state_box = Some(StateBoxLocation { offset: 512, words: 140, claim: 6 });
        let words = record.encode(Slot(8));
        assert_eq!(EntityRecord::decode(&words, Slot(8)), Ok(Some(record)));
        assert_eq!(record.dependencies().collect::<Vec<_>>(), [Slot(4), Slot(5)]);
    }

    #[test]
    fn an_entry_copied_to_another_slot_is_refused() {
        let words = EntityRecord::new("a", FailureLevel::Os, Nanos(1)).encode(Slot(0));
        assert!(EntityRecord::decode(&words, Slot(1)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(words: [u64; ENTRY_WORDS], slot: u32) {
            let _ = EntityRecord::decode(&words, Slot(slot));
        }

        #[test]
        fn arbitrary_words_with_a_right_checksum_never_panic(mut words: [u64; ENTRY_WORDS], slot: u32) {
            words[entry::CHECK] = EntityRecord::check_of(words, slot);
            let _ = EntityRecord::decode(&words, Slot(slot));
        }

        #[test]
        fn any_flipped_bit_is_noticed(word in 0..ENTRY_WORDS, bit in 0..64) {
            let mut words = EntityRecord::new("app", FailureLevel::Application, Nanos(5)).encode(Slot(2));
            words[word] ^= 1u64 << bit;
            prop_assert!(EntityRecord::decode(&words, Slot(2)).is_err());
        }

        #[test]
        fn names_hold_any_text(text in ".{0,80}") {
            let name = Name::new(&text);
            prop_assert!(name.as_str().len() <= MAX_NAME_BYTES);
        }
    }
}
