//! What crosses the guard's sockets: lines of the protocol in both directions, and messages that freeze. What is read is
//! written back as it was, a refusal never turns into leave, and nobody freezes who did not sign.

use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use farthing_approval::{ApproverKey, PublicKey};
use farthing_policy::AgentName;
use farthing_primitives::Timestamp;
use farthing_wallet::Denied;
use farthing_wire::webhook::{self, Headers, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, ReadBuf};

use super::is_short;
use crate::guard_protocol::{
    Answered, AnsweredRecord, Answering, Asking, AuthorizationRecord, BroughtRecord, BudgetRecord,
    ChannelRecord, DecisionRecord, DepositRecord, Detail, GrantRecord, Hello, IntentRecord, NeedRecord,
    OutcomeRecord, PurchaseRecord, QuoteRecord, ReceiptRecord, Refusal, SpentRecord, TicketRecord, parse,
};
use crate::hook_message::{HOOK_EVENT, Signed, Signers};
use crate::input::Input;
use crate::lines::{LineError, Lines};
use crate::money::NOW;
use crate::whom::{Whom, WhomRecord};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// How long a line of [`cut`] may be.
const LONGEST: usize = 24;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 => line(input.rest()),
        1 | 2 => {
            let which = input.byte();
            said(which, input.rest());
        }
        3 => answer(input.rest()),
        4 => cut(&mut input),
        5 => whom(input.rest()),
        _ => freeze(&mut input),
    }
}

/// An agent's line.
fn line(bytes: &[u8]) {
    let (id, what, with) = match parse(bytes) {
        Ok(asked) => asked,
        Err(refusal) => return is_short(&refusal),
    };
    if let Some(with) = with {
        let again = serde_json::to_vec(&Asking { id, what: &what, with: &*with }).expect("printable");
        let (read, named, inside) = parse(&again).expect("our own");
        assert_eq!((read, named), (id, what));
        assert_eq!(inside.map(|inside| inside.get().to_owned()).as_deref(), Some(with.get()));
        // Whatever is asked, what it brings is one of these or nothing.
        for which in 0..RECORDS {
            said(which, with.get().as_bytes());
        }
        let _ = serde_json::from_str::<Hello>(with.get());
    }
}

const RECORDS: u8 = 17;

