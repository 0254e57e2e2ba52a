//! Requests that are paid from a channel, each by a voucher of its own, in turns with the same requests at a route that
//! is free of charge: what selling by the unit leaves of a gateway.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use farthing_evm::voucher::{self, ChannelParts, escrow_domain};
use farthing_evm::{B256, Domain, Key, TransferAuthorization, U256, from_alloy, keccak256, to_alloy};
use farthing_load::http::{Connection, Connector, HttpError, Target};
use farthing_load::payers::{Payers, Terms as Token};
use farthing_primitives::Address;
use farthing_wire::Uint256;
use farthing_wire::mpp::evm::{Funding, Open, Session, SessionPayload, Voucher};
use farthing_wire::mpp::{Challenge, Challenges, Credential, MppError, Terms, header};
use farthing_wire::x402::exact_evm::Authorization;
use serde::Serialize;
use tokio::task::JoinError;

use crate::functions::SEED;
use crate::stats::median;

/// How long a deposit may take to be brought.
const DEPOSIT_HOLDS: u64 = 300;
/// How many samples of what went wrong are kept.
const SAMPLES: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("a challenge or credential: {0}")]
    Mpp(#[from] MppError),
    #[error("a turn ended early: {0}")]
    Turn(#[from] JoinError),
    #[error("{0}")]
    Odd(String),
}

/// What is measured, and where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A route with a session that is paid by the request.
    pub paid: Target,
    /// The same behind the same gateway, without a price.
    pub free: Target,
    /// Each has its own payer and connection.
    pub channels: usize,
    pub first_payer: usize,
    /// What the payers have enough of.
    pub token: Token,
    pub turn: Duration,
    pub rounds: usize,
    /// How many vouchers are signed for each channel before each turn.
    pub vouchers: usize,
    /// Makes the channels unlike those of other runs.
    pub salt: u128,
}

/// One kind of request. The middle of its turns.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    pub good: u64,
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub channels: usize,
    /// For each channel, one after the other: from the request that brings the deposit to its answer.
    pub open_ms: f64,
    pub free: Rate,
    pub paid: Rate,
    /// Paid against free, in the middle of neighbouring turns.
    pub ratio: f64,
    pub wrong: u64,
    pub samples: Vec<String>,
}

/// A payer's side of a channel, as far as a load needs it.
struct Channel<'a> {
    key: &'a Key,
    id: B256,
    domain: Domain,
    challenge: Challenge,
    price: u128,
    signed: u128,
}

/// What came of some requests.
#[derive(Default)]
struct Turn {
    took: Vec<Duration>,
    wrong: Vec<String>,
    lasted: Duration,
}

