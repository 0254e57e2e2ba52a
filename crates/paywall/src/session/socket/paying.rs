//! What pays for a socket: what its credentials do, and the beginning of a stream.

use std::sync::Arc;

use bytes::Bytes;
use farthing_channel::{ChannelId, Receipt as State};
use farthing_engine::{Asked, Seller, Started, Till};
use farthing_primitives::RequestHash;
use farthing_wire::mpp::Credential;

use super::saying::within;
use super::{Session, Talk};
use crate::answer;
use crate::headers::clean_paid_request;
use crate::service::{Answer, Visit};
use crate::session::call::{Told, announce};
use crate::session::credential::{Acted, Paying, Refused, Signed, Words, payload};
use crate::session::meter::{Meter, Rules};
use crate::socket::{ConnectError, OpenSocket, SocketMessage};
use crate::upstream::reasons;

/// What a credential opened, for as long as the socket lasts.
pub(super) struct Account {
    session: Arc<Session>,
    pub(super) seller: Seller,
    pub(super) channel: ChannelId,
    challenge: String,
}

impl Account {
    pub(super) fn paying<'a>(&'a self, visit: &Visit, till: &'a Till) -> Paying<'a> {
        Paying {
            till,
            session: &self.session,
            seller: self.seller.clone(),
            channel: self.channel,
            challenge: &self.challenge,
            client: visit.client,
        }
    }
}

/// What a credential does.
pub(super) enum Authorized {
    /// It only manages its channel; `closes` if there is none any more.
    Done {
        answer: Answer,
        closes: bool,
    },
    Buys(Account, Signed),
}

/// A stream that is paid for.
pub(super) struct Running {
    pub(super) account: Account,
    pub(super) state: State,
    pub(super) meter: Meter<Option<SocketMessage>>,
    pub(super) upstream: OpenSocket,
}

impl Talk {
    /// Looks at a credential, and does what it says, but for what it buys.
    pub(super) async fn authorize(&self, till: &Till, credential: &Credential) -> Result<Authorized, Answer> {
        let (visit, client) = (&self.visit, self.visit.client);
        let now = visit.shared.world.monotonic();
        if !visit.shared.payments.admit(client, now) || !visit.shared.refused_payments.has(client, now) {
            return Err(answer::too_many("too many payments from here"));
        }
        let empty = Bytes::new();
        let opened = visit.opened(credential, &self.parts);
        let (session, payload) = match opened.and_then(|session| Ok((session, payload(credential)?))) {
            Ok(read) => read,
            Err(refused) => return Err(visit.turned_away(&self.parts, &empty, refused, None, client).await),
        };
        let closes = matches!(payload, farthing_wire::mpp::evm::SessionPayload::Close { .. });
        let account = Account {
            seller: Seller {
                tenant: visit.shared.tenant.clone(),
                payee: session.payee().clone(),
                asset: session.asset().clone(),
            },
            session,
            channel: ChannelId(*payload.channel_id()),
            challenge: credential.challenge.id.clone(),
        };
        let paying = account.paying(visit, till);
        let acted = visit.act(&paying, credential, payload, (&self.parts, &empty)).await;
        match acted {
            Ok(Acted::Buys(voucher)) => Ok(Authorized::Buys(account, voucher)),
            Ok(Acted::Answer(answer)) => Ok(Authorized::Done { answer, closes }),
            Err(refused) => {
                Err(visit.turned_away(&self.parts, &empty, refused, Some(account.channel), client).await)
            }
        }
    }

    pub(super) async fn refused(&self, refused: impl Into<Refused>, channel: ChannelId) -> Answer {
        self.visit.turned_away(&self.parts, &[], refused.into(), Some(channel), self.visit.client).await
    }

    /// Begins a stream, which ends the one before it, and opens the socket that it comes from.
    pub(super) async fn begin(
        &self,
        till: &Till,
        account: Account,
        voucher: &Signed,
    ) -> Result<Running, Answer> {
        let visit = &self.visit;
        let terms = account.session.terms();
        // A socket is nobody's copy: each is a purchase of its own.
        let mut name = [0; 32];
        visit.shared.world.random(&mut name);
        let request = RequestHash(name);
        let asked = Asked {
            seller: &account.seller,
            shown: account.paying(visit, till).shown(voucher),
            request,
            price: terms.price.clone(),
            most_units: None,
        };
        let ticket = match till.start_charge(&asked).await {
            Ok(Started::Serve(ticket)) => ticket,
            // Nobody else has this name.
            Ok(Started::Again { .. }) => return Err(answer::unavailable("session_unavailable")),
            Err(error) => return Err(self.refused(error, account.channel).await),
        };
        let payer = match till.channel(&account.seller, account.channel).await {
            Ok(payee) => payee.terms().payer.clone(),
            Err(error) => return Err(self.refused(error, account.channel).await),
        };
        let mut head = self.parts.clone();
        clean_paid_request(&mut head.headers);
        let told = Told { payer, charge: ticket.id(), request };
        announce(&mut head.headers, &account.paying(visit, till), &told);
        let connecting = self.sockets.connect(head);
        let connected = within(&**self.world(), visit.paid.upstream_timeout, connecting).await;
        let failed = match connected {
            None => Err(reasons::TIMEOUT),
            Some(Err(ConnectError::Unreachable)) => Err(reasons::UNREACHABLE),
            Some(Err(ConnectError::Answered(status))) => {
                tracing::warn!(%status, "the upstream opened no WebSocket");
                Err(reasons::NOT_OK)
            }
            Some(Ok(connected)) => terms
                .count
                .of_head(&connected.headers)
                .map(|worth| (connected.socket, worth))
                .ok_or(reasons::UNITS_UNKNOWN),
        };
        let (upstream, worth) = match failed {
            Ok(connected) => connected,
            Err(reason) => {
                drop(ticket.fail().await);
                return Err(visit.unsold(reason, None));
            }
        };
        let state = match ticket.receipt().await {
            Ok(state) => state,
            Err(error) => return Err(self.refused(error, account.channel).await),
        };
        let rules = Rules {
            count: terms.count.clone(),
            worth,
            patience: terms.patience,
            words: Words::of(&account.paying(visit, till), None),
        };
        let meter = Meter::new(ticket, state, rules, visit.shared.world.clone());
        Ok(Running { account, state, meter, upstream })
    }
}
