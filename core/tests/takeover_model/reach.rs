//! Liveness: from every state that can be reached, whatever went wrong on the way, the session can come to be served by
//! events of which none is a fault.
//!
//! That is more than "something can always happen", and it is what `eventually` of a checker that ignores cycles can't
//! tell. It implies that the session *does* come to be served wherever faults end and no event that stays possible is put
//! off for ever: the states are finitely many, and from each of them some such path leads there.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use stateright::Model;

use crate::Protocol;
use crate::world::{Event, World};

/// What an exploration found.
pub struct Found {
    /// Distinct states.
    pub states: usize,
    /// The way to a state from which nothing but further faults leads to where all is well; one of the shortest.
    pub stuck: Option<Vec<Event>>,
}

/// 128 bits by two multiplications a word, folded: among 10⁶ states, the odds of any collision are about 10⁻²⁷.
#[derive(Clone, Copy)]
struct Fingerprint(u64, u64);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 60);
        }
    }
    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn write_u64(&mut self, word: u64) {
        let fold = |state: u64, key: u64| {
            let product = u128::from(state ^ word) * u128::from(key);
            (product as u64 ^ (product >> 64) as u64).rotate_left(23)
        };
        (self.0, self.1) = (fold(self.0, 0x9e37_79b9_7f4a_7c15), fold(self.1, 0xd1b5_4a32_d192_ed03));
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

fn fingerprint(world: &World) -> u128 {
    let mut hasher = Fingerprint(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
    world.hash(&mut hasher);
    u128::from(hasher.0) << 64 | u128::from(hasher.1)
}

/// The graph of all states, by number in order of their distance from the start.
#[derive(Default)]
struct Graph {
    numbers: HashMap<u128, u32>,
    /// From where each state was first reached.
    parents: Vec<u32>,
    well: Vec<bool>,
    /// Steps that are no faults, from and to.
    steps: Vec<(u32, u32)>,
}

impl Graph {
    fn number(&mut self, world: World, parent: Option<u32>, queue: &mut VecDeque<World>) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(fingerprint(&world)).or_insert_with(|| {
            self.parents.push(parent.unwrap_or(next));
            self.well.push(world.is_well());
            queue.push_back(world);
            next
        })
    }

    /// Which states lead to one where all is well.
    fn lead_to_well(&self) -> Vec<bool> {
        let mut starts = vec![0usize; self.well.len() + 1];
        self.steps.iter().for_each(|(_, to)| starts[*to as usize + 1] += 1);
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        let (mut before, mut place) = (vec![0u32; self.steps.len()], starts.clone());
        for (from, to) in &self.steps {
            before[place[*to as usize]] = *from;
            place[*to as usize] += 1;
        }
        let mut reached = self.well.clone();
        let mut todo: Vec<usize> = (0..reached.len()).filter(|state| reached[*state]).collect();
        while let Some(state) = todo.pop() {
            for earlier in &before[starts[state]..starts[state + 1]] {
                if !std::mem::replace(&mut reached[*earlier as usize], true) {
                    todo.push(*earlier as usize);
                }
            }
        }
        reached
    }

    /// The events that lead to a state.
    fn way_to(&self, model: &Protocol, state: u32) -> Vec<Event> {
        let mut states = vec![state];
        while let Some(&first) = states.last().filter(|first| self.parents[**first as usize] != **first) {
            states.push(self.parents[first as usize]);
        }
        let first = states.pop().expect("at least the state itself");
        let mut worlds = model.init_states().into_iter();
        let mut world = worlds.find(|world| self.numbers[&fingerprint(world)] == first).expect("a state at the start");
        let mut way = Vec::new();
        while let Some(next) = states.pop() {
            let step =
                model.next_steps(&world).into_iter().find(|(_, world)| self.numbers[&fingerprint(world)] == next);
            let (event, after) = step.expect("it was reached from there");
            way.push(event);
            world = after;
        }
        way
    }
}

/// Explores all states.
pub fn explore(model: &Protocol) -> Found {
    let (mut graph, mut queue, mut events) = (Graph::default(), VecDeque::new(), Vec::new());
    for world in model.init_states() {
        graph.number(world, None, &mut queue);
    }
    let mut here = 0;
    while let Some(world) = queue.pop_front() {
        events.clear();
        model.actions(&world, &mut events);
        for event in &events {
            let Some(next) = model.next_state(&world, *event) else { continue };
            let next = graph.number(next, Some(here), &mut queue);
            if !event.fault {
                graph.steps.push((here, next));
            }
        }
        here += 1;
    }
    let stuck = graph.lead_to_well().iter().position(|leads| !leads);
    Found { states: graph.well.len(), stuck: stuck.map(|state| graph.way_to(model, state as u32)) }
}
