use super::super::content;
use super::*;
use proptest::prelude::*;

fn text(state: &WebState) -> String {
    String::from_utf8(state.output(state.kept_from..state.promised()).unwrap()).unwrap()
}

#[test]
fn a_count_is_answered_once() {
    let mut state = WebState::default();
    let request = b"POST /count HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(state.take(&request[..20], STATE_BYTES), Ok(20), "not whole, and not left behind");
    assert_eq!((state.promised(), state.begun.len()), (0, 20));
    assert_eq!(state.take(&request[20..], STATE_BYTES), Ok(request.len() - 20));
    assert!(text(&state).ends_with("\r\n\r\n1\n"), "{}", text(&state));
    let two = [request.as_slice(), request].concat();
    assert_eq!(state.take(&two, STATE_BYTES), Ok(two.len()));
    assert!(text(&state).ends_with("\r\n\r\n3\n"), "{}", text(&state));
}

#[test]
fn a_worker_is_asked_once_and_nothing_is_taken_before_it_answers() {
    let mut state = WebState::default();
    state.ask_a_worker();
    let request = b"POST /count HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    let two = [request.as_slice(), request].concat();
    assert_eq!((state.take(&two, STATE_BYTES), state.is_asking(), state.promised()), (Ok(request.len()), true, 0));
    let mut bytes = Vec::new();
    state.to_bytes(&mut bytes);
    let mut state = WebState::from_bytes(&bytes).unwrap();
    assert_eq!((state.take(request, STATE_BYTES), state.is_asking()), (Ok(0), true));
    state.counted(41);
    assert!(!state.is_asking() && text(&state).ends_with("\r\n\r\n41\n"), "{}", text(&state));
    state.counted(42);
    assert!(text(&state).ends_with("\r\n\r\n41\n"), "nobody asked");
}

