//! What we wrote ourselves and somebody may have changed: stored instructions, and the seals on our offers.

use std::time::Duration;

use farthing_evm::{Address as Raw, Bytes, Log, ReadResult, Transfer, U256};
use farthing_payment::Instruction;
use farthing_primitives::{Address, Network, PullMethod, Registry, TenantId, Timestamp};
use farthing_rails::exact_evm::Checked;
use farthing_rails::offer::{BindingKey, BoundOffer, MAX_SEAL_LEN, Salt, SealError, bind, verify};
use farthing_rails::pushed_evm::Pushed;

use super::{is_settleable, is_short};
use crate::input::Input;
use crate::money::NOW;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => instruction(&mut input),
        1 => seal_text(&mut input),
        2 => seal_edited(&mut input),
        _ => seal_of_another(&mut input),
    }
}

fn instruction(input: &mut Input<'_>) {
    let answers = input.array::<8>();
    let bytes = input.rest();
    if let Some(pushed) = Pushed::recall(&Instruction::new(bytes)) {
        assert_eq!(pushed.instruction().as_bytes(), bytes);
        assert!(Checked::recall(&pushed.instruction()).is_err());
    }
    match Checked::recall(&Instruction::new(bytes)) {
        Ok(checked) => {
            let again = checked.instruction();
            // Our own format has one spelling, the recovery byte of a signature aside.
            assert_eq!(again.as_bytes().len(), bytes.len());
            assert_eq!(Checked::recall(&again).as_ref(), Ok(&checked));
            is_settleable(&checked);
            answered(&checked, &answers);
        }
        Err(error) => is_short(&error),
    }
}

/// Whatever a node answers: a payment is funded or refused, with a reason, and the proof is only our own transfer.
fn answered(checked: &Checked, answers: &[u8; 8]) {
    let word = |n: u8| Bytes::from(U256::from(n).to_be_bytes::<32>().to_vec());
    let results: Vec<ReadResult> = checked
        .reads()
        .iter()
        .zip(answers.iter().cycle())
        .map(|(_, answer)| match answer % 8 {
            0 => ReadResult::Returned(word(0)),
            1 => ReadResult::Returned(word(1)),
            2 => ReadResult::Returned(Bytes::from(vec![0xff; 32])),
            3 => ReadResult::Returned(Bytes::new()),
            4 => ReadResult::Returned(Bytes::from(vec![*answer; usize::from(*answer)])),
            5 => ReadResult::Reverted(Bytes::new()),
            6 => ReadResult::Reverted(Bytes::from(vec![*answer; 36])),
            _ => ReadResult::Unavailable,
        })
        .collect();
    match checked.judge(&results) {
        Ok(funded) => {
            let settlement = funded.settlement();
            assert!(!settlement.data.is_empty());
        }
        Err(refusal) => is_short(&refusal),
    }
    is_short(&checked.reverted(answers));
    let foreign = Log {
        address: Raw::repeat_byte(0x99),
        topics: vec![Transfer::TOPIC, Raw::ZERO.into_word(), Raw::ZERO.into_word()],
        data: word(answers[0]),
        index: 0,
    };
    assert!(
        checked.proof(&[foreign.clone(), foreign]).is_err() || checked.settles_at().as_str().contains("9999")
    );
}

struct Facts {
    tenant: TenantId,
    route: String,
    context: Vec<u8>,
    method: String,
    atoms: u128,
    payee: [u8; 20],
    permit2: bool,
    timeout: u64,
}

impl Facts {
    fn read(input: &mut Input<'_>) -> Self {
        Self {
            tenant: if input.flag() { TenantId::local() } else { "other".parse().expect("a tenant") },
            route: input.text(),
            context: input.blob().to_vec(),
            method: input.text(),
            atoms: input.u128(),
            payee: input.array(),
            permit2: input.flag(),
            timeout: input.u64(),
        }
    }

    fn offer(&self) -> BoundOffer<'_> {
        let registry = Registry::builtin();
        let asset = registry.dollar(&Network::eip155(84532)).expect("listed");
        BoundOffer {
            tenant: &self.tenant,
            route: &self.route,
            context: &self.context,
            method: &self.method,
            price: asset.atoms(self.atoms),
            pay_to: Address::from_evm_bytes(self.payee),
            pull: if self.permit2 { PullMethod::Permit2 } else { PullMethod::Eip3009 },
            max_timeout_secs: self.timeout,
        }
    }
}

fn key() -> BindingKey {
    BindingKey::new([3; 32], Some([4; 32]))
}

/// Nobody makes a seal of ours up.
fn seal_text(input: &mut Input<'_>) {
    let facts = Facts { timeout: 60, ..Facts::read(&mut Input::new(&[])) };
    let seal = String::from_utf8_lossy(input.rest()).into_owned();
    match verify(&key(), &facts.offer(), &seal, NOW) {
        Ok(until) => panic!("a seal from nowhere holds until {until}"),
        Err(error) => is_short(&error),
    }
}

/// One seal has one spelling: each other text is refused.
fn seal_edited(input: &mut Input<'_>) {
    let facts = Facts::read(input);
    let ends = NOW.plus(Duration::from_secs(60));
    let seal = bind(&key(), &facts.offer(), ends, Salt(input.array()));
    assert!(seal.len() <= MAX_SEAL_LEN);
    assert_eq!(verify(&key(), &facts.offer(), &seal, NOW), Ok(ends));
    assert_eq!(verify(&key().rotated([9; 32]), &facts.offer(), &seal, NOW), Ok(ends));
    assert_eq!(verify(&key(), &facts.offer(), &seal, ends), Err(SealError::Ended(ends)));
    let mut edited: Vec<char> = seal.chars().collect();
    while !input.is_empty() {
        let at = usize::from(input.byte()) % (edited.len() + 1);
        let out = usize::from(input.byte() % 3).min(edited.len() - at);
        let with = String::from_utf8_lossy(input.take(1)).into_owned();
        edited.splice(at..at + out, with.chars());
    }
    let edited: String = edited.into_iter().collect();
    let verdict = verify(&key(), &facts.offer(), &edited, NOW);
    assert_eq!(verdict.is_ok(), edited == seal, "{edited} for {seal}");
}

/// A seal holds for the offer that it was made for, and for no other.
fn seal_of_another(input: &mut Input<'_>) {
    let (one, other) = (Facts::read(input), Facts::read(input));
    let ends = Timestamp::from_secs(NOW.secs() + u64::from(input.byte()));
    let seal = bind(&key(), &one.offer(), ends, Salt([1; 9]));
    let verdict = verify(&key(), &other.offer(), &seal, NOW);
    assert_eq!(verdict.is_ok(), one.offer() == other.offer() && ends > NOW);
}
