//! A metered stream of events: the service's, as the gateway cuts it, prices it and names its events, and as the buyer
//! reads it. What is charged is what arrives, only the gateway speaks of payment, and where a stream breaks off, both
//! mean the same event.

use farthing_wire::mpp::sse::{Event as Read, Reader};

use crate::events::{Event, MAX_EVENT_ID_BYTES, Splitter, named, read};
use crate::input::Input;
use crate::last_id::LastId;

/// What the gateway says before anything of the service's.
const FIRST: &str = ": hello\n\n";

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (how, size) = (input.byte(), usize::from(input.byte()).max(1));
    let stream = input.rest();
    let events = cut(stream, stream.len().max(1));
    assert_eq!(cut(stream, size), events, "cut otherwise in pieces of {size}");
    // Nothing is left out but marks.
    let (whole, said) = (without_marks(&events.concat()), without_marks(stream));
    let ending = whole.strip_prefix(&*said).expect("nothing is left out");
    assert!(ending.len() <= 2 && ending.iter().all(|byte| *byte == b'\n'), "{ending:?}");
    relayed(&events, how & 1 == 1, size);
    by_the_book(stream, size);
}

fn without_marks(bytes: &[u8]) -> Vec<u8> {
    let mut left = bytes.to_vec();
    while let Some(at) = left.windows(3).position(|three| three == "\u{feff}".as_bytes()) {
        left.drain(at..at + 3);
    }
    left
}

fn cut(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::default();
    let mut events = Vec::new();
    for piece in stream.chunks(size) {
        splitter.push(piece).expect("short");
        events.extend(std::iter::from_fn(|| splitter.next()).map(Vec::from));
    }
    events.extend(splitter.rest().map(Vec::from));
    assert_eq!((splitter.held(), splitter.next()), (0, None));
    events
}

/// What the buyer reads of what leaves, event by event.
fn relayed(events: &[Vec<u8>], first: bool, size: usize) {
    let (mut reader, mut last) = (Reader::new(), LastId::default());
    if first {
        assert!(reader.push(FIRST.as_bytes()).expect("short").is_empty());
        last.push(FIRST.as_bytes());
    }
    for (at, raw) in events.iter().enumerate() {
        let event = read(raw);
        if event.ours {
            continue;
        }
        let Event { data, id, renames, .. } = event;
        assert!(id.as_ref().is_none_or(|id| (1..=MAX_EVENT_ID_BYTES).contains(&id.len())));
        // As it is remembered: by its own id, or by one of ours.
        let own = id.is_some();
        let given = id.or_else(|| (data.is_some() || renames).then(|| format!("farthing-{at}")));
        let leaves = match &given {
            Some(id) if !own => named(raw, id).to_vec(),
            _ => raw.clone(),
        };
        let before = last.get().map(str::to_owned);
        let mut arrived = Vec::new();
        for piece in leaves.chunks(size) {
            arrived.extend(reader.push(piece).expect("short"));
            last.push(piece);
        }
        let arrived: Vec<String> =
            arrived.into_iter().map(|event| data_of(event.expect("not ours"))).collect();
        let charged = data.map(|data| String::from_utf8_lossy(&data).into_owned());
        assert_eq!(arrived, Vec::from_iter(charged), "what is charged is what arrives of {leaves:?}");
        assert_eq!(last.get().map(str::to_owned), given.or(before), "the last id after {leaves:?}");
    }
}

fn data_of(event: Read) -> String {
    match event {
        Read::Message(data) | Read::Other { data, .. } => data,
        Read::NeedVoucher(_) | Read::Receipt(_) => panic!("the service speaks of payment"),
    }
}

/// The last id of any stream, also of one that no gateway of ours has seen.
///
/// Spec: HTML, sections 9.2.5 and 9.2.6.
fn by_the_book(stream: &[u8], size: usize) {
    let mut last = LastId::default();
    stream.chunks(size).for_each(|piece| last.push(piece));
    let text: String = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut next, mut expected) = ("", "");
    // What follows the last line's end is no line yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.split('\n').take(if text.contains('\n') { usize::MAX } else { 0 }) {
        match line.split_once(':').unwrap_or((line, "")) {
            ("", "") if line.is_empty() => expected = next,
            ("id", id) if !id.contains('\0') => next = id.strip_prefix(' ').unwrap_or(id),
            _ => {}
        }
    }
    let shown =
        expected.len() <= MAX_EVENT_ID_BYTES && expected.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    assert_eq!(last.get(), Some(expected).filter(|id| shown && !id.is_empty()));
    // Another connection goes on with what is known.
    let known = last.get().map(str::to_owned);
    last.go_on();
    last.push(b"\n\n");
    assert_eq!(last.get().map(str::to_owned), known);
}