/// What a request or an answer brings: read, written, and read again it is the same.
fn said(which: u8, bytes: &[u8]) {
    // On the way it was looked at for names that come twice.
    let wrapped = [br#"{"id":1,"do":"x","with":"#, bytes, b"}"].concat();
    if parse(&wrapped).is_err() {
        return;
    }
    let agent = || "acme/a".parse::<AgentName>().expect("a name");
    match which % RECORDS {
        0 => same(bytes, |r: IntentRecord| r.read(NOW), IntentRecord::of),
        1 => same(bytes, |r: OutcomeRecord| r.read(), |o| Ok(OutcomeRecord::of(o))),
        2 => same(
            bytes,
            |r: DecisionRecord| r.read(),
            |d| {
                assert!(d.is_allowed() == (d.denials().next().is_none() && !d.findings.is_empty()));
                Ok(DecisionRecord::of(d))
            },
        ),
        3 => same(bytes, AuthorizationRecord::read, |a| Ok(AuthorizationRecord::of(a))),
        4 => same(
            bytes,
            |r: PurchaseRecord| r.read(&agent()),
            |p| {
                // Nothing that pays leaves by a record of what was not shown.
                let (whole, listed) =
                    (PurchaseRecord::of(p, Detail::Whole), PurchaseRecord::of(p, Detail::Listed));
                let value =
                    |record: &PurchaseRecord| record.header.as_ref().and_then(|header| header.value.clone());
                assert!(value(&listed).is_none() && (p.shown > 0 || value(&whole).is_none()));
                Ok(whole)
            },
        ),
        5 => same(bytes, QuoteRecord::read, |q| Ok(QuoteRecord::of(q))),
        6 => same(bytes, DepositRecord::read, |d| Ok(DepositRecord::of(d))),
        7 => same(bytes, SpentRecord::read, |s| Ok(SpentRecord::of(s))),
        8 => same(bytes, AnsweredRecord::read, |a| Ok(AnsweredRecord::of(a))),
        9 => same(bytes, |r: NeedRecord| r.read(), |n| Ok(NeedRecord::of(n))),
        10 => same(bytes, ReceiptRecord::read, |(receipt, json)| Ok(ReceiptRecord::of(receipt, json))),
        11 => same(bytes, BroughtRecord::read, |b| Ok(BroughtRecord::of(b))),
        12 => same(bytes, ChannelRecord::read, |c| Ok(ChannelRecord::of(c, Detail::Whole))),
        13 => same(bytes, TicketRecord::read, |t| Ok(TicketRecord::of(t))),
        14 => same(bytes, GrantRecord::read, |g| Ok(GrantRecord::of(g))),
        15 => same(bytes, BudgetRecord::read, |b| Ok(BudgetRecord::of(b.clone()))),
        _ => {
            if let Ok(refusal) = serde_json::from_slice::<Refusal>(bytes) {
                // Whatever a guard says with a refusal, it is one.
                let code = refusal.code.clone();
                match Denied::from(refusal) {
                    Denied::Policy(decision) => assert!(!decision.is_allowed()),
                    Denied::Told { code: told, .. } => assert_eq!(told, code),
                    Denied::Unavailable => {}
                    other => panic!("{other:?} of a refusal"),
                }
            }
        }
    }
}

/// Reads a record for what it means, writes that down, and reads it again: what is written is the same from then on.
fn same<R: DeserializeOwned + Serialize, T>(
    bytes: &[u8],
    read: impl Fn(R) -> Result<T, Refusal>,
    write: impl Fn(&T) -> Result<R, Refusal>,
) {
    let Ok(record) = serde_json::from_slice::<R>(bytes) else { return };
    let meant = match read(record) {
        Ok(meant) => meant,
        Err(refusal) => return is_short(&refusal),
    };
    let Ok(written) = write(&meant) else { return };
    let text = serde_json::to_string(&written).expect("printable");
    let again = serde_json::from_str::<R>(&text).expect("our own");
    match read(again) {
        Ok(again) => {
            let twice =
                serde_json::to_string(&write(&again).unwrap_or_else(|e| panic!("{e}"))).expect("printable");
            assert_eq!(twice, text);
        }
        Err(refusal) => panic!("{refusal} for our own {text}"),
    }
}

/// A guard's line.
fn answer(bytes: &[u8]) {
    let Ok(answered) = serde_json::from_slice::<Answered>(bytes) else { return };
    let ok: Option<&RawValue> = answered.ok.as_deref();
    let printed = serde_json::to_vec(&Answering { id: answered.id, ok, error: answered.error.as_ref() })
        .expect("printable");
    let again: Answered = serde_json::from_slice(&printed).expect("our own");
    assert_eq!((again.id, &again.error), (answered.id, &answered.error));
    assert_eq!(again.ok.map(|ok| ok.get().to_owned()).as_deref(), ok.map(RawValue::get));
    if let Some(error) = answered.error {
        said(RECORDS - 1, serde_json::to_string(&error).expect("printable").as_bytes());
    }
    if let Some(ok) = ok {
        (0..RECORDS).for_each(|which| said(which, ok.get().as_bytes()));
    }
}

/// Bytes that come in pieces.
struct Pieces<'a>(Vec<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.pop() {
            let (now, later) = piece.split_at(piece.len().min(buf.remaining()));
            buf.put_slice(now);
            if !later.is_empty() {
                self.0.push(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Lines are the same however they are cut, and none is longer than it may be.
fn cut(input: &mut Input<'_>) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let sizes = input.blob();
    let all = input.rest();
    let (mut pieces, mut rest) = (Vec::new(), all);
    for size in sizes {
        let (piece, after) = rest.split_at(usize::from(size % 64).min(rest.len()));
        pieces.extend(Some(piece).filter(|piece| !piece.is_empty()));
        rest = after;
    }
    pieces.extend(Some(rest).filter(|rest| !rest.is_empty()));
    pieces.reverse();
    let (found, end) = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let mut lines = Lines::new(Pieces(pieces), LONGEST, Duration::from_secs(3600));
            let mut found = Vec::new();
            loop {
                match lines.next().await {
                    Ok(Some(line)) => found.push(line),
                    Ok(None) => return (found, "end"),
                    Err(LineError::TooLong(_)) => return (found, "long"),
                    Err(LineError::Cut) => return (found, "cut"),
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    let mut parts: Vec<&[u8]> = all.split(|byte| *byte == b'\n').collect();
    let last = parts.pop().unwrap_or_default();
    let whole = parts.iter().take_while(|line| line.len() <= LONGEST).count();
    let ends = match whole < parts.len() || last.len() > LONGEST {
        true => "long",
        false if last.is_empty() => "end",
        false => "cut",
    };
    assert_eq!((found.iter().map(Vec::as_slice).collect::<Vec<_>>(), end), (parts[..whole].to_vec(), ends));
}

fn owner() -> &'static ApproverKey {
    static OWNER: OnceLock<ApproverKey> = OnceLock::new();
    OWNER.get_or_init(|| ApproverKey::from_seed([7; 32]).expect("a key"))
}

fn signers(secret: bool, owners: bool) -> Signers {
    let key: PublicKey = owner().public();
    Signers { secret: secret.then(|| Secret::parse(SECRET).expect("a secret")), owner: owners.then_some(key) }
}

fn whom(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<WhomRecord>(bytes) else { return };
    if let Some(whom) = record.read() {
        let text = serde_json::to_string(&WhomRecord::of(&whom)).expect("printable");
        let again: WhomRecord = serde_json::from_str(&text).expect("our own");
        assert_eq!(again.read(), Some(whom));
    }
}

/// A message that freezes: signed by one who may, and then perhaps changed; or in whatever headers.
fn freeze(input: &mut Input<'_>) {
    let now = Timestamp::from_secs(1_800_000_000);
    let how = input.byte();
    let signers = signers(how & 1 == 0, how & 2 == 0);
    let sent = now.minus(Duration::from_secs(u64::from(input.byte()) * 3));
    let whom = if how & 4 == 0 { Whom::All } else { Whom::Agent("acme/a".parse().expect("a name")) };
    let by_owner = Signed::by(owner(), "msg_1", &whom, sent);
    let [(_, id), (_, timestamp), (_, of_owner)] = by_owner.headers.clone();
    let mut body = match how >> 3 & 3 {
        0 | 1 => by_owner.body.clone().into_bytes(),
        _ => input.blob().to_vec(),
    };
    let secret = Secret::parse(SECRET).expect("a secret");
    let by_secret = secret.sign("msg_1", sent.secs(), &body);
    let signed_body = body.clone();
    let mut headers = [id, timestamp, if how & 32 == 0 { by_secret } else { of_owner }];
    let mut honest = true;
    if how & 64 == 64 && !body.is_empty() {
        let at = usize::from(input.u16()) % body.len();
        let with = input.byte();
        body[at] ^= with;
        honest &= with == 0;
    }
    if how & 128 == 128 {
        let which = usize::from(input.byte() % 3);
        let other = String::from_utf8_lossy(input.rest()).into_owned();
        honest &= headers[which] == other;
        headers[which] = other;
    }
    let [id, timestamp, signatures] = &headers;
    let read = match Headers::read(id, timestamp, signatures, now) {
        Ok(read) => read,
        Err(error) => return is_short(&error),
    };
    let seconds: u64 = timestamp.parse().expect("a number");
    assert!(now.secs().abs_diff(seconds) <= webhook::WINDOW.as_secs());
    match signers.hear(&read, &body) {
        Ok(heard) => {
            let is_secrets =
                || signers.secret.is_some() && signatures.contains(&secret.sign(id, seconds, &body));
            let content = webhook::signed(id, timestamp, &body);
            let is_owners = || {
                signers.owner.is_some()
                    && signatures.contains(&webhook::shown("v1a", &owner().sign(&content)))
            };
            assert!(is_secrets() || is_owners(), "nobody signed it");
            let said: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert!(said["type"] == HOOK_EVENT && heard.id == *id);
            assert_eq!(heard.whom == Whom::All, said["data"]["all"] == true);
        }
        Err(error) => {
            is_short(&error);
            // What is as it was sent, by one who may, is heard.
            let may = if how & 32 == 0 { signers.secret.is_some() } else { signers.owner.is_some() };
            let own = signed_body == by_owner.body.as_bytes() && body == signed_body;
            assert!(!(honest && may && own), "{error} for a good message");
        }
    }
}
