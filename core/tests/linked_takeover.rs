//! Two processes, a link between them, a State Box each; any interleaving of requests, commits, packets, lost connections
//! and deaths; then both are carried on from their boxes, again and again. Every request is acted upon once, and answered
//! once.
#![cfg(not(loom))]

use std::collections::VecDeque;

use backdoor_core::channels::{Arrival, Channel, ChannelId, Frame, IpcEnd, LinkId, SessionPayload};
use proptest::prelude::*;
use proptest::test_runner::Config;

const LINK: LinkId = LinkId(0x5eed);
const PEER: ChannelId = ChannelId(1);
const FRONT: usize = 0;
const WORKER: usize = 1;

/// One of the two, and its State Box.
struct Side {
    end: IpcEnd,
    /// Of the front: how many requests it has taken from its client. Of the worker: unused.
    taken: u64,
    /// Of the worker: the requests acted upon, in order. Of the front: the answers promised to the client, in order.
    done: Vec<u64>,
    state_box: Vec<u8>,
    /// The claim word.
    claimed: bool,
    /// A commit that has looked at the claim word and is not published.
    commit: Option<Vec<u8>>,
    lives: bool,
}

impl Side {
    fn new(end: IpcEnd, taken: u64, done: Vec<u64>) -> Self {
        let mut side = Side { end, taken, done, state_box: vec![], claimed: false, commit: None, lives: true };
        side.state_box = side.payload();
        side
    }

    fn payload(&self) -> Vec<u8> {
        let application: Vec<u8> =
            std::iter::once(&self.taken).chain(&self.done).flat_map(|number| number.to_le_bytes()).collect();
        let mut payload = Vec::new();
        let channels = [(PEER, Channel::Ipc(self.end.state()))];
        SessionPayload::encode(&application, &channels, &mut payload).unwrap();
        payload
    }

    fn of(state_box: &[u8]) -> Self {
        let payload = SessionPayload::decode(state_box).unwrap();
        let Some(Channel::Ipc(state)) = payload.channel(PEER) else { panic!("{payload:?}") };
        let (taken, done) = read(&payload);
        Side::new(IpcEnd::resume(&state), taken, done)
    }

    /// Whether it can do anything now. While it commits it does nothing else.
    fn acts(&self) -> bool {
        self.lives && self.commit.is_none()
    }
}

fn read(payload: &SessionPayload<'_>) -> (u64, Vec<u64>) {
    let mut numbers = payload.application().chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    (numbers.next().unwrap(), numbers.collect())
}

/// Both, and what is on its way.
struct World {
    sides: [Side; 2],
    /// Packets on their way to each.
    wires: [VecDeque<Vec<u8>>; 2],
    /// Answers that the client has seen, over all that ever served it.
    seen: Vec<u64>,
    /// Whether nothing of theirs reaches the client any more. Each other they reach.
    fenced: bool,
}

/// What happens next, and to whom.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The front takes a request from its client.
    Request,
    /// A commit looks at its claim word.
    Look(usize),
    /// It is published.
    Publish(usize),
    Send(usize),
    Deliver(usize),
    Disconnect,
    Connect,
    /// The front sends what it has promised.
    Show,
    Die(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let side = || 0usize..2;
    prop_oneof![
        3 => Just(Step::Request),
        6 => side().prop_map(Step::Look),
        6 => side().prop_map(Step::Publish),
        4 => side().prop_map(Step::Send),
        6 => side().prop_map(Step::Deliver),
        1 => Just(Step::Disconnect),
        2 => Just(Step::Connect),
        2 => Just(Step::Show),
        1 => side().prop_map(Step::Die),
    ]
}

fn any_steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any_step(), 0..most)
}

/// What two processes do, and how they are taken over then: what happens before, between the claims, before the first
/// State Box is read, and between the two; who is claimed first, and who is read first.
type Life = ([Vec<Step>; 4], usize, usize);

