//! How a stream is cut into events, and how units are read.

use std::time::Duration;

use bytes::Bytes;
use farthing_engine::StoredResponse;

use crate::session::events::{Splitter, named, read};
use crate::{Count, CountError};

fn split(text: &[u8], piece: usize) -> Vec<Bytes> {
    let mut splitter = Splitter::default();
    let mut events = Vec::new();
    for bytes in text.chunks(piece) {
        splitter.push(bytes).unwrap();
        events.extend(std::iter::from_fn(|| splitter.next()));
    }
    events.extend(splitter.rest());
    events
}

#[test]
fn events_are_cut_alike_however_they_come() {
    let texts: [(&[u8], &[&[u8]]); 9] = [
        (b"data: a\n\ndata: b\n\n", &[b"data: a\n\n", b"data: b\n\n"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", &[b"data: a\r\n\r\n", b"data: b\r\n\r\n"]),
        (b"data: a\r\rdata: b\r\rx", &[b"data: a\r\r", b"data: b\r\r", b"x\n\n"]),
        (b": hello\n\nid: 1\ndata: a\ndata: b\n\n", &[b": hello\n\n", b"id: 1\ndata: a\ndata: b\n\n"]),
        (b"\n\ndata: a\n\n", &[b"\n", b"\n", b"data: a\n\n"]),
        (b"data: cut off", &[b"data: cut off\n\n"]),
        (b"data: cut off\r\n\r", &[b"data: cut off\r\n\r\n"]),
        // Marks, which would be a part of a line after anything that we say first.
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbf\xef\xbb\xbfdata: b\n\n", &[b"data: a\n\n", b"data: b\n\n"]),
        (b"\xef\xbb", &[b"\xef\xbb\n\n"]),
    ];
    for (text, expected) in texts {
        for piece in 1..=text.len() {
            assert_eq!(split(text, piece), expected, "{:?} by {piece}", String::from_utf8_lossy(text));
        }
    }
}

#[test]
fn an_event_that_never_ends_is_not_held() {
    let mut splitter = Splitter::default();
    let piece = [b'x'; 64 * 1024];
    let taken = (0..100).take_while(|_| splitter.push(&piece).is_ok()).count();
    assert!(taken <= 17, "{taken} pieces are held");
}

#[test]
fn what_an_event_says_is_read_as_a_client_does() {
    let data = |text: &[u8]| read(text).data.map(|data| String::from_utf8(data).unwrap());
    assert_eq!(data(b"data: a\ndata:b\n\n").as_deref(), Some("a\nb"));
    assert_eq!(data(b"data\n\n").as_deref(), Some(""));
    assert_eq!(data(b"id: 1\nevent: x\n: data: no\n\n"), None);
    for (text, ours) in [
        (&b"event: payment-receipt\ndata: {}\n\n"[..], true),
        (b"event:payment-need-voucher\r\ndata: {}\r\n\r\n", true),
        (b"data: {}\revent: payment-receipt\r\r", true),
        (b"event: payment-receipts\ndata: {}\n\n", false),
        (b"data: event: payment-receipt\n\n", false),
        // The last name counts.
        (b"event: payment-receipt\nevent: x\ndata: {}\n\n", false),
    ] {
        assert_eq!(read(text).ours, ours, "{:?}", String::from_utf8_lossy(text));
    }
}

/// Whatever the service writes, its client comes back with the id that is remembered.
#[test]
fn the_last_id_of_an_event_is_the_one_that_it_is_given() {
    for (text, expected) in [
        (&b"data: a\n\n"[..], &b"data: a\nid: x\n\n"[..]),
        (b"data: a\r\n\r\n", b"data: a\r\nid: x\n\r\n"),
        (b"data: a\r\r", b"data: a\rid: x\n\r"),
        // One that nobody can come back with, and one that takes the last away.
        (b"id: \x01\ndata: a\n\n", b"id: \x01\ndata: a\nid: x\n\n"),
        (b"id\n\n", b"id\nid: x\n\n"),
    ] {
        let event = named(text, "x");
        assert_eq!(event, expected);
        assert_eq!(read(&event).id.as_deref(), Some("x"));
        assert_eq!(split(&event, 1).len(), 1, "one event");
    }
    let renames = |text: &[u8]| read(text).renames;
    assert!(renames(b"id\n\n") && renames(b"id: \x01\n\n") && !renames(b": id\n\n"));
}

#[test]
fn ways_to_count_have_one_spelling_each() {
    for text in ["request", "event", "bytes", "elapsed", "header:x-units", "json:usage.total_tokens"] {
        assert_eq!(text.parse::<Count>().unwrap().to_string(), text);
    }
    for (text, error) in [
        ("", CountError::Unknown),
        ("events", CountError::Unknown),
        ("header", CountError::Unknown),
        ("header:", CountError::HeaderName),
        ("header:a b", CountError::HeaderName),
        ("json:", CountError::JsonPath),
        ("json:a..b", CountError::JsonPath),
        ("json:a.b.c.d.e.f.g.h.i", CountError::JsonPath),
    ] {
        assert_eq!(text.parse::<Count>(), Err(error), "{text}");
    }
}

#[test]
fn units_are_whole_or_unknown() {
    let answer = |header: Option<&str>, body: &'static str| StoredResponse {
        status: 200,
        headers: header.map(|units| ("x-units".to_owned(), units.as_bytes().to_vec())).into_iter().collect(),
        body: Bytes::from_static(body.as_bytes()),
        trailers: Vec::new(),
    };
    let took = Duration::from_micros(2_999_999);
    let count =
        |count: &str, header, body| count.parse::<Count>().unwrap().of_answer(&answer(header, body), took);
    assert_eq!(count("request", None, ""), Some(1));
    assert_eq!(count("elapsed", None, ""), Some(2999));
    assert_eq!(count("bytes", None, "héllo"), Some(6));
    for (header, units) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("+1", None),
        (" 1", None),
        ("", None),
    ] {
        assert_eq!(count("header:x-units", Some(header), ""), units, "{header:?}");
    }
    for (body, units) in [
        (r#"{"a":{"b":3}}"#, Some(3)),
        (r#"{"a":{"b":3.0}}"#, None),
        (r#"{"a":{"b":"3"}}"#, None),
        (r#"{"a":[3]}"#, None),
        (r#"{"a":{"b":3},"a":{"b":4}}"#, None),
        ("not json", None),
    ] {
        assert_eq!(count("json:a.b", None, body), units, "{body}");
    }
    let mut twice = answer(Some("1"), "");
    twice.headers.push(("x-units".to_owned(), b"2".to_vec()));
    assert_eq!("header:x-units".parse::<Count>().unwrap().of_answer(&twice, took), None);
}