#[test]
fn content_is_promised_in_pieces_and_made_again_from_any_byte() {
    let mut state = WebState::default();
    let length = CHUNK_BYTES + 100;
    state.take(format!("GET /bytes/{length}?seed=5 HTTP/1.1\r\n\r\n").as_bytes(), STATE_BYTES).unwrap();
    let head = state.promised();
    assert_eq!(state.take(b"GET /bytes/1 HTTP/1.1\r\n\r\n", STATE_BYTES), Ok(0), "one after the other");
    state.promise_more();
    state.promise_more();
    assert!(!state.has_more());
    assert_eq!(state.promised(), head + length);
    let mut content = vec![0; length as usize];
    content::fill(5, 0, &mut content);
    assert_eq!(state.output(head..head + length).unwrap(), content);
    assert_eq!(state.output(head + 65_530..head + 65_600).unwrap(), content[65_530..65_600], "across pieces");
    state.forget(head + 70);
    assert_eq!(state.kept_from, head, "the piece is not whole yet");
    assert_eq!(state.output(0..1), Err(WebError::NotKept { from: 0, kept: head }));
    state.forget(head + CHUNK_BYTES);
    assert_eq!(state.promised.len(), 1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for request in [
        "GET /secret HTTP/1.1\r\n\r\n",
        "GET /bytes/99999999999999999999 HTTP/1.1\r\n\r\n",
        "DELETE /count HTTP/1.1\r\n\r\n",
        "PUT /upload HTTP/1.1\r\n\r\n",
        "PUT /upload HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        "\u{0}\u{1}\r\n\r\n",
    ] {
        let refused = WebState::default().take(request.as_bytes(), STATE_BYTES);
        assert!(matches!(refused, Err(WebError::Request(_))), "{request:?}: {refused:?}");
    }
    assert!(matches!(WebState::from_bytes(b"{}"), Err(WebError::State(_))), "no line");
    assert_eq!(WebState::from_bytes(b""), Ok(WebState::default()));
    for state in [
        "{}",
        "[1]",
        r#"{"count":18446744073709551615,"doing":"Nothing","promised":[],"kept_from":0}"#,
        r#"{"count":0,"doing":"Nothing","promised":[],"kept_from":18446744073709551615}"#,
        r#"{"count":1,"doing":{"Receiving":{"left":1,"hash":[1]}},"promised":[],"kept_from":0}"#,
        "{\"count\":1,\"doing\":{\"Sending\":{\"seed\":1,\"at\":0,\"end\":9}},\"promised\":[],\"kept_from\":0}\nGET",
        r#"{"count":1,"doing":"Nothing","promised":[{"Content":{"seed":1,"at":9,"length":18446744073709551610}}],"kept_from":0}"#,
    ] {
        let state = format!("{state}\n");
        assert!(matches!(WebState::from_bytes(state.as_bytes()), Err(WebError::State(_))), "{state}");
    }
}

#[test]
fn a_head_of_any_length_is_taken_in_up_to_a_limit() {
    let head = |length: usize| {
        let rest = "POST /count HTTP/1.1\r\nCookie: \r\n\r\n".len();
        format!("POST /count HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(length - rest)).into_bytes()
    };
    let longest = head(MAX_HEAD_BYTES);
    let mut state = WebState::default();
    for byte in &longest {
        assert_eq!(state.take(std::slice::from_ref(byte), STATE_BYTES), Ok(1));
    }
    assert!(text(&state).ends_with("\r\n\r\n1\n"));
    assert_eq!(WebState::default().take(&longest, STATE_BYTES), Ok(MAX_HEAD_BYTES));
    for pieces in [1, 2] {
        let (too_long, mut state) = (head(MAX_HEAD_BYTES + 1), WebState::default());
        let taken: Result<Vec<_>, _> =
            too_long.chunks(too_long.len().div_ceil(pieces)).map(|piece| state.take(piece, STATE_BYTES)).collect();
        assert_eq!(taken, Err(WebError::Request("its head is too long".into())));
    }
}

#[test]
fn without_room_no_request_is_taken_until_the_client_has_acknowledged_something() {
    let request = b"POST /count HTTP/1.1\r\n\r\n";
    let (mut state, mut bytes) = (WebState::default(), Vec::new());
    let many = request.repeat(1_000);
    let taken = state.take(&many, STATE_BYTES).unwrap();
    assert!(taken < many.len() && taken.is_multiple_of(request.len()) && !state.has_room(STATE_BYTES), "{taken}");
    assert_eq!(state.take(&many[taken..], STATE_BYTES), Ok(0));
    assert!(taken / request.len() > 15, "{taken}");
    state.to_bytes(&mut bytes);
    assert!(bytes.len() + MAX_HEAD_BYTES <= STATE_BYTES);
    let oldest_end = state.oldest_end().unwrap();
    state.forget(oldest_end - 1);
    assert_eq!(state.take(&many[taken..], STATE_BYTES), Ok(0));
    for _ in 0..10 {
        state.forget(state.oldest_end().unwrap());
    }
    assert!(state.take(&many[taken..], STATE_BYTES).unwrap() > 0);
    assert!(WebState::default().has_room(LEAST_STATE_BYTES) && !WebState::default().has_room(LEAST_STATE_BYTES - 1));
}

#[test]
fn no_state_that_promised_nothing_takes_more_than_it_is_taken_for() {
    let (left, hash) = (u64::MAX, vec![0xff; Sha256::new().serialize().len()]);
    let doing = Doing::Receiving { left, hash };
    let ballast = Ballast::new(usize::MAX);
    let state = WebState { count: u64::MAX, doing, kept_from: u64::MAX, ballast, ..WebState::default() };
    let mut bytes = Vec::new();
    state.to_bytes(&mut bytes);
    assert!(bytes.len() <= EMPTY_BYTES + ballast.bytes(), "{} bytes", bytes.len());
}

proptest! {
    /// Whatever is asked for and acknowledged, in a box of any size: it never outgrows the box.
    #[test]
    fn a_state_fits_its_box(
        asked in proptest::collection::vec((0u8..4, any::<u16>()), 1..80),
        box_bytes in LEAST_STATE_BYTES..2 * STATE_BYTES,
        ballast in prop_oneof![Just(0), 1usize..5000],
    ) {
        let box_bytes = box_bytes + ballast;
        let (mut state, mut bytes) = (WebState { count: u64::MAX >> 1, ..WebState::with_ballast(ballast) }, Vec::new());
        let mut input = Vec::new();
        for (what, number) in asked {
            match what {
                0 => input.extend(b"POST /count HTTP/1.1\r\nHost: service\r\n\r\n"),
                1 => input.extend(format!("GET /bytes/{}?seed={} HTTP/1.1\r\n\r\n", u64::from(number) << 4, u64::MAX).bytes()),
                2 => {
                    let head = "PUT /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: ";
                    input.extend(format!("{head}{}\r\n\r\n", number % 300).bytes());
                    input.extend(vec![b'x'; usize::from(number % 300)]);
                }
                _ => state.forget(state.kept_from + u64::from(number)),
            }
            // The last bytes come later.
            let mut come = input.len() - input.len().min(usize::from(number % 40));
            loop {
                let taken = state.take(&input[..come], box_bytes)?;
                come -= taken;
                input.drain(..taken);
                state.to_bytes(&mut bytes);
                prop_assert!(bytes.len() <= state.most_bytes() && state.most_bytes() <= box_bytes);
                prop_assert!(bytes.len() >= ballast);
                if !state.has_more() || !state.has_room(box_bytes) {
                    break;
                }
                state.promise_more();
            }
        }
    }

    /// However the input is cut, whatever is saved and read back in between: the same answer.
    #[test]
    fn an_upload_is_hashed_as_a_whole(
        body in proptest::collection::vec(any::<u8>(), 0..2000),
        cuts in proptest::collection::vec(0usize..2100, 0..6),
        ballast in prop_oneof![Just(0), 1usize..5000],
    ) {
        let mut input = format!("PUT /upload HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        input.extend(&body);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let (mut state, mut taken, mut bytes) = (WebState::with_ballast(ballast), 0, Vec::new());
        for cut in cuts {
            taken += state.take(&input[taken..cut.max(taken)], STATE_BYTES + ballast)?;
            state.to_bytes(&mut bytes);
            state = WebState::from_bytes(&bytes)?;
        }
        prop_assert_eq!(taken, input.len());
        let whole = hex(&Sha256::digest(&body)) + "\n";
        prop_assert!(text(&state).ends_with(&whole));
    }

    #[test]
    fn garbage_is_no_state(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
        prop_assert!(WebState::from_bytes(&bytes).is_err());
    }
}