fn any_lives() -> impl Strategy<Value = Vec<Life>> {
    let steps = [any_steps(120), any_steps(12), any_steps(12), any_steps(12)];
    proptest::collection::vec((steps, 0usize..2, 0usize..2), 1..4)
}

impl World {
    fn new() -> Self {
        let side = || Side::new(IpcEnd::new(LINK), 0, vec![]);
        World { sides: [side(), side()], wires: Default::default(), seen: vec![], fenced: false }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Request if self.sides[FRONT].acts() => {
                let front = &mut self.sides[FRONT];
                front.taken += 1;
                front.end.push(&front.taken.to_le_bytes());
            }
            Step::Look(who) if self.sides[who].acts() && !self.sides[who].claimed => {
                self.sides[who].commit = Some(self.sides[who].payload());
            }
            Step::Publish(who) if self.sides[who].lives => {
                let side = &mut self.sides[who];
                if let Some(payload) = side.commit.take() {
                    side.state_box = payload;
                    side.end.committed();
                }
            }
            Step::Send(who) if self.sides[who].acts() => self.send(who),
            Step::Deliver(who) if self.sides[who].acts() => {
                if let Some(packet) = self.wires[who].pop_front() {
                    self.deliver(who, &packet);
                }
            }
            Step::Disconnect => self.disconnect(),
            Step::Connect if self.sides.iter().all(Side::acts) => self.connect(),
            // Whatever the claim word says: it may have been looked at before.
            Step::Show if self.sides[FRONT].acts() && !self.fenced => {
                let (_, done) = read(&SessionPayload::decode(&self.sides[FRONT].state_box).unwrap());
                assert!(done.starts_with(&self.seen));
                self.seen = done;
            }
            Step::Die(who) => {
                self.sides[who].lives = false;
                self.disconnect();
            }
            _ => {}
        }
    }

    fn send(&mut self, who: usize) {
        let side = &mut self.sides[who];
        let frames: Vec<(u64, Vec<u8>)> =
            side.end.to_send().map(|(number, message)| (number, message.into())).collect();
        let mut packet = Vec::new();
        if let Some(number) = side.end.acknowledgement() {
            Frame::Acknowledged { number }.encode(&mut packet);
            self.wires[1 - who].push_back(packet.clone());
            side.end.told(number);
        }
        for (number, message) in frames {
            Frame::Message { number, message: &message }.encode(&mut packet);
            self.wires[1 - who].push_back(packet.clone());
            side.end.sent(number);
        }
    }

    fn deliver(&mut self, who: usize, packet: &[u8]) {
        let side = &mut self.sides[who];
        match Frame::decode(packet).unwrap() {
            Frame::Acknowledged { number } => side.end.acknowledged(number).unwrap(),
            Frame::Message { number, message } => {
                if side.end.arrives(number).unwrap() == Arrival::New {
                    side.done.push(u64::from_le_bytes(message.try_into().unwrap()));
                    if who == WORKER {
                        // How many requests it has acted upon.
                        side.end.push(&(side.done.len() as u64).to_le_bytes());
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn disconnect(&mut self) {
        self.wires.iter_mut().for_each(VecDeque::clear);
        self.sides.iter_mut().for_each(|side| side.end.disconnected());
    }

    fn connect(&mut self) {
        self.disconnect();
        let [front, worker] = &mut self.sides;
        let (greeting, answer) = (front.end.greet(), worker.end.greet());
        front.end.greeted(answer).expect("the ends fit together");
        worker.end.greeted(greeting).expect("the ends fit together");
    }

    fn run(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.step(*step));
    }

    /// Lives, fails, and is carried on. `in_order`: both are claimed before one of them is read.
    fn live(&mut self, ([before, between_claims, claimed, between_reads], claims, reads): &Life, in_order: bool) {
        let (first, second) = (*reads, 1 - *reads);
        self.run(before);
        let state_boxes = if in_order {
            self.sides[*claims].claimed = true;
            self.run(between_claims);
            self.sides[1 - *claims].claimed = true;
            self.run(claimed);
            self.fenced = true;
            let one = self.sides[first].state_box.clone();
            self.run(between_reads);
            [one, self.sides[second].state_box.clone()]
        } else {
            self.sides[first].claimed = true;
            self.run(claimed);
            self.fenced = true;
            let one = self.sides[first].state_box.clone();
            self.run(between_reads);
            self.sides[second].claimed = true;
            [one, self.sides[second].state_box.clone()]
        };
        let mut heirs = state_boxes.each_ref().map(|state_box| Side::of(state_box));
        if first == WORKER {
            heirs.swap(0, 1);
        }
        self.sides = heirs;
        self.wires = Default::default();
        self.fenced = false;
    }

    /// Nothing happens any more but what must.
    fn come_to_rest(&mut self) {
        self.connect();
        for _ in 0..4 {
            for who in [FRONT, WORKER] {
                self.run(&[Step::Look(who), Step::Publish(who), Step::Send(who)]);
                while !self.wires[1 - who].is_empty() {
                    self.step(Step::Deliver(1 - who));
                }
            }
        }
        self.step(Step::Show);
    }
}

fn nothing_is_lost_nor_done_twice(lives: &[Life], in_order: bool) {
    let mut world = World::new();
    for life in lives {
        world.live(life, in_order);
    }
    world.step(Step::Request);
    world.come_to_rest();
    let [front, worker] = &world.sides;
    let all: Vec<u64> = (1..=front.taken).collect();
    assert_eq!(worker.done, all, "each request is acted upon once, in order");
    assert_eq!(front.done, all, "and answered once, by what it came to");
    assert_eq!(world.seen, all, "and the client has seen each answer once");
    assert_eq!((front.end.outbox_bytes(), worker.end.outbox_bytes()), (0, 0), "nothing is kept for nobody");
}

proptest! {
    #![proptest_config(Config::with_cases(1000))]
    #[test]
    fn whoever_fails_whenever_every_request_is_acted_upon_and_answered_once(lives in any_lives()) {
        nothing_is_lost_nor_done_twice(&lives, true);
    }
}

/// The front has looked at its claim word when it is claimed, and commits when its box was read; the worker acts upon what
/// is sent then.
fn a_late_commit() -> Life {
    let before = vec![Step::Connect, Step::Request, Step::Look(FRONT)];
    let between_reads =
        vec![Step::Publish(FRONT), Step::Send(FRONT), Step::Deliver(WORKER), Step::Look(WORKER), Step::Publish(WORKER)];
    ([before, vec![], vec![], between_reads], FRONT, FRONT)
}

#[test]
fn a_late_commit_is_in_neither_box_if_both_are_claimed_before_one_is_read() {
    nothing_is_lost_nor_done_twice(&[a_late_commit()], true);
}

/// The order of claims and READs is needed: without it two boxes may not fit together, and the ends say so.
#[test]
#[should_panic(expected = "the ends fit together: NeverSent")]
fn boxes_read_before_both_are_claimed_may_not_fit() {
    nothing_is_lost_nor_done_twice(&[a_late_commit()], false);
}

/// A message that came over one connection is committed, and acknowledged, over the next.
#[test]
fn what_is_acknowledged_after_a_lost_connection_is_believed() {
    let front = vec![Step::Request, Step::Look(FRONT), Step::Publish(FRONT), Step::Connect, Step::Send(FRONT)];
    let worker = vec![Step::Deliver(WORKER), Step::Connect, Step::Look(WORKER), Step::Publish(WORKER)];
    let answered = vec![Step::Send(WORKER), Step::Deliver(FRONT)];
    let life: Life = ([[front, worker, answered].concat(), vec![], vec![], vec![]], FRONT, FRONT);
    nothing_is_lost_nor_done_twice(&[life], true);
}
