//! A rescue of a node in this process, whose sessions are opened and offered as the tests like.

use std::sync::mpsc::{self, Sender};

use backdoor_core::channels::{ChannelId, IpcEnd, LinkId};
use backdoor_core::hook_table::{HookTable, Purpose as For};
use backdoor_core::takeover::{Outcome, Ownership};
use backdoor_core::transport::{LocalSlice, Operation, WorkId, WorkRequest};
use backdoor_host::agent::{Agent, AgentConfig};
use backdoor_host::app::{App, Node, Session};
use backdoor_host::attach::attach_local;
use backdoor_transports::shm::ShmTransport;

use super::*;
use crate::live::web::offers::MAX_BODY_BYTES;

const ME: PartyId = PartyId::new(1).unwrap();
const TARGET: PartyId = PartyId::new(2).unwrap();

/// What was offered: session, offers that follow, sessions in all.
type Batch = Vec<(u64, u32, u64)>;

/// The world around a rescue, which opens another session right before the first fence.
struct Around {
    is_fenced: bool,
    /// Whether the owner goes on meanwhile.
    is_trusted_again: bool,
    app: App,
    sessions: Vec<Session>,
    /// Whether a session was its owner's when the state of another was about to be read.
    read_too_early: bool,
    /// Whose input is too long for an offer.
    too_large: Option<u64>,
    batches: Vec<Batch>,
    answers: Sender<Heard>,
    agent: Agent,
    _directory: tempfile::TempDir,
}

impl Around {
    fn open(&mut self) -> u64 {
        let mut session = self.app.open_session("client", Nanos::from_secs(9), 64).unwrap();
        session.commit(b"state").unwrap();
        self.sessions.push(session);
        self.sessions.last().unwrap().number()
    }
}

impl Surroundings for Around {
    fn fence(&mut self) -> Result<(), String> {
        if !std::mem::replace(&mut self.is_fenced, true) {
            self.open();
        }
        Ok(())
    }

    fn queues(&mut self, sessions: &[u64]) -> Vec<Result<Option<Queues>, String>> {
        self.read_too_early |= self.sessions.iter().any(|session| session.ownership() != Ownership::Lost);
        let queues = |session: &u64| {
            let unread = vec![0; if self.too_large == Some(*session) { MAX_BODY_BYTES as usize } else { 0 }];
            Ok(Some(Queues { acknowledged: 0, sent: 0, received: 0, ended: false, unread, unacknowledged: Vec::new() }))
        };
        sessions.iter().map(queues).collect()
    }

    fn offer(&mut self, batches: &[super::Batch<'_>]) -> Vec<Result<(), String>> {
        let offer = |batch: &super::Batch<'_>| {
            let heads = batch
                .offered
                .iter()
                .map(|offered| (offered.head.offer().unwrap().seen.session, offered.head.more, offered.head.all));
            self.batches.push(heads.collect());
            // Nobody answers any more: the rescue is over as soon as it has looked at the claim words.
            self.answers.send((batch.to, FromTarget::Gone)).unwrap();
            Ok(())
        };
        batches.iter().map(offer).collect()
    }

    fn is_trusted_again(&mut self) -> bool {
        assert!(!self.is_fenced, "there is no way back");
        self.is_trusted_again
    }

    fn check(&self, _: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }
}

/// A node with so many sessions; a way to its memory; and where that is.
fn node(sessions: usize) -> (Around, ShmTransport, Memory, mpsc::Receiver<Heard>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let agent = Agent::start(AgentConfig::at(&socket)).unwrap();
    let app = Node::connect(&socket).unwrap().register("app", Nanos::from_secs(9)).unwrap();
    let (answers, heard) = mpsc::channel();
    let mut around = Around {
        is_fenced: false,
        is_trusted_again: false,
        read_too_early: false,
        app,
        sessions: Vec::new(),
        too_large: None,
        batches: Vec::new(),
        answers,
        agent,
        _directory: directory,
    };
    for _ in 0..sessions {
        around.open();
    }
    let (mut transport, link) = attach_local(&socket).unwrap().into_parts();
    let words = link.hook_table_words();
    let into = LocalSlice::start_of(transport.allocate(words).unwrap());
    let from = RemoteSlice { key: link.hook_table(), offset: 0, words: words as u64 };
    transport.post(&[WorkRequest { id: WorkId(1), operation: Operation::Read { from, into } }]).unwrap();
    transport.poll(&mut Vec::new());
    let hooks = HookTable::read(transport.buffer(into.buffer).unwrap()).unwrap();
    let memory = |purpose| hooks.find(purpose).unwrap().memory;
    let (progress, states, claims) = (memory(For::Monitoring), memory(For::Recovery), memory(For::Claim));
    let memory = Memory { agent: around.agent.incarnation(), progress, states, claims };
    (around, transport, memory, heard)
}

