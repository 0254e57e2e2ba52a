//! A stream over WebSocket that is paid as it goes on: vouchers are shown in band.

use std::time::Duration;

use bytes::Bytes;
use farthing_channel::Receipt as State;
use farthing_wire::Json;
use farthing_wire::mpp::sse::NeedVoucher;
use farthing_wire::mpp::ws::{Frame, Framing};
use farthing_wire::mpp::{self, Receipt};
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};

use super::exchange::{Answer, Body, Conversation, Heard, HttpRequest, Reach, SendError, SocketOpened};
use super::session::{End, Metered, Stream, channel_of};
use super::{Client, FetchError, Options, Resumed, Step};
use crate::journal::channels::STREAMS;
use crate::journal::{self, Goods, Header, Purchase};

/// How long a seller may take to say its last word, once we have asked for the end.
const LAST_WORD: Duration = Duration::from_secs(10);

/// A socket on which a purchase is paid for.
struct Line<'a> {
    socket: Box<dyn Conversation>,
    framing: Framing,
    purchase: &'a Purchase,
    options: &'a Options,
    deadline: Duration,
    stream: Stream,
    /// The voucher that was shown and not answered, and how often it was.
    open: Option<(Header, u32)>,
    /// Whether the seller said its last word.
    last: bool,
    /// What the seller says that it failed by.
    failed: Option<String>,
}

impl Client {
    /// Opens a socket, shows the voucher as its first frame, and pays for what comes.
    pub(super) async fn send_over_socket(
        &self,
        (request, framing): (&HttpRequest, Framing),
        payment: &Header,
        purchase: &Purchase,
        reach: Reach,
        options: &Options,
        deadline: Duration,
    ) -> Result<Metered, SendError> {
        let within = self.left(deadline);
        let resumed = Resumed::default();
        let refused = |answer| Ok(Metered { answer, ended: None, streamed: false, resumed });
        let (mut socket, private) = match self.inner.exchange.socket(request, reach, within).await? {
            SocketOpened::Open { socket, private } => (socket, private),
            SocketOpened::Answered(answer) => return refused(*answer),
        };
        let first = Frame::Credential(payment.value.clone());
        socket.say(first.print(framing).unwrap_or_default()).await?;
        let answer = |status: StatusCode, headers: HeaderMap, body: Body| Answer {
            status,
            version: Version::HTTP_11,
            headers,
            body,
            url: request.url.clone(),
            private,
        };
        // Nothing is bought before the seller has taken the first voucher.
        let taken = loop {
            let text = match socket.next(self.left(deadline)).await? {
                Some(Heard::Text(text)) => text,
                Some(Heard::Binary(_)) => continue,
                None => return Err(SendError::Broken("the socket was closed".to_owned())),
            };
            match Frame::parse(text.as_bytes()) {
                Ok((_, Frame::Receipt(receipt))) => break receipt,
                Ok((_, Frame::Error { status, message })) => {
                    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                    let status = status.filter(|status| !status.is_success());
                    let body = Body::Complete(message.into());
                    return refused(answer(
                        status.unwrap_or(StatusCode::BAD_GATEWAY),
                        HeaderMap::new(),
                        body,
                    ));
                }
                Ok((_, Frame::Challenge { challenge, error })) => {
                    let mut headers = HeaderMap::new();
                    if let Some(line) = challenge.to_header().ok().and_then(|line| line.parse().ok()) {
                        headers.insert(header::WWW_AUTHENTICATE, line);
                    }
                    let body = Body::Complete(error.unwrap_or_default().into());
                    return refused(answer(StatusCode::PAYMENT_REQUIRED, headers, body));
                }
                Ok(_) | Err(_) => {
                    return Err(SendError::Broken("the seller does not speak as we do".to_owned()));
                }
            }
        };
        // What comes is delivered as it comes, and cannot be asked for again.
        let began = journal::Outcome::Settled {
            tx: None,
            confirmed: false,
            goods: Goods::Delivered,
            receipt: None,
            note: Some(STREAMS.to_owned()),
        };
        if let Err(error) = self.inner.authorizer.conclude(&purchase.id, began).await {
            return Err(SendError::Broken(error.to_string()));
        }
        let mut stream = Stream::default();
        stream.receipt = Some(*taken);
        let (open, last, failed) = (None, false, None);
        let mut line = Line { socket, framing, purchase, options, deadline, stream, open, last, failed };
        let end = loop {
            let heard = match line.socket.next(self.left(deadline)).await {
                Ok(Some(heard)) => heard,
                // For the one framing the receipt is the last word, for the other there is a word of its own.
                Ok(None) if line.last => break End::Over,
                Ok(None) | Err(_) => break End::Broken,
            };
            match self.hear(&mut line, heard).await {
                Ok(None) => {}
                Ok(Some(end)) => break end,
                Err(error) => break End::Stopped(error.to_string()),
            }
        };
        if matches!(end, End::Stopped(_)) {
            self.leave(&mut line).await;
        }
        line.socket.end().await;
        let Line { stream, failed, .. } = line;
        let mut headers = HeaderMap::new();
        if let Some(value) =
            stream.receipt.and_then(|receipt| HeaderValue::from_str(&receipt.to_header()).ok())
        {
            headers.insert(mpp::header::PAYMENT_RECEIPT, value);
        }
        let goods = stream.goods.freeze();
        let (body, ended) = match (end, failed) {
            (End::Over, None) => (Body::Complete(goods), None),
            (End::Over, Some(_)) | (End::Broken, _) => (Body::Truncated(goods), None),
            (End::TooLong, _) => (Body::TooLarge { limit: self.inner.max_body }, None),
            (End::Stopped(why), _) => (Body::Complete(goods), Some(why)),
        };
        Ok(Metered { answer: answer(StatusCode::OK, headers, body), ended, streamed: true, resumed })
    }

