//! Arbitrary bytes as a session's payload: whatever is read is consistent, and is written again as the same bytes.
#![no_main]

use backdoor_core::Nanos;
use backdoor_core::channels::{Channel, KernelQueues, Output, SessionPayload, resume};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(payload) = SessionPayload::decode(bytes) else { return };
    let channels: Vec<_> = payload.channels().collect();
    for (_, channel) in &channels {
        match channel {
            Channel::Tcp(tcp) => {
                if let Output::Retained(retained) = tcp.output {
                    assert!(retained.len() as u64 <= tcp.intent);
                }
                assert!(tcp.acknowledged <= tcp.intent);
                resume(tcp, None, Nanos::MAX).expect("nothing contradicts it");
                let numbers = bytes.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first));
                let queues = KernelQueues {
                    acknowledged: numbers as u32,
                    sent: tcp.birth.send_base,
                    received: (numbers >> 32) as u32,
                    unread: bytes,
                    ended: false,
                };
                let _ = resume(tcp, Some(queues), Nanos::ZERO);
            }
            Channel::Ipc(ipc) => assert_eq!(ipc.unacknowledged.iter().count() as u64, ipc.unacknowledged.len()),
        }
    }
    let mut again = Vec::new();
    SessionPayload::encode(payload.application(), &channels, &mut again).expect("what is read can be written");
    assert_eq!(again, bytes);
});
