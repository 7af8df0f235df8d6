//! Arbitrary bytes as the packets of a link, each with its length in a byte before it: what is read is written again as
//! the same bytes, and an end that hears it believes no more than can be.
#![no_main]

use backdoor_core::channels::{Frame, Greeting, IpcEnd, LinkId};
use libfuzzer_sys::fuzz_target;

const LINK: LinkId = LinkId(7);
/// Messages that the end has sent, and committed.
const SENT: u64 = 3;
/// No kind of packet: the bytes after it are the numbers of a greeting.
const GREETING: u8 = 0;

fuzz_target!(|bytes: &[u8]| {
    let mut end = IpcEnd::new(LINK);
    for message in [b"one".as_slice(), b"", b"three"] {
        end.push(message);
    }
    end.committed();
    end.greet();
    end.greeted(Greeting { link: LINK, received: 0, sent: 0 }).expect("both are new");
    let (mut greeting, mut again) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while let Some((&length, after)) = rest.split_first() {
        let (mut packet, after) = after.split_at(after.len().min(usize::from(length)));
        rest = after;
        if let [GREETING, link, received, sent, ..] = *packet {
            let [link, received, sent] = [link, received, sent].map(u64::from);
            let says = Greeting { link: LinkId(link), received, sent };
            Frame::Hello { greeting: says, opens: false }.encode(&mut greeting);
            packet = &greeting;
        }
        let Ok(frame) = Frame::decode(packet) else { continue };
        frame.encode(&mut again);
        assert_eq!(again, packet);

        let before = end.state().received;
        match frame {
            Frame::Hello { greeting, .. } => {
                let _ = end.greeted(greeting);
            }
            Frame::Message { number, .. } => {
                let _ = end.arrives(number);
            }
            Frame::Acknowledged { number } => {
                let _ = end.acknowledged(number);
            }
            Frame::Bye => end.disconnected(),
            Frame::Refused { .. } => {
                end.greet();
            }
        }
        let state = end.state();
        assert!(state.received - before <= u64::from(matches!(frame, Frame::Message { .. })));
        assert_eq!(state.unacknowledged.last(), SENT);
        if let Some(last) = end.to_send().map(|(number, _)| number).max() {
            end.sent(last);
        }
        end.committed();
        if let Some(number) = end.acknowledgement() {
            assert!(number <= end.state().received);
            end.told(number);
        }
    }
});
