//! One session that a taker carries on, and what came of it.

use std::net::SocketAddrV4;

use backdoor_core::recovery::SessionToRecover;
use backdoor_core::takeover::{Answer, Epoch, Input, Outcome, PartyId, Step, Takeover};
use backdoor_host::tcp::Queues;

use super::offers::AnswerHead;
use super::party;

/// When a session got how far, in monotonic ns; 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Marks {
    /// The claim can't be given back any more.
    pub claimed_ns: u64,
    /// The old owner is cut off.
    pub fenced_ns: u64,
    /// Its state is here.
    pub extracted_ns: u64,
    /// The target serves.
    pub served_ns: u64,
}

/// A session and how far its takeover has got.
pub(super) struct Rescued {
    pub(super) session: SessionToRecover,
    pub(super) takeover: Takeover,
    pub(super) payload: Vec<u8>,
    /// Whether it has a connection to a client, as far as is known.
    pub(super) has_client: bool,
    /// Where that client finds it.
    pub(super) address: Option<SocketAddrV4>,
    /// Whether it was decided to whom it is offered first.
    pub(super) is_aimed: bool,
    pub(super) queues: Option<Queues>,
    pub(super) marks: Marks,
    /// Why it is not carried on, in the words of each that could not, the last one last; none for who fenced.
    why: Vec<(Option<PartyId>, String)>,
    pub(super) trouble: Option<String>,
    /// Who was offered it, and has not answered.
    pub(super) asked: Option<PartyId>,
    /// Everybody of whom that is so, asked last or not: each may take it yet.
    unanswered: Vec<PartyId>,
    /// Whether it goes on with all its input, by whoever said that it serves it.
    input_known: Option<bool>,
}

impl Rescued {
    pub(super) fn new(session: SessionToRecover, takeover: Takeover) -> Self {
        Rescued {
            session,
            takeover,
            payload: Vec::new(),
            has_client: true,
            address: None,
            is_aimed: false,
            queues: None,
            marks: Marks::default(),
            why: Vec::new(),
            trouble: None,
            asked: None,
            unanswered: Vec::new(),
            input_known: None,
        }
    }

    /// Whether it can't be offered yet, and will be soon. What is in another taker's hands is not waited for.
    pub(super) fn is_on_its_way(&self) -> bool {
        !matches!(self.takeover.step(), Step::Offering { .. } | Step::Waiting { .. } | Step::Over(_))
    }

    /// Whether its owner may still begin a commit, and won't soon.
    pub(super) fn is_being_claimed(&self) -> bool {
        matches!(
            self.takeover.step(),
            Step::Looking
                | Step::Claiming
                | Step::Verifying
                | Step::Committing
                | Step::Superseding { .. }
                | Step::Fencing
        )
    }

    /// Whether it is to be carried on: by this taker or another one, or was.
    pub(super) fn goes_on(&self) -> bool {
        !matches!(self.takeover.outcome(), Some(outcome) if !matches!(outcome, Outcome::Moved { .. }))
    }

    /// A target's answer, as its takeover is to hear it; none if it is to another offer.
    pub(super) fn answered(&mut self, by: PartyId, answer: AnswerHead) -> Option<Input> {
        let AnswerHead { epoch, serving, why, input_known, served_ns, .. } = answer;
        let epoch = Epoch(epoch);
        if let Some(answered) = self.unanswered.iter().position(|asked| *asked == by) {
            self.unanswered.remove(answered);
        }
        if epoch != self.takeover.epoch() {
            return None;
        }
        self.asked = None;
        // Whoever serves it has the last word: a refusal that comes later is that of an offer made twice.
        if self.input_known.is_none() {
            if serving {
                self.why.clear();
            }
            self.failed(Some(by), why);
        }
        if serving {
            self.marks.served_ns = served_ns;
            self.input_known = Some(input_known);
        }
        let answer = if serving { Answer::Serving } else { Answer::Declined };
        Some(Input::Answered { by, epoch, answer })
    }

    /// It was offered to this target.
    pub(super) fn offered(&mut self, to: PartyId) {
        self.asked = Some(to);
        self.unanswered.push(to);
    }

    /// This target answers nothing any more.
    pub(super) fn is_gone(&mut self, target: PartyId) {
        self.unanswered.retain(|asked| *asked != target);
    }

    /// Whether somebody may take it yet.
    fn is_in_doubt(&self) -> bool {
        let is_ours = matches!(self.takeover.step(), Step::Offering { .. } | Step::Over(_));
        !is_ours || !self.unanswered.is_empty()
    }

    /// Somebody could not do its part, and says why, or no more; `None` for who fences.
    pub(super) fn failed(&mut self, who: Option<PartyId>, why: Option<String>) {
        self.why.retain(|(before, _)| *before != who);
        self.why.extend(why.map(|why| (who, why)));
    }

    /// What is to be told of it at the end.
    pub(super) fn ending(self) -> Ending {
        let in_doubt = self.is_in_doubt();
        let Rescued { session, takeover, marks, why, trouble, payload, input_known, unanswered, .. } = self;
        let outcome = takeover.outcome();
        // By an offer of ours, and not by another taker's.
        let by_ours = matches!(outcome, Some(Outcome::Moved { epoch, .. }) if epoch == takeover.epoch());
        let unheard = by_ours && marks.extracted_ns > 0 && input_known.is_none();
        let unheard = unheard.then(|| "it has not said that it serves".to_owned());
        let silent = unanswered.first().filter(|_| outcome.is_none());
        let silent = silent.map(|target| format!("{} has not answered", party::name(target.number())));
        let why = why.into_iter().map(|(_, why)| why).reduce(|all, why| format!("{all}; {why}"));
        let why = [why, trouble, unheard, silent].into_iter().flatten().reduce(|all, why| format!("{all}; {why}"));
        Ending { session, outcome, marks, why, state_bytes: payload.len() as u64, input_known, in_doubt }
    }
}

/// What came of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Which.
    pub session: SessionToRecover,
    /// How it ended; `None` if time was up.
    pub outcome: Option<Outcome>,
    /// When it got how far.
    pub marks: Marks,
    /// What the targets that declined it said, the last one last, or what else went wrong.
    pub why: Option<String>,
    /// Bytes of its State Box's payload, as they were extracted.
    pub state_bytes: u64,
    /// Whether all input is there that the old owner's kernel had acknowledged; `None` if nobody has said that it serves.
    pub input_known: Option<bool>,
    /// Whether somebody may take it yet: who was offered it and has not answered, or another taker's target.
    pub in_doubt: bool,
}
