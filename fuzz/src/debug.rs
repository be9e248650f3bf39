//! DEBUG questions, and the answers about any state.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use rxrpc::proto::debug::{self, Question, Totals};
use rxrpc::proto::parse;

/// Every question has one answer of a known length that is itself no question.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(packets) = parse(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    for packet in packets {
        let Some(question) = Question::parse(&packet) else {
            continue;
        };
        let asked = &packet.header;
        let connection = crate::call_ops::connection();
        let about = (
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000),
            &connection.snapshot(),
        );
        let answers = match question {
            Question::Endpoint => [debug::endpoint(asked, &Totals::default()), debug::unknown(asked)],
            Question::Busy(_) | Question::Connection(_) => [
                debug::connection(asked, Some(about)),
                debug::connection(asked, None),
            ],
            Question::Totals => [debug::totals(asked, &Totals::default(), 0), debug::unknown(asked)],
            Question::Peer(_) => [debug::peer(asked, None), debug::unknown(asked)],
            Question::Unknown => [debug::unknown(asked), debug::unknown(asked)],
        };
        for answer in answers {
            assert!(answer.len() <= LARGEST);
            let mut answer = parse(answer.into()).expect("an answer");
            let answer = answer.next().expect("one packet");
            assert_eq!(
                (answer.header.call, answer.header.epoch),
                (asked.call, asked.epoch)
            );
            assert_eq!(Question::parse(&answer), None, "an answer is no question");
        }
    }
}

/// The counters (rxrpc.md 13).
const LARGEST: usize = 28 + 284;