/// Takes over until nothing more is to be seen.
fn rescued(around: &mut Around, transport: &mut ShmTransport, memory: Memory, heard: &Receiver<Heard>) -> Vec<Ending> {
    let sessions = sessions_in(transport, memory.progress).unwrap();
    let until = clock::now() + Nanos::from_millis(100);
    let plan = Plan { config: TakeoverConfig::default(), me: ME, targets: vec![TARGET], memory, until };
    rescue(plan, &sessions, transport, around, heard)
}

#[test]
fn sessions_opened_until_the_fence_are_offered_together_with_the_others() {
    let (mut around, mut transport, memory, heard) = node(3);
    let endings = rescued(&mut around, &mut transport, memory, &heard);
    let first = &around.batches[0];
    let mut sessions: Vec<u64> = first.iter().map(|(session, ..)| *session).collect();
    sessions.sort_unstable();
    assert_eq!((sessions, endings.len()), (vec![1, 2, 3, 4], 4), "{:?}", around.batches);
    let followed: Vec<(u32, u64)> = first.iter().map(|(_, more, all)| (*more, *all)).collect();
    assert_eq!(followed, [(3, 4), (2, 4), (1, 4), (0, 4)]);
    assert!(endings.iter().all(|ending| ending.why.as_deref() == Some("node B closed the connection")), "{endings:?}");
}

#[test]
fn whoever_is_trusted_again_before_the_fence_gets_all_sessions_back() {
    let (mut around, mut transport, memory, heard) = node(3);
    around.is_trusted_again = true;
    let endings = rescued(&mut around, &mut transport, memory, &heard);
    assert!(!around.is_fenced && around.batches.is_empty());
    assert!(endings.iter().all(|ending| ending.outcome == Some(Outcome::GivenBack)), "{endings:?}");
    for session in &mut around.sessions {
        assert_eq!(session.ownership(), Ownership::Mine);
        session.commit(b"more").unwrap();
    }
}

#[test]
fn no_state_is_read_as_long_as_the_owner_of_another_may_commit() {
    let (mut around, mut transport, memory, heard) = node(3);
    rescued(&mut around, &mut transport, memory, &heard);
    assert_eq!((around.sessions.len(), around.read_too_early), (4, false));
}

#[test]
fn what_serves_only_another_process_has_no_client() {
    let talks_to_a_client = |channels: &[(ChannelId, Channel<'_>)]| {
        let mut payload = Vec::new();
        SessionPayload::encode(b"state", channels, &mut payload).unwrap();
        has_client(&SessionPayload::decode(&payload).unwrap())
    };
    let end = IpcEnd::new(LinkId(7));
    assert!(!talks_to_a_client(&[(ChannelId(1), Channel::Ipc(end.state()))]));
    assert!(talks_to_a_client(&[]), "nobody knows");
}

#[test]
fn a_session_that_is_too_large_is_declined_alone() {
    let (mut around, mut transport, memory, heard) = node(3);
    around.too_large = Some(2);
    let endings = rescued(&mut around, &mut transport, memory, &heard);
    let offered = |session| around.batches.iter().flatten().any(|(found, ..)| *found == session);
    assert!(offered(1) && !offered(2) && offered(3), "{:?}", around.batches);
    let declined = endings.iter().find(|ending| ending.session.record.session == 2).unwrap();
    assert!(declined.why.as_deref().is_some_and(|why| why.contains("bytes, over 67108864")), "{declined:?}");
}