/// # Errors
/// [`SessionError`] if the route sells no session, or a channel cannot be opened.
pub async fn measure(plan: &Plan) -> Result<Measured, SessionError> {
    let payers = Payers::new(SEED, plan.first_payer, plan.channels);
    let connector = Connector::new(&plan.paid)?;
    let (mut channels, mut lines, mut opened) = (Vec::new(), Vec::new(), Vec::new());
    for key in payers.keys() {
        let mut line = Connection::new(&connector, &plan.paid);
        let began = Instant::now();
        channels.push(open(plan, key, &mut line).await?);
        opened.push(began.elapsed().as_secs_f64() * 1000.0);
        lines.push(line);
    }
    let (mut free, mut paid, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds.max(1) {
        let nothing = lines.iter().map(|_| None).collect();
        let without = turn(&mut lines, &plan.free, plan.turn, nothing).await?;
        let mut vouchers = Vec::with_capacity(channels.len());
        for channel in &mut channels {
            vouchers.push(Some(channel.vouchers(plan.vouchers)?));
        }
        let with = turn(&mut lines, &plan.paid, plan.turn, vouchers).await?;
        ratios.push(with.rate() / without.rate().max(f64::MIN_POSITIVE));
        free.push(without);
        paid.push(with);
    }
    let wrong = || free.iter().chain(&paid).flat_map(|turn| &turn.wrong);
    Ok(Measured {
        channels: channels.len(),
        open_ms: median(&mut opened),
        ratio: median(&mut ratios),
        wrong: wrong().count() as u64,
        samples: wrong().take(SAMPLES).cloned().collect(),
        free: Rate::of(&free),
        paid: Rate::of(&paid),
    })
}

/// The same with credentials that somebody else has made: `lines` are those of each connection, in their order.
///
/// # Errors
/// [`SessionError`] if nobody can be reached.
pub async fn present(
    paid: &Target,
    free: &Target,
    credentials: Vec<Vec<Bytes>>,
    length: Duration,
) -> Result<Measured, SessionError> {
    let connector = Connector::new(paid)?;
    let channels = credentials.len();
    let mut lines: Vec<_> = credentials.iter().map(|_| Connection::new(&connector, paid)).collect();
    let nothing = lines.iter().map(|_| None).collect();
    let without = turn(&mut lines, free, length, nothing).await?;
    let with = turn(&mut lines, paid, length, credentials.into_iter().map(Some).collect()).await?;
    Ok(Measured {
        channels,
        open_ms: 0.0,
        ratio: with.rate() / without.rate().max(f64::MIN_POSITIVE),
        wrong: (without.wrong.len() + with.wrong.len()) as u64,
        samples: without.wrong.iter().chain(&with.wrong).take(SAMPLES).cloned().collect(),
        free: Rate::of(&[without]),
        paid: Rate::of(&[with]),
    })
}

/// One request after the other on each line, until the time or its vouchers are used up.
async fn turn(
    lines: &mut Vec<Connection>,
    target: &Target,
    length: Duration,
    vouchers: Vec<Option<Vec<Bytes>>>,
) -> Result<Turn, SessionError> {
    let target = Arc::new(target.clone());
    let began = Instant::now();
    let runs: Vec<_> = lines
        .drain(..)
        .zip(vouchers)
        .map(|(line, vouchers)| tokio::spawn(requests(line, target.clone(), began, length, vouchers)))
        .collect();
    let mut all = Turn::default();
    for run in runs {
        let (line, turn) = run.await?;
        lines.push(line);
        all.took.extend(turn.took);
        all.wrong.extend(turn.wrong);
        all.lasted = all.lasted.max(turn.lasted);
    }
    Ok(all)
}

async fn requests(
    mut line: Connection,
    target: Arc<Target>,
    began: Instant,
    length: Duration,
    vouchers: Option<Vec<Bytes>>,
) -> (Connection, Turn) {
    let mut turn = Turn::default();
    let mut vouchers = vouchers.map(Vec::into_iter);
    while began.elapsed() < length {
        let shown = match &mut vouchers {
            None => None,
            Some(left) => match left.next() {
                Some(header) => Some((header::AUTHORIZATION, header)),
                None => break,
            },
        };
        let sent = Instant::now();
        let answer = match target.get(shown) {
            Ok(request) => line.exchange(request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok((status, ..)) if status.is_success() => turn.took.push(sent.elapsed()),
            Ok((status, _, body)) => turn.wrong.push(format!("{status}: {}", String::from_utf8_lossy(&body))),
            Err(error) => turn.wrong.push(error.to_string()),
        }
    }
    turn.lasted = began.elapsed();
    (line, turn)
}

/// Opens a channel with all of its deposit, and buys the first answer with it.
///
/// Spec: draft-evm-session-00, "Open Payload".
async fn open<'a>(plan: &Plan, key: &'a Key, line: &mut Connection) -> Result<Channel<'a>, SessionError> {
    let odd = |why: String| SessionError::Odd(why);
    let (_, headers, _) = line.exchange(plan.paid.get(None)?).await?;
    let lines = headers.get_all(header::WWW_AUTHENTICATE).into_iter().map(|line| line.as_bytes());
    let (challenge, session) = Challenges::parse(lines)?
        .challenges
        .into_iter()
        .find_map(|challenge| match challenge.terms() {
            Ok(Terms::EvmSession(session)) => Some((challenge, session)),
            _ => None,
        })
        .ok_or_else(|| odd("the route sells no session".to_owned()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| odd(error.to_string()))?;
    let deposit = session.suggested_deposit.ok_or_else(|| odd("no deposit is suggested".to_owned()))?;
    let parts = parts(plan, key, &session).ok_or_else(|| odd("an address that is none of EVM".to_owned()))?;
    let id = parts.id();
    let mut channel = Channel {
        key,
        id,
        domain: escrow_domain(plan.token.chain_id, parts.escrow),
        challenge,
        price: session.amount,
        signed: 0,
    };
    let valid_before = now.as_secs().saturating_add(DEPOSIT_HOLDS);
    let transfer = TransferAuthorization {
        from: parts.payer,
        to: parts.escrow,
        value: U256::from(deposit),
        valid_after: U256::ZERO,
        valid_before: U256::from(valid_before),
        nonce: parts.open_nonce(),
    };
    let signature = key.sign(transfer.receive_digest(&plan.token.domain())).to_bytes().to_vec();
    let authorization = Authorization {
        from: evm_address(parts.payer),
        to: evm_address(parts.escrow),
        value: deposit,
        valid_after: Uint256::from(0u128),
        valid_before: Uint256::from(u128::from(valid_before)),
        nonce: parts.open_nonce().0,
    };
    let (cumulative, voucher_signature) = channel.raise();
    let payload = SessionPayload::Open(Open {
        channel_id: id.0,
        funding: Funding::Authorization { authorization, signature },
        cumulative,
        voucher_signature,
        authorized_signer: None,
        salt: parts.salt.0,
    });
    let shown = channel.header(&payload)?;
    let (status, _, body) = line.exchange(plan.paid.get(Some((header::AUTHORIZATION, shown)))?).await?;
    match status.is_success() {
        true => Ok(channel),
        false => Err(odd(format!("a channel is not opened: {status}: {}", String::from_utf8_lossy(&body)))),
    }
}

fn parts(plan: &Plan, key: &Key, session: &Session) -> Option<ChannelParts> {
    let text = [&plan.salt.to_be_bytes()[..], key.address().as_slice()].concat();
    Some(ChannelParts {
        payer: key.address(),
        payee: to_alloy(session.recipient.address())?,
        token: to_alloy(session.currency.address())?,
        salt: keccak256(text),
        authorized_signer: farthing_evm::Address::ZERO,
        escrow: to_alloy(session.escrow.address())?,
        chain_id: plan.token.chain_id,
    })
}

fn evm_address(address: farthing_evm::Address) -> Address {
    from_alloy(address)
}

impl Channel<'_> {
    /// The next voucher, for one more request.
    fn raise(&mut self) -> (u128, Vec<u8>) {
        self.signed = self.signed.saturating_add(self.price);
        let voucher = voucher::Voucher { channel: self.id, cumulative: self.signed };
        (self.signed, self.key.sign(voucher.digest(&self.domain)).to_bytes().to_vec())
    }

    fn vouchers(&mut self, count: usize) -> Result<Vec<Bytes>, SessionError> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let (cumulative, signature) = self.raise();
            let voucher = Voucher { channel_id: self.id.0, cumulative, signature, deposit: None };
            all.push(self.header(&SessionPayload::Voucher(voucher))?);
        }
        Ok(all)
    }

    fn header(&self, payload: &SessionPayload) -> Result<Bytes, SessionError> {
        Ok(Credential::new(self.challenge.clone(), payload.to_object(), None).to_header()?.into())
    }
}

impl Turn {
    fn rate(&self) -> f64 {
        self.took.len() as f64 / self.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn ms(&self, percent: usize) -> f64 {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    }
}

impl Rate {
    fn of(turns: &[Turn]) -> Self {
        let middle = |of: &dyn Fn(&Turn) -> f64| median(&mut turns.iter().map(of).collect::<Vec<_>>());
        Self {
            good: turns.iter().map(|turn| turn.took.len() as u64).sum(),
            rate: middle(&Turn::rate),
            p50_ms: middle(&|turn| turn.ms(50)),
            p99_ms: middle(&|turn| turn.ms(99)),
        }
    }
}