    fn left(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.inner.world.monotonic()).min(self.inner.patience.answer)
    }

    async fn hear(&self, line: &mut Line<'_>, heard: Heard) -> Result<Option<End>, FetchError> {
        let text = match heard {
            // Neither framing has a word for bytes: they are what was bought.
            Heard::Binary(bytes) => return Ok(self.deliver(line, bytes)),
            Heard::Text(text) => text,
        };
        let frame = match Frame::parse(text.as_bytes()) {
            Ok((_, frame)) => frame,
            // What nobody can read may be what it asks for: it is not paid any further.
            Err(error) => return Ok(Some(End::Stopped(format!("a frame cannot be read: {error}")))),
        };
        line.last = false;
        match frame {
            Frame::Message(Json::String(text)) => Ok(self.deliver(line, text.into())),
            Frame::Message(json) => Ok(self.deliver(line, json.to_string().into())),
            Frame::NeedVoucher(need) => self.answer_need(line, &need).await,
            Frame::Receipt(receipt) => {
                line.open = None;
                line.last = line.framing == Framing::MppRs;
                if let Some((state, json)) = state_of(&receipt) {
                    self.purse()?.told(&channel_of(line.purchase)?, state, &json).await?;
                }
                line.stream.receipt = Some(*receipt);
                Ok(None)
            }
            Frame::CloseReady(receipt) => {
                line.stream.receipt = Some(*receipt);
                Ok(Some(End::Over))
            }
            Frame::Error { status, message } => self.hear_error(line, status, message).await,
            Frame::Challenge { error, .. } => {
                Ok(Some(End::Stopped(error.unwrap_or_else(|| "the seller asks for payment anew".to_owned()))))
            }
            Frame::Credential(_) | Frame::CloseRequest => {
                Ok(Some(End::Stopped("the seller sends what is ours to send".to_owned())))
            }
        }
    }

    fn deliver(&self, line: &mut Line<'_>, bytes: Bytes) -> Option<End> {
        let stream = &mut line.stream;
        stream.arrived = true;
        if stream.goods.len().saturating_add(bytes.len()).saturating_add(1) > self.inner.max_body {
            return Some(End::TooLong);
        }
        line.options.tell(&Step::Said(&bytes));
        stream.goods.extend_from_slice(&bytes);
        stream.goods.extend_from_slice(b"\n");
        None
    }

    async fn answer_need(&self, line: &mut Line<'_>, need: &NeedVoucher) -> Result<Option<End>, FetchError> {
        if let Some(why) = line.stream.objection(need, line.purchase) {
            return Ok(Some(End::Stopped(why)));
        }
        line.stream.arrived = false;
        let (options, deadline) = (line.options, line.deadline);
        let header =
            self.raised((&super::session::need_of(need), true), line.purchase, options, deadline).await?;
        options.tell(&Step::Vouching { id: line.purchase.id, required: need.required_cumulative });
        self.show_in_band(line, header, 1).await
    }

    async fn show_in_band(
        &self,
        line: &mut Line<'_>,
        header: Header,
        time: u32,
    ) -> Result<Option<End>, FetchError> {
        let frame = Frame::Credential(header.value.clone());
        line.open = Some((header, time));
        match line.socket.say(frame.print(line.framing).unwrap_or_default()).await {
            Ok(()) => Ok(None),
            Err(_) => Ok(Some(End::Broken)),
        }
    }

    /// An error while a voucher is open is about the voucher; any other is the end of the stream, and its last receipt
    /// is still to come.
    async fn hear_error(
        &self,
        line: &mut Line<'_>,
        status: Option<u16>,
        message: String,
    ) -> Result<Option<End>, FetchError> {
        match (line.open.take(), status) {
            (Some((header, time)), Some(409 | 425 | 429 | 500..=599))
                if time < self.inner.patience.presentations =>
            {
                let pause = (self.inner.patience.first_pause * time).min(self.inner.patience.longest_pause);
                self.inner.world.sleep(pause).await;
                self.show_in_band(line, header, time.saturating_add(1)).await
            }
            (Some(_), _) => Err(FetchError::Voucher(message)),
            (None, _) => {
                line.failed = Some(message);
                Ok(None)
            }
        }
    }

    /// Asks for the end, and hears the last receipt.
    async fn leave(&self, line: &mut Line<'_>) {
        let Some(frame) = Frame::CloseRequest.print(line.framing) else { return };
        if line.socket.say(frame).await.is_err() {
            return;
        }
        let until = self.inner.world.monotonic().saturating_add(LAST_WORD);
        loop {
            let left = until.saturating_sub(self.inner.world.monotonic());
            let Ok(Some(Heard::Text(text))) = line.socket.next(left).await else { return };
            if let Ok((_, Frame::CloseReady(receipt))) = Frame::parse(text.as_bytes()) {
                line.stream.receipt = Some(*receipt);
                return;
            }
        }
    }
}

/// What a receipt says of its channel, and the same as JSON.
fn state_of(receipt: &Receipt) -> Option<(State, String)> {
    let read = receipt.session().ok()??;
    let state = State {
        accepted: read.accepted_cumulative,
        spent: read.spent,
        units: u128::from(read.units.unwrap_or(0)),
        deposit: 0,
        settled: 0,
    };
    Some((state, receipt.to_object().to_string()))
}
